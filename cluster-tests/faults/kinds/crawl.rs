//! A process that crawls: it stands still for most of the time and does a little in between, as on a machine that has far too
//! much to do. Worse than one that is dead, because nobody can be sure of it.

use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use rand::Rng;
use rand::rngs::StdRng;

use crate::Error;
use crate::faults::{Fault, Kind, Need, Whom, continue_stopped, stop};
use crate::nodes::Nodes;

pub const KINDS: [Kind; 2] = [
    Kind {
        name: "slow-leader",
        about: "the leader's process stands still for most of the time, and does a little in between",
        needs: &[],
        make: || Crawl::of(Whom::Leader),
    },
    Kind {
        name: "slow-agent",
        about: "an agent's process stands still for most of the time, and does a little in between",
        needs: &[Need::Agents(2)],
        make: || Crawl::of(Whom::Agent),
    },
];

const ROUNDS: usize = 12;
/// Milliseconds that it stands still: less than it takes to call it dead, mostly.
const STANDS: Range<u64> = 200..450;
/// Milliseconds in between.
const GOES: Range<u64> = 20..60;

struct Crawl {
    whom: Whom,
    /// Whoever stands still now.
    stopped: Option<(String, i32)>,
    stood: Duration,
}

impl Crawl {
    fn of(whom: Whom) -> Box<dyn Fault> {
        Box::new(Crawl {
            whom,
            stopped: None,
            stood: Duration::ZERO,
        })
    }
}

#[async_trait]
impl Fault for Crawl {
    async fn inflict(&mut self, nodes: &Nodes, rng: &mut StdRng) -> Result<String, Error> {
        let id = self.whom.draw_one(nodes, rng).await?;
        for _ in 0..ROUNDS {
            let pid = stop(nodes, &id).await?;
            self.stopped = Some((id.clone(), pid));
            let stands = Duration::from_millis(rng.random_range(STANDS));
            tokio::time::sleep(stands).await;
            continue_stopped(&id, pid).await?;
            self.stopped = None;
            self.stood += stands;
            let goes = rng.random_range(GOES);
            tokio::time::sleep(Duration::from_millis(goes)).await;
        }
        Ok(id)
    }

    fn hold(&self) -> Duration {
        Duration::ZERO
    }

    /// Seen meanwhile: [`stop`] waits until it is stopped, [`continue_stopped`] refuses one that did not stay so.
    async fn prove(&mut self, _nodes: &Nodes) -> Result<String, Error> {
        let stood = self.stood;
        Ok(format!("it stood still for {stood:?}, in {ROUNDS} parts"))
    }

    async fn heal(&mut self, _nodes: &Nodes) -> Result<(), Error> {
        match self.stopped.take() {
            Some((id, pid)) => continue_stopped(&id, pid).await,
            None => Ok(()),
        }
    }
}
