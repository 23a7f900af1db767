//! Partitions: edges on which nothing arrives, and nobody says so.

use std::time::Duration;

use async_trait::async_trait;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::Error;
use crate::faults::agents::until_lost;
use crate::faults::whom::{all_but, followers};
use crate::faults::{Fault, Kind, Laid, MANY, Need, Whom};
use crate::network::{CLIENT, Disturbance, Edge, Harm};
use crate::nodes::Nodes;

const SILENCE: Need = Need::Network(Harm::Silence);

pub const KINDS: [Kind; 9] = [
    Kind {
        name: "isolate-leader",
        about: "the leader is cut off from everybody else, sometimes from clients, too",
        needs: &[SILENCE],
        make: || Cut::of(Shape::Alone(Whom::Leader)),
    },
    Kind {
        name: "isolate-follower",
        about: "a controller that does not lead is cut off from everybody else, sometimes from clients, too",
        needs: &[SILENCE],
        make: || Cut::of(Shape::Alone(Whom::Follower)),
    },
    Kind {
        name: "isolate-agent",
        about: "an agent is cut off for less than its lease",
        needs: &[SILENCE, Need::Agents(2)],
        make: || Cut::of(Shape::Alone(Whom::Agent)),
    },
    Kind {
        name: "exile-agent",
        about: "an agent is cut off until its lease is over",
        needs: &[SILENCE, Need::Agents(2)],
        make: || Cut::of(Shape::Exiled(Whom::Agent)),
    },
    Kind {
        name: "split",
        about: "the largest minority of controllers and the rest can't reach each other; agents are on either side",
        needs: &[SILENCE, Need::Controllers(3)],
        make: || Cut::of(Shape::Split),
    },
    Kind {
        name: "one-way",
        about: "what the leader sends to one controller does not arrive, or the other way round",
        needs: &[SILENCE, Need::Controllers(3)],
        make: || Cut::of(Shape::OneWay),
    },
    Kind {
        name: "bridge",
        about: "two halves can't reach each other, and one controller reaches both",
        needs: &[SILENCE, Need::Controllers(3)],
        make: || Cut::of(Shape::Bridge),
    },
    Kind {
        name: "ring",
        about: "each controller reaches only two others, so each sees another majority",
        needs: &[SILENCE, Need::Controllers(5)],
        make: || Cut::of(Shape::Ring),
    },
    Kind {
        name: "exile-agents",
        about: "half of the agents are cut off until their leases are over",
        needs: &[SILENCE, Need::Agents(MANY)],
        make: || Cut::of(Shape::Exiled(Whom::HalfOfAgents)),
    },
];

/// Beyond an agent's lease.
const LEASE: Duration = Duration::from_secs(16);

#[derive(Debug, Clone, Copy)]
enum Shape {
    Alone(Whom),
    /// Beyond a lease.
    Exiled(Whom),
    Split,
    OneWay,
    Bridge,
    Ring,
}

struct Cut {
    shape: Shape,
    laid: Laid,
    hold: Duration,
    exiled: Vec<String>,
}

impl Cut {
    fn of(shape: Shape) -> Box<dyn Fault> {
        Box::new(Cut {
            shape,
            laid: Laid::default(),
            hold: Duration::ZERO,
            exiled: Vec::new(),
        })
    }
}

#[async_trait]
impl Fault for Cut {
    async fn inflict(&mut self, nodes: &Nodes, rng: &mut StdRng) -> Result<String, Error> {
        let (edges, what) = match self.shape {
            Shape::Alone(whom) => alone(nodes, &whom.draw(nodes, rng).await?, rng),
            Shape::Exiled(whom) => {
                self.exiled = whom.draw(nodes, rng).await?;
                alone(nodes, &self.exiled, rng)
            }
            Shape::Split => split(nodes, rng),
            Shape::OneWay => one_way(nodes, rng).await?,
            Shape::Bridge => bridge(nodes, rng).await?,
            Shape::Ring => ring(nodes, rng),
        };
        self.hold = match self.shape {
            Shape::Exiled(_) => LEASE,
            _ => Duration::from_millis(rng.random_range(800..2_000)),
        };
        self.laid.lay(nodes, &edges, Disturbance::Silence).await?;
        Ok(what)
    }

    fn hold(&self) -> Duration {
        self.hold
    }

    async fn prove(&mut self, nodes: &Nodes) -> Result<String, Error> {
        let mut proof = self.laid.prove(nodes).await?;
        let exiled = self.exiled.iter().map(String::as_str);
        proof.push_str(&until_lost(nodes, exiled).await?);
        Ok(proof)
    }

    async fn heal(&mut self, nodes: &Nodes) -> Result<(), Error> {
        self.laid.lift(nodes).await
    }
}

type Drawn = (Vec<Edge>, String);

fn alone(nodes: &Nodes, ids: &[String], rng: &mut StdRng) -> Drawn {
    let mut others = nodes.controllers();
    // Agents have nothing to say to each other.
    if ids.iter().any(|id| others.contains(id)) {
        others.extend(nodes.agents());
    }
    others.retain(|id| !ids.contains(id));
    let mut what = format!("{} from everybody else", ids.join(" "));
    match rng.random_bool(0.5) {
        true => others.push(CLIENT.to_owned()),
        false => what.push_str(" but clients"),
    }
    (Edge::between(ids, &others), what)
}

fn split(nodes: &Nodes, rng: &mut StdRng) -> Drawn {
    let mut controllers = nodes.controllers();
    controllers.shuffle(rng);
    let mut majority = controllers.split_off((controllers.len() - 1) / 2);
    let mut minority = controllers;
    for agent in nodes.agents() {
        match rng.random_bool(0.5) {
            true => majority.push(agent),
            false => minority.push(agent),
        }
    }
    let what = format!("{} | {}", minority.join(" "), majority.join(" "));
    (Edge::between(&minority, &majority), what)
}

async fn one_way(nodes: &Nodes, rng: &mut StdRng) -> Result<Drawn, Error> {
    let leader = Whom::Leader.draw_one(nodes, rng).await?;
    let mut followers = all_but(nodes.controllers(), &[&leader]);
    followers.shuffle(rng);
    let edge = match followers.first() {
        Some(follower) if rng.random_bool(0.5) => Edge::new(&leader, follower),
        Some(follower) => Edge::new(follower, &leader),
        None => return Err(Error::Invalid("there is no follower".to_owned())),
    };
    let what = edge.to_string();
    Ok((vec![edge], what))
}

/// The bridge does not lead, so that the leader surely misses somebody.
async fn bridge(nodes: &Nodes, rng: &mut StdRng) -> Result<Drawn, Error> {
    let mut followers = followers(nodes).await?;
    followers.shuffle(rng);
    let bridge = followers.pop().unwrap_or_default();
    let mut left = all_but(nodes.controllers(), &[&bridge]);
    left.shuffle(rng);
    let right = left.split_off(left.len() / 2);
    let what = format!("{} | {bridge} | {}", left.join(" "), right.join(" "));
    Ok((Edge::between(&left, &right), what))
}

fn ring(nodes: &Nodes, rng: &mut StdRng) -> Drawn {
    let mut ring = nodes.controllers();
    ring.shuffle(rng);
    let count = ring.len();
    let mut edges = Vec::new();
    for at in 0..count {
        // All but the next one, the one before, and itself; each pair once.
        for step in 2..count - 1 {
            edges.push(Edge::new(&ring[at], &ring[(at + step) % count]));
        }
    }
    (edges, ring.join(" - "))
}
