//! Disturbances that a fault has laid on the network, with their proof.

use std::time::Duration;

use crate::network::{Disturbance, Edge, Rule};
use crate::nodes::Nodes;
use crate::{Error, wait};

/// For a disturbance to meet something: heartbeats come ten times a second, but of a hundred packets perhaps
/// only one is lost.
const FELT: Duration = Duration::from_secs(15);

/// Some rules, until they are lifted.
#[derive(Debug, Default)]
pub struct Laid(Vec<Rule>);

impl Laid {
    /// Lays one more disturbance, on all of these edges at once.
    pub async fn lay(
        &mut self,
        nodes: &Nodes,
        edges: &[Edge],
        disturbance: Disturbance,
    ) -> Result<(), Error> {
        self.0
            .push(nodes.network().disturb(edges, disturbance).await?);
        Ok(())
    }

    /// Waits until each of them has met something, and says how much by the network's own count.
    pub async fn prove(&self, nodes: &Nodes) -> Result<String, Error> {
        let mut proofs = Vec::new();
        for rule in &self.0 {
            let what = format!("{} to be felt", rule.disturbance);
            let felt = wait::until(&what, FELT, || async {
                let felt = nodes.network().felt(rule).await;
                let felt = felt.map_err(|error| error.to_string())?;
                match felt.values().any(|count| *count > 0) {
                    true => Ok(felt),
                    false => Err(format!("nothing on {} edges", felt.len())),
                }
            });
            let felt = felt
                .await
                .map_err(|error| Error::Invalid(error.to_string()))?;
            let total: u64 = felt.values().sum();
            let edges = felt.values().filter(|count| **count > 0).count();
            proofs.push(format!(
                "{} {total} times on {edges} of {} edges",
                rule.disturbance,
                felt.len()
            ));
        }
        match proofs.is_empty() {
            true => Err(Error::Invalid("nothing was laid on any edge".to_owned())),
            false => Ok(proofs.join("; ")),
        }
    }

    /// All of them at once.
    pub async fn lift(&mut self, nodes: &Nodes) -> Result<(), Error> {
        nodes.network().lift(self.0.drain(..)).await
    }
}
