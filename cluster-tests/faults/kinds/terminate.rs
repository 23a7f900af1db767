//! SIGTERM: an orderly stop, as by an administrator.

use async_trait::async_trait;
use rand::rngs::StdRng;

use crate::Error;
use crate::faults::{Fault, Kind, Need, Whom};
use crate::nodes::Nodes;

pub const KINDS: [Kind; 2] = [
    Kind {
        name: "terminate-leader",
        about: "the leader is told to stop, and does so in an orderly way",
        needs: &[],
        make: || Terminate::of(Whom::Leader),
    },
    Kind {
        name: "terminate-agent",
        about: "an agent is told to stop, and does so in an orderly way",
        needs: &[Need::Agents(2)],
        make: || Terminate::of(Whom::Agent),
    },
];

struct Terminate {
    whom: Whom,
    id: Option<String>,
    ended: String,
}

impl Terminate {
    fn of(whom: Whom) -> Box<dyn Fault> {
        Box::new(Terminate {
            whom,
            id: None,
            ended: String::new(),
        })
    }
}

#[async_trait]
impl Fault for Terminate {
    async fn inflict(&mut self, nodes: &Nodes, rng: &mut StdRng) -> Result<String, Error> {
        let id = self.whom.draw_one(nodes, rng).await?;
        self.id = Some(id.clone());
        let status = nodes.terminate(&id).await?;
        if !status.is_some_and(|status| status.success()) {
            let text = format!("{id} did not stop in an orderly way: {status:?}");
            return Err(Error::Broken(text));
        }
        self.ended = format!("{id} ended with exit code 0");
        Ok(id)
    }

    async fn prove(&mut self, nodes: &Nodes) -> Result<String, Error> {
        match (self.whom, &self.id) {
            (Whom::Leader, Some(id)) => {
                let leader = nodes.leader_other_than(id).await?;
                Ok(format!("{}, {leader} leads", self.ended))
            }
            _ => Ok(self.ended.clone()),
        }
    }

    async fn heal(&mut self, nodes: &Nodes) -> Result<(), Error> {
        match self.id.take() {
            Some(id) => nodes.restart(&id).await.map(drop),
            None => Ok(()),
        }
    }
}
