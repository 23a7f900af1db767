//! A controller that dies again and again, at any moment of its start.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use rand::Rng;
use rand::rngs::StdRng;

use crate::Error;
use crate::faults::process::Process;
use crate::faults::{Fault, Kind, Whom, kill};
use crate::nodes::Nodes;

pub const KINDS: [Kind; 1] = [Kind {
    name: "crash-loop",
    about: "a controller dies several times, each time at another moment of its start",
    needs: &[],
    make: || Box::new(CrashLoop::default()),
}];

/// Longest that it lives: a start takes about as long.
const LIVES_MILLIS: u64 = 500;

#[derive(Default)]
struct CrashLoop {
    id: String,
    pids: BTreeSet<i32>,
    lives: usize,
}

#[async_trait]
impl Fault for CrashLoop {
    async fn inflict(&mut self, nodes: &Nodes, rng: &mut StdRng) -> Result<String, Error> {
        self.id = Whom::Controller.draw_one(nodes, rng).await?;
        self.lives = rng.random_range(3..=5);
        for _ in 1..self.lives {
            self.pids.insert(kill(nodes, &self.id).await?.pid);
            nodes.restart(&self.id).await?;
            let lives = rng.random_range(20..LIVES_MILLIS);
            tokio::time::sleep(Duration::from_millis(lives)).await;
        }
        self.pids.insert(kill(nodes, &self.id).await?.pid);
        Ok(format!("{}, {} times", self.id, self.lives))
    }

    fn hold(&self) -> Duration {
        Duration::ZERO
    }

    async fn prove(&mut self, _nodes: &Nodes) -> Result<String, Error> {
        let dead = self.pids.iter().filter(|pid| !Process::is_alive(**pid));
        match dead.count() {
            dead if dead == self.lives => {
                let pids: Vec<String> = self.pids.iter().map(i32::to_string).collect();
                Ok(format!("pids {} are gone", pids.join(" ")))
            }
            _ => Err(Error::Invalid(format!(
                "{} pids for {} lives",
                self.pids.len(),
                self.lives
            ))),
        }
    }

    async fn heal(&mut self, nodes: &Nodes) -> Result<(), Error> {
        // Unless it failed halfway, it is dead.
        match self.pids.is_empty() {
            true => Ok(()),
            false => nodes.restart(&self.id).await.map(drop),
        }
    }
}
