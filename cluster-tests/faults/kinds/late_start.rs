//! An agent that hangs at the one place where it would be worst: it has looked whether its lease holds, and not yet started
//! the process. When it goes on, the task runs elsewhere. Only test builds can be told to.

use std::time::Duration;

use async_trait::async_trait;
use rand::rngs::StdRng;

use super::pause::{halted, resume, until_lost};
use crate::faults::process::{Doing, Process};
use crate::faults::{Fault, Kind, Need, Whom};
use crate::nodes::Nodes;
use crate::{Error, wait};

pub const KINDS: [Kind; 1] = [Kind {
    name: "hang-at-spawn",
    about: "an agent hangs between its last look at its lease and the start of a process, until the lease is over",
    needs: &[Need::Failpoints, Need::Agents(2)],
    make: || Box::<HangAtSpawn>::default(),
}];

/// Once, and not at its first task, so that others run meanwhile.
const WORDS: &str = "spawn-before=20%1*return(stop)";
/// For an agent to be given work.
const COMES: Duration = Duration::from_secs(60);

#[derive(Default)]
struct HangAtSpawn {
    victim: Option<(String, i32)>,
}

#[async_trait]
impl Fault for HangAtSpawn {
    async fn inflict(&mut self, nodes: &Nodes, rng: &mut StdRng) -> Result<String, Error> {
        let id = Whom::Agent.draw_one(nodes, rng).await?;
        let node = nodes.node(&id)?;
        nodes.terminate(&id).await?;
        node.set_failpoints(Some(WORDS.to_owned()));
        let pid = nodes.restart(&id).await;
        node.set_failpoints(None);
        let pid = pid?;
        self.victim = Some((id.clone(), pid));
        let what = format!("{id} to stop itself");
        let stopped = wait::until_now(&what, COMES, || {
            match Process::look(pid).map(|process| process.doing) {
                Some(Doing::Stopped) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        stopped
            .await
            .map_err(|error| Error::Invalid(error.to_string()))?;
        Ok(id)
    }

    fn hold(&self) -> Duration {
        Duration::ZERO
    }

    async fn prove(&mut self, nodes: &Nodes) -> Result<String, Error> {
        let Some((id, pid)) = &self.victim else {
            return Err(Error::Invalid("nobody was stopped".to_owned()));
        };
        let lost = until_lost(nodes, [&**id].into_iter()).await?;
        Ok(format!("{}{lost}", halted(nodes, id, *pid).await?))
    }

    async fn heal(&mut self, nodes: &Nodes) -> Result<(), Error> {
        match self.victim.take() {
            Some((id, pid)) => resume(nodes, &id, pid).await,
            None => Ok(()),
        }
    }
}
