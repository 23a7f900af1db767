//! SIGSTOP and, later, SIGCONT: a machine that hangs, and then goes on as if nothing had been.

use std::time::Duration;

use async_trait::async_trait;
use rand::rngs::StdRng;

use crate::faults::process::{Doing, Process};
use crate::faults::{ELECTION, Fault, Kind, Need, Whom, continue_stopped, stop};
use crate::nodes::Nodes;
use crate::{Error, wait};

pub const KINDS: [Kind; 4] = [
    Kind {
        name: "pause-1x",
        about: "the leader's process hangs for one election timeout",
        needs: &[],
        make: || Pause::of(Whom::Leader, ELECTION),
    },
    Kind {
        name: "pause-3x",
        about: "the process of any controller hangs for three election timeouts",
        needs: &[],
        make: || Pause::of(Whom::Controller, ELECTION.saturating_mul(3)),
    },
    Kind {
        name: "pause-10x",
        about: "the leader's process hangs for ten election timeouts",
        needs: &[],
        make: || Pause::of(Whom::Leader, ELECTION.saturating_mul(10)),
    },
    Kind {
        name: "zombie-agent",
        about: "an agent hangs until its lease is over, and comes back as if it were not",
        needs: &[Need::Agents(2)],
        make: || Pause::of(Whom::Agent, LEASE),
    },
];

/// An agent's lease, and a little for the leader to see to it.
const LEASE: Duration = Duration::from_secs(16);
/// For the cluster to say that an agent is lost: each new leader counts the lease from its beginning, and there may be many.
const LOST: Duration = Duration::from_secs(180);

struct Pause {
    whom: Whom,
    lasts: Duration,
    stopped: Option<(String, Process)>,
}

impl Pause {
    fn of(whom: Whom, lasts: Duration) -> Box<dyn Fault> {
        Box::new(Pause {
            whom,
            lasts,
            stopped: None,
        })
    }
}

#[async_trait]
impl Fault for Pause {
    async fn inflict(&mut self, nodes: &Nodes, rng: &mut StdRng) -> Result<String, Error> {
        let id = self.whom.draw_one(nodes, rng).await?;
        let pid = stop(nodes, &id).await?;
        let gone = || Error::Invalid(format!("{id} ended when it was stopped"));
        self.stopped = Some((id.clone(), Process::look(pid).ok_or_else(gone)?));
        Ok(format!("{id} for {:?}", self.lasts))
    }

    fn hold(&self) -> Duration {
        self.lasts
    }

    async fn prove(&mut self, nodes: &Nodes) -> Result<String, Error> {
        let Some((id, before)) = &self.stopped else {
            return Err(Error::Invalid("nobody was stopped".to_owned()));
        };
        // The same process, still stopped; the last of its threads may have taken a tick to stop.
        let now = Process::look(before.pid);
        let (ticks, last) = (before.processor_ticks, before.processor_ticks + 1);
        let hangs = |now: &Process| {
            now.started == before.started
                && now.doing == Doing::Stopped
                && now.processor_ticks <= last
        };
        if !now.as_ref().is_some_and(hangs) {
            return Err(Error::Invalid(format!(
                "{id} was {before:?} and is {now:?}"
            )));
        }
        if self.whom != Whom::Agent {
            return Ok(format!("pid {} still at {ticks} ticks", before.pid));
        }
        until_lost(nodes, id).await?;
        Ok(format!(
            "pid {} still at {ticks} ticks, and {id} is lost",
            before.pid
        ))
    }

    async fn heal(&mut self, _nodes: &Nodes) -> Result<(), Error> {
        match self.stopped.take() {
            Some((id, process)) => continue_stopped(&id, process.pid).await,
            None => Ok(()),
        }
    }
}

/// Waits until the cluster has taken an agent's lease away.
pub async fn until_lost(nodes: &Nodes, id: &str) -> Result<(), Error> {
    let what = format!("{id} to be lost");
    let lost = wait::until(&what, LOST, || async {
        let agent = nodes.agent(id).await;
        let agent = agent.map_err(|error| error.to_string())?;
        match agent.state == "lost" {
            true => Ok(()),
            false => Err(agent.state),
        }
    });
    lost.await
        .map_err(|error| Error::Invalid(error.to_string()))
}
