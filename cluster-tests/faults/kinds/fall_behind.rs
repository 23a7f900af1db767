//! A controller that was away for longer than the others keep their log.

use std::time::Duration;

use async_trait::async_trait;
use rand::rngs::StdRng;

use crate::faults::{Fault, Kind, Need, OFTEN, Whom};
use crate::nodes::Nodes;
use crate::{Error, wait};

pub const KINDS: [Kind; 1] = [Kind {
    name: "fall-behind",
    about: "a controller is away until what it lacks is purged, and is sent a snapshot",
    needs: &[Need::Purges, Need::Controllers(3)],
    make: || Box::new(FallBehind::default()),
}];

/// More than is kept behind a snapshot, and between two.
const LACKS: u64 = 3 * OFTEN;
/// For clients to write that much, and for a snapshot to be sent.
const LONG: Duration = Duration::from_secs(120);
/// What a controller says that was sent one.
const TOOK_OVER: &str = "took over a snapshot";

#[derive(Default)]
struct FallBehind {
    away: Option<String>,
}

#[async_trait]
impl Fault for FallBehind {
    async fn inflict(&mut self, nodes: &Nodes, rng: &mut StdRng) -> Result<String, Error> {
        let id = Whom::Follower.draw_one(nodes, rng).await?;
        self.away = Some(id.clone());
        nodes.terminate(&id).await?;
        Ok(id)
    }

    fn hold(&self) -> Duration {
        Duration::ZERO
    }

    async fn prove(&mut self, nodes: &Nodes) -> Result<String, Error> {
        let id = self.away.clone().unwrap_or_default();
        let before = applied(nodes).await?;
        let what = format!("{LACKS} more entries");
        let lacks = wait::until(&what, LONG, || async {
            let now = applied(nodes).await.map_err(|error| error.to_string())?;
            match now.saturating_sub(before) {
                more @ LACKS.. => Ok(more),
                fewer => Err(format!("{fewer}")),
            }
        });
        let lacks = lacks
            .await
            .map_err(|error| Error::Invalid(error.to_string()))?;
        let node = nodes.node(&id)?;
        let said = node.said();
        nodes.restart(&id).await?;
        self.away = None;
        let took_over = node.until_said(said, TOOK_OVER, LONG).await;
        took_over.map_err(|error| Error::Invalid(error.to_string()))?;
        Ok(format!(
            "{id} lacked {lacks} entries and took over a snapshot"
        ))
    }

    async fn heal(&mut self, nodes: &Nodes) -> Result<(), Error> {
        match self.away.take() {
            Some(id) => nodes.restart(&id).await.map(drop),
            None => Ok(()),
        }
    }
}

/// How far the cluster is.
async fn applied(nodes: &Nodes) -> Result<u64, Error> {
    let status = nodes.status().await?;
    let members = status.members.iter();
    Ok(members
        .filter_map(|member| member.applied)
        .max()
        .unwrap_or_default())
}
