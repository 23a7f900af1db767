//! All controllers stopped and started, one after the other, as for a new release.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::Error;
use crate::faults::{Fault, Kind, running};
use crate::nodes::Nodes;

pub const KINDS: [Kind; 1] = [Kind {
    name: "rolling-restart",
    about: "each controller is stopped and started again, once the one before is back",
    needs: &[],
    make: || Box::new(Rolling::default()),
}];

#[derive(Default)]
struct Rolling {
    before: BTreeMap<String, i32>,
    down: Option<String>,
}

#[async_trait]
impl Fault for Rolling {
    async fn inflict(&mut self, nodes: &Nodes, rng: &mut StdRng) -> Result<String, Error> {
        let mut ids = nodes.controllers();
        ids.shuffle(rng);
        for id in &ids {
            self.before.insert(id.clone(), running(nodes, id)?);
            self.down = Some(id.clone());
            nodes.terminate(id).await?;
            nodes.restart(id).await?;
            self.down = None;
            nodes.until_controllers_back().await?;
        }
        Ok(ids.join(" "))
    }

    fn hold(&self) -> Duration {
        Duration::ZERO
    }

    async fn prove(&mut self, nodes: &Nodes) -> Result<String, Error> {
        for (id, before) in &self.before {
            if running(nodes, id)? == *before {
                return Err(Error::Invalid(format!("{id} is still pid {before}")));
            }
        }
        Ok(format!("{} controllers have other pids", self.before.len()))
    }

    async fn heal(&mut self, nodes: &Nodes) -> Result<(), Error> {
        match self.down.take() {
            Some(id) => nodes.restart(&id).await.map(drop),
            None => Ok(()),
        }
    }
}
