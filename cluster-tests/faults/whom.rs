//! Whom a fault hits, when the cluster is asked at that moment.

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};

use crate::Error;
use crate::cluster::Members;
use crate::faults::process::{Doing, Process};
use crate::nodes::Nodes;

/// One node, or all of a sort.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whom {
    Leader,
    /// A controller that does not lead.
    Follower,
    /// Any controller.
    Controller,
    AllControllers,
    /// An agent whose process runs.
    Agent,
    /// Half of those.
    HalfOfAgents,
}

impl Whom {
    pub async fn draw(self, nodes: &Nodes, rng: &mut StdRng) -> Result<Vec<String>, Error> {
        let one = |from: Vec<String>, rng: &mut StdRng| {
            let nobody = || Error::Invalid(format!("there is no {self:?}"));
            from.choose(rng)
                .cloned()
                .map(|id| vec![id])
                .ok_or_else(nobody)
        };
        let runs = |id: &String| {
            let pid = nodes.member(id).ok().and_then(|member| member.pid);
            let found = pid.and_then(Process::look);
            found.is_some_and(|found| found.doing == Doing::Running)
        };
        match self {
            Whom::Leader => Ok(vec![nodes.leader().await?]),
            Whom::Follower => one(followers(nodes).await?, rng),
            Whom::Controller => one(nodes.controllers(), rng),
            Whom::AllControllers => Ok(nodes.controllers()),
            Whom::Agent => one(nodes.agents().into_iter().filter(runs).collect(), rng),
            Whom::HalfOfAgents => {
                let mut running: Vec<String> = nodes.agents().into_iter().filter(runs).collect();
                running.shuffle(rng);
                running.truncate(running.len().div_ceil(2));
                Ok(running)
            }
        }
    }

    /// The same where it is one.
    pub async fn draw_one(self, nodes: &Nodes, rng: &mut StdRng) -> Result<String, Error> {
        let drawn = self.draw(nodes, rng).await?;
        let nobody = || Error::Invalid(format!("there is no {self:?}"));
        drawn.into_iter().next().ok_or_else(nobody)
    }
}

/// Controllers that do not lead now.
pub async fn followers(nodes: &Nodes) -> Result<Vec<String>, Error> {
    let leader = nodes.leader().await?;
    Ok(all_but(nodes.controllers(), &[&leader]))
}

pub fn all_but(from: Vec<String>, left_out: &[&str]) -> Vec<String> {
    from.into_iter()
        .filter(|id| !left_out.contains(&id.as_str()))
        .collect()
}
