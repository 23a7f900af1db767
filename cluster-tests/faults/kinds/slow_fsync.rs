//! A controller's disk that takes half a second and more for a sync.

use std::time::Duration;

use async_trait::async_trait;
use rand::Rng;
use rand::rngs::StdRng;

use crate::Error;
use crate::faults::throttle::Throttle;
use crate::faults::{Fault, Kind, Need, Whom, running};
use crate::nodes::Nodes;

pub const KINDS: [Kind; 1] = [Kind {
    name: "slow-fsync",
    about: "the disk of one controller takes half a second and more for a sync",
    needs: &[Need::Disks, Need::Throttle, Need::Controllers(3)],
    make: || Box::new(SlowFsync::default()),
}];

/// What a controller says of a write to its log that took half a second or more, with how long it took.
const SLOW: &str = "a write to the log is slow";
/// For it to say so: a follower writes only what its leader sends, and a new leader may have to be found first.
const SAID: Duration = Duration::from_secs(20);

#[derive(Default)]
struct SlowFsync {
    id: String,
    /// How long its log was before.
    said: u64,
    throttle: Option<Throttle>,
}

#[async_trait]
impl Fault for SlowFsync {
    async fn inflict(&mut self, nodes: &Nodes, rng: &mut StdRng) -> Result<String, Error> {
        self.id = Whom::Controller.draw_one(nodes, rng).await?;
        let writes = rng.random_range(1..=3);
        let pid = running(nodes, &self.id)?;
        let node = nodes.node(&self.id)?;
        let missing = || Error::Invalid(format!("{} has no disk of its own", self.id));
        let disk = node.disk.as_ref().ok_or_else(missing)?;
        self.said = node.said();
        self.throttle = Some(Throttle::lay(pid, &disk.mounted(pid), writes)?);
        Ok(format!("{}, {writes} writes/s", self.id))
    }

    fn hold(&self) -> Duration {
        Duration::from_secs(3)
    }

    async fn prove(&mut self, nodes: &Nodes) -> Result<String, Error> {
        let node = nodes.node(&self.id)?;
        let said = node.until_said(self.said, SLOW, SAID).await;
        said.map_err(|error| Error::Invalid(error.to_string()))?;
        let said = node.said_since(self.said);
        let took = said
            .lines()
            .filter(|line| line.contains(SLOW))
            .filter_map(|line| line.split_once("took=")?.1.split(' ').next());
        let took: Vec<&str> = took.collect();
        Ok(format!("its log took {}", took.join(", ")))
    }

    async fn heal(&mut self, _nodes: &Nodes) -> Result<(), Error> {
        match self.throttle.take() {
            Some(throttle) => throttle.lift().await,
            None => Ok(()),
        }
    }
}
