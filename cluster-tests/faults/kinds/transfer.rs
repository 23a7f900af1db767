//! Leadership that is handed over, as before a machine goes down for maintenance.

use std::time::Duration;

use async_trait::async_trait;
use rand::rngs::StdRng;

use crate::Error;
use crate::faults::{Fault, Kind, Whom};
use crate::nodes::Nodes;

pub const KINDS: [Kind; 1] = [Kind {
    name: "transfer-leadership",
    about: "the leader hands leadership over to another controller",
    needs: &[],
    make: || Box::new(Transfer::default()),
}];

#[derive(Default)]
struct Transfer {
    from: String,
    to: String,
    term: u64,
}

#[async_trait]
impl Fault for Transfer {
    async fn inflict(&mut self, nodes: &Nodes, rng: &mut StdRng) -> Result<String, Error> {
        let before = nodes.status().await?;
        self.from = before.leader().unwrap_or_default().to_owned();
        self.term = before.term;
        self.to = Whom::Follower.draw_one(nodes, rng).await?;
        let to = nodes.member_id(&self.to).await?;
        let transfer = ["cluster", "transfer-leadership", &to];
        nodes.cli().expect(&transfer).await?;
        Ok(format!("{} to {}", self.from, self.to))
    }

    fn hold(&self) -> Duration {
        Duration::ZERO
    }

    async fn prove(&mut self, nodes: &Nodes) -> Result<String, Error> {
        let leader = nodes.leader_other_than(&self.from).await?;
        let now = nodes.status().await?;
        match leader == self.to && now.term > self.term {
            true => Ok(format!(
                "{leader} leads, term {} to {}",
                self.term, now.term
            )),
            false => Err(Error::Invalid(format!(
                "{leader} leads in term {}, asked was {} after term {}",
                now.term, self.to, self.term
            ))),
        }
    }

    async fn heal(&mut self, _nodes: &Nodes) -> Result<(), Error> {
        Ok(())
    }
}
