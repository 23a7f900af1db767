//! An edge that comes and goes.

use std::time::Duration;

use async_trait::async_trait;
use rand::Rng;
use rand::rngs::StdRng;

use crate::Error;
use crate::faults::whom::all_but;
use crate::faults::{Fault, Kind, Laid, Need, Whom};
use crate::network::{Disturbance, Edge, Harm};
use crate::nodes::Nodes;

pub const KINDS: [Kind; 1] = [Kind {
    name: "flapping",
    about: "the leader is cut off from the other controllers and back, several times",
    needs: &[Need::Network(Harm::Silence)],
    make: || Box::new(Flapping::default()),
}];

/// Each time, one way or the other: around the election timeouts.
const MILLIS: std::ops::Range<u64> = 100..800;

#[derive(Default)]
struct Flapping {
    laid: Laid,
    proofs: usize,
    cuts: usize,
}

#[async_trait]
impl Fault for Flapping {
    async fn inflict(&mut self, nodes: &Nodes, rng: &mut StdRng) -> Result<String, Error> {
        let leader = Whom::Leader.draw_one(nodes, rng).await?;
        let edges = Edge::between(&[&leader], &all_but(nodes.controllers(), &[&leader]));
        self.cuts = rng.random_range(3..=5);
        for _ in 0..self.cuts {
            self.laid.lay(nodes, &edges, Disturbance::Silence).await?;
            pause(rng).await;
            self.laid.prove(nodes).await?;
            self.proofs += 1;
            self.laid.lift(nodes).await?;
            pause(rng).await;
        }
        Ok(format!("{leader}, {} times", self.cuts))
    }

    fn hold(&self) -> Duration {
        Duration::ZERO
    }

    async fn prove(&mut self, _nodes: &Nodes) -> Result<String, Error> {
        match self.proofs == self.cuts {
            true => Ok(format!("each of {} cuts was felt", self.cuts)),
            false => Err(Error::Invalid(format!("{} cuts were felt", self.proofs))),
        }
    }

    async fn heal(&mut self, nodes: &Nodes) -> Result<(), Error> {
        self.laid.lift(nodes).await
    }
}

async fn pause(rng: &mut StdRng) {
    tokio::time::sleep(Duration::from_millis(rng.random_range(MILLIS))).await;
}
