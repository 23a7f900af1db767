//! A controller's disk without a byte left.

use std::time::Duration;

use async_trait::async_trait;
use rand::rngs::StdRng;

use crate::Error;
use crate::faults::{Fault, Kind, Need, Whom, running};
use crate::nodes::Nodes;

pub const KINDS: [Kind; 1] = [Kind {
    name: "disk-full",
    about: "the disk of one controller has no room left",
    needs: &[Need::Disks, Need::Controllers(3)],
    make: || Box::new(DiskFull::default()),
}];

/// For a write that fails at this moment to be noticed, after there is room again.
const NOTICED: Duration = Duration::from_secs(1);
/// What a controller says before it ends because it can't write. Its end takes some seconds: it takes leave of its clients.
const ENDING: &str = "this controller can't go on";

#[derive(Default)]
struct DiskFull {
    full: Option<(String, i32)>,
    /// How long its log was before.
    said: u64,
    proof: String,
}

#[async_trait]
impl Fault for DiskFull {
    async fn inflict(&mut self, nodes: &Nodes, rng: &mut StdRng) -> Result<String, Error> {
        let id = Whom::Controller.draw_one(nodes, rng).await?;
        let pid = running(nodes, &id)?;
        let missing = || Error::Invalid(format!("{id} has no disk of its own"));
        let disk = nodes.node(&id)?.disk.as_ref().ok_or_else(missing)?;
        self.full = Some((id.clone(), pid));
        self.said = nodes.node(&id)?.said();
        // It writes until it is refused, and may end the process by that.
        match disk.fill(pid) {
            Ok(()) => self.proof = format!("{id}'s disk refused another 1 byte"),
            Err(error) if nodes.node(&id)?.fallen().await.is_none() => return Err(error),
            Err(_its_process_ended) => {}
        }
        Ok(id)
    }

    async fn prove(&mut self, nodes: &Nodes) -> Result<String, Error> {
        let Some((id, _)) = &self.full else {
            return Err(Error::Invalid("no disk was filled".to_owned()));
        };
        if let Some(status) = nodes.node(id)?.fallen().await {
            self.proof.push_str(&format!(", and it ended: {status}"));
        }
        match self.proof.is_empty() {
            true => Err(Error::Invalid(format!("{id}'s disk was not full"))),
            false => Ok(self.proof.clone()),
        }
    }

    async fn heal(&mut self, nodes: &Nodes) -> Result<(), Error> {
        let Some((id, pid)) = self.full.take() else {
            return Ok(());
        };
        let node = nodes.node(&id)?;
        if let (None, Some(disk)) = (node.fallen().await, &node.disk) {
            let made = disk.make_room(pid);
            let ends = node.until_said(self.said, ENDING, NOTICED).await.is_ok();
            if !ends && node.fallen().await.is_none() {
                return made;
            }
            node.ended().await?;
        }
        // The filler goes with the start.
        nodes.restart(&id).await.map(drop)
    }
}
