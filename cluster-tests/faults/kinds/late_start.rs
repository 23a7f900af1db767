//! An agent that hangs at the one place where it would be worst: it has looked whether its lease holds, and not yet started
//! the process. When it goes on, the task runs elsewhere. Only test builds can be told to.

use std::time::Duration;

use async_trait::async_trait;
use rand::rngs::StdRng;

use crate::cluster::Members;
use crate::faults::agents::{ended_by_its_guard, resume, until_lost};
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

/// Once, and mostly not at its first task.
const WORDS: &str = "spawn-before=20%1*return(stop)";
/// For an agent to be given work, and for its guard to find it when its lease is over.
const COMES: Duration = Duration::from_secs(60);

#[derive(Default)]
struct HangAtSpawn {
    victim: Option<String>,
    /// How long its log was before.
    said: u64,
}

#[async_trait]
impl Fault for HangAtSpawn {
    async fn inflict(&mut self, nodes: &Nodes, rng: &mut StdRng) -> Result<String, Error> {
        let id = Whom::Agent.draw_one(nodes, rng).await?;
        self.victim = Some(id.clone());
        let node = nodes.node(&id)?;
        self.said = node.said();
        nodes.terminate(&id).await?;
        node.set_failpoints(Some(WORDS.to_owned()));
        let pid = nodes.restart(&id).await;
        node.set_failpoints(None);
        let pid = pid?;
        let what = format!("{id} to stop itself");
        let stopped = wait::until_now(&what, COMES, || match is_stopped(pid) {
            true => Ok(()),
            false => Err("it does not"),
        });
        stopped
            .await
            .map_err(|error| Error::Invalid(error.to_string()))?;
        Ok(id)
    }

    fn hold(&self) -> Duration {
        Duration::ZERO
    }

    /// That it was lost, too, for its guard must have ended it before.
    async fn prove(&mut self, nodes: &Nodes) -> Result<String, Error> {
        let id = self.victim.clone().unwrap_or_default();
        let fallen = nodes.node(&id)?.until_fallen(COMES).await;
        fallen.map_err(|error| Error::Invalid(error.to_string()))?;
        let ended = ended_by_its_guard(nodes, &id, self.said).await?;
        let lost = until_lost(nodes, [&*id].into_iter()).await?;
        Ok(format!("{}{lost}", ended.unwrap_or_default()))
    }

    /// One that still hangs goes on, as it would, and whoever judges sees what it does.
    async fn heal(&mut self, nodes: &Nodes) -> Result<(), Error> {
        let Some(id) = self.victim.take() else {
            return Ok(());
        };
        let pid = nodes.member(&id)?.pid;
        match pid.filter(|pid| is_stopped(*pid)) {
            Some(pid) => resume(nodes, &id, pid).await,
            None => {
                nodes.put_down(&id).await?;
                nodes.restart(&id).await.map(drop)
            }
        }
    }
}

fn is_stopped(pid: i32) -> bool {
    Process::look(pid).is_some_and(|process| process.doing == Doing::Stopped)
}
