//! SIGSTOP and, later, SIGCONT: a machine that hangs, and then goes on as if nothing had been.

use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use rand::rngs::StdRng;

use crate::Error;
use crate::faults::agents::{ended_by_its_guard, resume, until_lost};
use crate::faults::process::{Doing, Process};
use crate::faults::{ELECTION, Fault, Kind, MANY, Need, Whom, stop};
use crate::nodes::Nodes;

pub const KINDS: [Kind; 5] = [
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
    Kind {
        name: "zombie-agents",
        about: "half of the agents hang until their leases are over, and come back together",
        needs: &[Need::Agents(MANY)],
        make: || Pause::of(Whom::HalfOfAgents, LEASE),
    },
];

/// An agent's lease, and a little for the leader to see to it.
const LEASE: Duration = Duration::from_secs(16);

struct Pause {
    whom: Whom,
    lasts: Duration,
    stopped: Vec<Stopped>,
}

struct Stopped {
    id: String,
    process: Process,
    /// How long its log was then.
    said: u64,
}

impl Pause {
    fn of(whom: Whom, lasts: Duration) -> Box<dyn Fault> {
        Box::new(Pause {
            whom,
            lasts,
            stopped: Vec::new(),
        })
    }
}

#[async_trait]
impl Fault for Pause {
    async fn inflict(&mut self, nodes: &Nodes, rng: &mut StdRng) -> Result<String, Error> {
        let ids = self.whom.draw(nodes, rng).await?;
        let all = join_all(ids.iter().map(|id| halt(nodes, id))).await;
        let mut failed = Ok(());
        for one in all {
            // Also those have to go on that were stopped when another one could not be.
            match one {
                Ok(stopped) => self.stopped.push(stopped),
                Err(error) => failed = failed.and(Err(error)),
            }
        }
        failed?;
        Ok(format!("{} for {:?}", ids.join(" "), self.lasts))
    }

    fn hold(&self) -> Duration {
        self.lasts
    }

    async fn prove(&mut self, nodes: &Nodes) -> Result<String, Error> {
        let mut proofs = Vec::new();
        for one in &self.stopped {
            proofs.push(match ended_by_its_guard(nodes, &one.id, one.said).await? {
                Some(proof) => proof,
                None => hangs(&one.id, &one.process)?,
            });
        }
        let mut proof = match &proofs[..] {
            [] => return Err(Error::Invalid("nobody was stopped".to_owned())),
            [one] => one.clone(),
            all => format!("{} processes did nothing", all.len()),
        };
        if matches!(self.whom, Whom::Agent | Whom::HalfOfAgents) {
            let ids = self.stopped.iter().map(|one| &*one.id);
            proof.push_str(&until_lost(nodes, ids).await?);
        }
        Ok(proof)
    }

    async fn heal(&mut self, nodes: &Nodes) -> Result<(), Error> {
        let stopped = std::mem::take(&mut self.stopped);
        let all = stopped
            .iter()
            .map(|one| resume(nodes, &one.id, one.process.pid));
        join_all(all).await.into_iter().collect()
    }
}

async fn halt(nodes: &Nodes, id: &str) -> Result<Stopped, Error> {
    let said = nodes.node(id)?.said();
    let pid = stop(nodes, id).await?;
    let gone = || Error::Invalid(format!("{id} ended when it was stopped"));
    let process = Process::look(pid).ok_or_else(gone)?;
    Ok(Stopped {
        id: id.to_owned(),
        process,
        said,
    })
}

/// The same process, still stopped; the last of its threads may have taken a tick to stop.
fn hangs(id: &str, before: &Process) -> Result<String, Error> {
    let now = Process::look(before.pid);
    let (ticks, last) = (before.processor_ticks, before.processor_ticks + 1);
    let hangs = |now: &Process| {
        now.started == before.started && now.doing == Doing::Stopped && now.processor_ticks <= last
    };
    match now.as_ref().is_some_and(hangs) {
        true => Ok(format!("pid {} still at {ticks} ticks", before.pid)),
        false => Err(Error::Invalid(format!(
            "{id} was {before:?} and is {now:?}"
        ))),
    }
}
