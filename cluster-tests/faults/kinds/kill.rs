//! SIGKILL: no farewell, nothing flushed.

use std::time::Duration;

use async_trait::async_trait;
use rand::rngs::StdRng;

use crate::Error;
use crate::faults::process::Process;
use crate::faults::{Fault, Killed, Kind, Need, Whom, kill_together};
use crate::nodes::Nodes;

pub const KINDS: [Kind; 4] = [
    Kind {
        name: "kill-leader",
        about: "the leader's process dies",
        needs: &[],
        make: || Kill::of(Whom::Leader),
    },
    Kind {
        name: "kill-follower",
        about: "the process of a controller that does not lead dies",
        needs: &[],
        make: || Kill::of(Whom::Follower),
    },
    Kind {
        name: "kill-all",
        about: "the processes of all controllers die at once",
        needs: &[],
        make: || Kill::of(Whom::AllControllers),
    },
    Kind {
        name: "kill-agent",
        about: "an agent's process dies",
        needs: &[Need::Agents(2)],
        make: || Kill::of(Whom::Agent),
    },
];

struct Kill {
    whom: Whom,
    killed: Vec<Killed>,
}

impl Kill {
    fn of(whom: Whom) -> Box<dyn Fault> {
        Box::new(Kill {
            whom,
            killed: Vec::new(),
        })
    }
}

#[async_trait]
impl Fault for Kill {
    async fn inflict(&mut self, nodes: &Nodes, rng: &mut StdRng) -> Result<String, Error> {
        let ids = self.whom.draw(nodes, rng).await?;
        self.killed = kill_together(nodes, &ids).await?;
        Ok(ids.join(" "))
    }

    fn hold(&self) -> Duration {
        Duration::from_millis(500)
    }

    async fn prove(&mut self, nodes: &Nodes) -> Result<String, Error> {
        if let Some(lives) = self.killed.iter().find(|it| Process::is_alive(it.pid)) {
            return Err(Error::Invalid(format!("{} still lives", lives.id)));
        }
        let pids: Vec<String> = self.killed.iter().map(|it| it.pid.to_string()).collect();
        let mut proof = format!("pid {} is gone", pids.join(" "));
        if let (Whom::Leader, Some(former)) = (self.whom, self.killed.first()) {
            let leader = nodes.leader_other_than(&former.id).await?;
            proof.push_str(&format!(", {leader} leads"));
        }
        Ok(proof)
    }

    async fn heal(&mut self, nodes: &Nodes) -> Result<(), Error> {
        for killed in self.killed.drain(..) {
            nodes.restart(&killed.id).await?;
        }
        Ok(())
    }
}
