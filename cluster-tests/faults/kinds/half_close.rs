//! Connections of which one direction ends in an orderly way, while the other goes on.

use async_trait::async_trait;
use rand::Rng;
use rand::rngs::StdRng;

use crate::Error;
use crate::faults::{Fault, Kind, Laid, Need, Whom};
use crate::network::{Disturbance, Edge, Harm};
use crate::nodes::Nodes;

pub const KINDS: [Kind; 1] = [Kind {
    name: "half-close",
    about: "of all connections between the leader and another controller one direction is closed",
    needs: &[Need::Network(Harm::HalfClose)],
    make: || Box::new(HalfClose::default()),
}];

#[derive(Default)]
struct HalfClose {
    laid: Laid,
}

#[async_trait]
impl Fault for HalfClose {
    async fn inflict(&mut self, nodes: &Nodes, rng: &mut StdRng) -> Result<String, Error> {
        let leader = Whom::Leader.draw_one(nodes, rng).await?;
        let follower = Whom::Follower.draw_one(nodes, rng).await?;
        let edge = match rng.random_bool(0.5) {
            true => Edge::new(&leader, &follower),
            false => Edge::new(&follower, &leader),
        };
        let what = edge.to_string();
        self.laid
            .lay(nodes, &[edge], Disturbance::HalfClose)
            .await?;
        Ok(what)
    }

    async fn prove(&mut self, nodes: &Nodes) -> Result<String, Error> {
        self.laid.prove(nodes).await
    }

    async fn heal(&mut self, nodes: &Nodes) -> Result<(), Error> {
        self.laid.lift(nodes).await
    }
}
