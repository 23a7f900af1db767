//! A controller that only clients can't reach: whoever they ask instead has to pass on what they want.

use async_trait::async_trait;
use rand::rngs::StdRng;

use crate::Error;
use crate::faults::{Fault, Kind, Laid, Need, Whom};
use crate::network::{CLIENT, Disturbance, Edge, Harm};
use crate::nodes::Nodes;

pub const KINDS: [Kind; 1] = [Kind {
    name: "hide-leader",
    about: "no client reaches the leader, and everybody else does",
    needs: &[Need::Network(Harm::Silence), Need::Controllers(2)],
    make: || Box::new(Hidden::default()),
}];

#[derive(Default)]
struct Hidden {
    laid: Laid,
}

#[async_trait]
impl Fault for Hidden {
    async fn inflict(&mut self, nodes: &Nodes, rng: &mut StdRng) -> Result<String, Error> {
        let leader = Whom::Leader.draw_one(nodes, rng).await?;
        let edges = Edge::both(CLIENT, &leader);
        self.laid.lay(nodes, &edges, Disturbance::Silence).await?;
        Ok(leader)
    }

    async fn prove(&mut self, nodes: &Nodes) -> Result<String, Error> {
        // It asks all controllers; perhaps nobody else has since.
        nodes.status().await?;
        self.laid.prove(nodes).await
    }

    async fn heal(&mut self, nodes: &Nodes) -> Result<(), Error> {
        self.laid.lift(nodes).await
    }
}
