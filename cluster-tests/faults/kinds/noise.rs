//! A network that works, and badly: around the leader, where most of the traffic is.

use std::time::Duration;

use async_trait::async_trait;
use rand::Rng;
use rand::rngs::StdRng;

use crate::Error;
use crate::faults::whom::all_but;
use crate::faults::{Fault, Kind, Laid, Need, Whom};
use crate::network::{Disturbance, Edge, Harm};
use crate::nodes::Nodes;

pub const KINDS: [Kind; 7] = [
    Kind {
        name: "loss",
        about: "1 to 50 of 100 packets to and from the leader are lost",
        needs: &[Need::Network(Harm::Loss)],
        make: || Noise::of(|rng| Disturbance::Loss(rng.random_range(1..=50))),
    },
    Kind {
        name: "duplication",
        about: "5 to 50 of 100 packets to and from the leader arrive twice",
        needs: &[Need::Network(Harm::Duplication)],
        make: || Noise::of(|rng| Disturbance::Duplication(rng.random_range(5..=50))),
    },
    Kind {
        name: "delay",
        about: "what goes to and from the leader takes 10 to 200 ms longer",
        needs: &[Need::Network(Harm::Delay)],
        make: || {
            Noise::of(|rng| Disturbance::Delay {
                by: millis(rng, 10..200),
                jitter: Duration::ZERO,
            })
        },
    },
    Kind {
        name: "reordering",
        about: "what goes to and from the leader takes up to 100 ms longer, each packet as long as it likes",
        needs: &[Need::Network(Harm::Delay)],
        make: || {
            Noise::of(|rng| Disturbance::Delay {
                by: Duration::ZERO,
                jitter: millis(rng, 10..100),
            })
        },
    },
    Kind {
        name: "slow-link",
        about: "the leader's link to each other node carries 32 to 256 KiB a second",
        needs: &[Need::Network(Harm::Rate)],
        make: || Noise::of(|rng| Disturbance::Rate(rng.random_range(32..=256) << 10)),
    },
    Kind {
        name: "corrupt-byte",
        about: "one byte of what goes to or from the leader is another one, once on each way",
        needs: &[Need::Network(Harm::Corruption)],
        make: || Noise::of(|_| Disturbance::Corruption),
    },
    Kind {
        name: "reset",
        about: "connections to and from the leader are reset, and new ones refused",
        needs: &[Need::Network(Harm::Reset)],
        make: || Noise::of(|_| Disturbance::Reset),
    },
];

fn millis(rng: &mut StdRng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(rng.random_range(range))
}

struct Noise {
    disturbance: fn(&mut StdRng) -> Disturbance,
    laid: Laid,
}

impl Noise {
    fn of(disturbance: fn(&mut StdRng) -> Disturbance) -> Box<dyn Fault> {
        Box::new(Noise {
            disturbance,
            laid: Laid::default(),
        })
    }
}

#[async_trait]
impl Fault for Noise {
    async fn inflict(&mut self, nodes: &Nodes, rng: &mut StdRng) -> Result<String, Error> {
        let leader = Whom::Leader.draw_one(nodes, rng).await?;
        let others = all_but([nodes.controllers(), nodes.agents()].concat(), &[&leader]);
        let disturbance = (self.disturbance)(rng);
        let edges = Edge::between(&[&leader], &others);
        self.laid.lay(nodes, &edges, disturbance).await?;
        Ok(format!("{leader}: {disturbance}"))
    }

    async fn prove(&mut self, nodes: &Nodes) -> Result<String, Error> {
        self.laid.prove(nodes).await
    }

    async fn heal(&mut self, nodes: &Nodes) -> Result<(), Error> {
        self.laid.lift(nodes).await
    }
}
