//! One fault after the other, with pauses in which the cluster has time to show that it got over the last one.

use std::ops::Range;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::Say;
use super::ending::Ending;
use super::troubles::Troubles;
use crate::Error;
use crate::cluster::tail;
use crate::faults::{Kind, Strike};
use crate::history::Recorder;
use crate::nodes::Nodes;

/// Milliseconds between a fault and the next: some shorter, most longer than what the cluster has to get over one.
const PAUSE: Range<u64> = 500..4_000;

/// Draws from these kinds until the run is over.
pub struct Striker<'a> {
    pub nodes: &'a Nodes,
    pub kinds: Vec<&'static Kind>,
    pub rng: StdRng,
    pub recorder: &'a Recorder,
    pub ending: &'a Ending,
    pub say: Say<'a>,
    pub troubles: Troubles,
}

impl Striker<'_> {
    pub async fn run(&mut self) {
        loop {
            let pause = std::time::Duration::from_millis(self.rng.random_range(PAUSE));
            self.ending.pause(pause).await;
            if self.ending.is_over() {
                return;
            }
            let Some(kind) = self.kinds.choose(&mut self.rng).copied() else {
                continue;
            };
            match self.strike(kind).await {
                Ok(told) => (self.say)(&told),
                Err(error) => {
                    (self.say)(&format!("{}: {error}", kind.name));
                    self.troubles.note(kind.name, &error);
                    if !matches!(error, Error::Invalid(_)) {
                        // What comes now would say nothing of its own.
                        self.ending.ask();
                        return;
                    }
                }
            }
        }
    }

    async fn strike(&mut self, kind: &'static Kind) -> Result<String, Error> {
        let strike = Strike::begin(kind, self.nodes, &mut self.rng, self.recorder).await?;
        let report = strike.end(self.nodes).await?;
        if !kind.hits_agents() {
            self.nobody_fell().await?;
            self.nodes.until_controllers_back().await?;
        }
        Ok(report.to_string())
    }

    /// After healing every process is one that runs.
    async fn nobody_fell(&self) -> Result<(), Error> {
        let controllers = self.nodes.controllers();
        let fallen = self.nodes.fallen().await.into_iter();
        let mut of_controllers = fallen.filter(|(id, _)| controllers.contains(id));
        match of_controllers.next() {
            None => Ok(()),
            Some((id, status)) => {
                let log = tail(&self.nodes.node(&id)?.log);
                let text = format!("{id} ended by itself: {status}; its log ends:\n{log}");
                Err(Error::Broken(text))
            }
        }
    }
}
