//! A cable that is pulled: the node sees so itself, and its sockets fail at once instead of waiting.

use async_trait::async_trait;
use rand::Rng;
use rand::rngs::StdRng;

use crate::Error;
use crate::faults::{Fault, Kind, Need, Whom};
use crate::nodes::Nodes;

pub const KINDS: [Kind; 1] = [Kind {
    name: "link-down",
    about: "the network interface of a controller or an agent goes down",
    needs: &[Need::Links],
    make: || Box::new(LinkDown::default()),
}];

#[derive(Default)]
struct LinkDown {
    id: Option<String>,
}

#[async_trait]
impl Fault for LinkDown {
    async fn inflict(&mut self, nodes: &Nodes, rng: &mut StdRng) -> Result<String, Error> {
        let whom = match rng.random_range(0..3) {
            0 => Whom::Leader,
            1 => Whom::Follower,
            _ => Whom::Agent,
        };
        let id = whom.draw_one(nodes, rng).await?;
        self.id = Some(id.clone());
        nodes.network().link_down(&id)?;
        Ok(id)
    }

    async fn prove(&mut self, nodes: &Nodes) -> Result<String, Error> {
        let id = self.id.as_deref().unwrap_or_default();
        match nodes.network().has_carrier(id)? {
            false => Ok(format!("the router has no carrier from {id}")),
            true => Err(Error::Invalid(format!("the router still hears {id}"))),
        }
    }

    async fn heal(&mut self, nodes: &Nodes) -> Result<(), Error> {
        match self.id.take() {
            Some(id) => nodes.network().link_up(&id),
            None => Ok(()),
        }
    }
}
