//! What can be run: a name, what it is for, and what is broken in it.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use crate::faults::{self, Kind};

/// What is broken in a run, and why one would want that.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    pub name: &'static str,
    /// One line for the person who chooses.
    pub about: &'static str,
    pub faults: Faults,
    /// One cluster for as long as it takes, with as much history as comes together; its log is purged meanwhile.
    pub is_long: bool,
}

/// Out of which kinds of fault a run draws.
#[derive(Debug, Clone, Copy)]
pub enum Faults {
    None,
    /// By name, in any order.
    Of(&'static [&'static str]),
    All,
    /// Each run has a part of all kinds, drawn from its seed: a bug that shows only where something else does not happen
    /// is found by that.
    Swarm,
}

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "calm",
        about: "nothing is broken: what the cluster and the harness do by themselves",
        faults: Faults::None,
        is_long: false,
    },
    Scenario {
        name: "leader-kill",
        about: "the leader is killed again and again",
        faults: Faults::Of(&["kill-leader"]),
        is_long: false,
    },
    Scenario {
        name: "crashes",
        about: "controllers and agents are killed, one at a time, all at once, or again as soon as they run",
        faults: Faults::Of(&[
            "kill-leader",
            "kill-follower",
            "kill-all",
            "crash-loop",
            "kill-agent",
        ]),
        is_long: false,
    },
    Scenario {
        name: "pauses",
        about: "processes stop for a while and go on as if nothing had been",
        faults: Faults::Of(&["pause-1x", "pause-3x", "pause-10x", "zombie-agent"]),
        is_long: false,
    },
    Scenario {
        name: "partitions",
        about: "nodes can't reach each other, in every shape",
        faults: Faults::Of(&[
            "isolate-leader",
            "isolate-follower",
            "isolate-agent",
            "exile-agent",
            "split",
            "one-way",
            "bridge",
            "ring",
            "flapping",
            "hide-leader",
            "link-down",
            "half-close",
        ]),
        is_long: false,
    },
    Scenario {
        name: "bad-network",
        about: "packets are lost, late, doubled, out of order, slow or wrong, connections reset",
        faults: Faults::Of(&[
            "loss",
            "delay",
            "duplication",
            "reordering",
            "slow-link",
            "corrupt-byte",
            "reset",
        ]),
        is_long: false,
    },
    Scenario {
        name: "leases",
        about: "agents die, stop or are cut off while they work, and some come back after their lease",
        faults: Faults::Of(&[
            "kill-agent",
            "terminate-agent",
            "isolate-agent",
            "exile-agent",
            "zombie-agent",
        ]),
        is_long: false,
    },
    Scenario {
        name: "clocks",
        about: "wall clocks jump, and leaders change meanwhile",
        faults: Faults::Of(&["clock-forward", "clock-back", "kill-leader"]),
        is_long: false,
    },
    Scenario {
        name: "disks",
        about: "disks of controllers have no room left",
        faults: Faults::Of(&["disk-full"]),
        is_long: false,
    },
    Scenario {
        name: "maintenance",
        about: "what administrators do: orderly stops, restarts one by one, leadership handed over",
        faults: Faults::Of(&[
            "terminate-leader",
            "terminate-agent",
            "rolling-restart",
            "transfer-leadership",
        ]),
        is_long: false,
    },
    Scenario {
        name: RANDOM,
        about: "a part of all kinds of fault, drawn from the seed",
        faults: Faults::Swarm,
        is_long: false,
    },
    Scenario {
        name: "soak",
        about: "everything is broken, on one cluster for hours, with what it takes of the machine drawn over time",
        faults: Faults::All,
        is_long: true,
    },
];

pub const RANDOM: &str = "random";

/// Of a hundred kinds so many are in a swarm.
const PART: f64 = 0.4;

/// One by its name, or that of a kind of fault, which is then the only one.
pub fn find(name: &str) -> Option<Scenario> {
    let named = SCENARIOS.iter().find(|scenario| scenario.name == name);
    named.copied().or_else(|| {
        let kind = faults::find(name)?;
        Some(Scenario {
            name: kind.name,
            about: kind.about,
            faults: Faults::Of(std::slice::from_ref(&kind.name)),
            is_long: false,
        })
    })
}

impl Scenario {
    /// All kinds that it may draw, whether they can be had or not.
    pub fn kinds(&self) -> Vec<&'static Kind> {
        match self.faults {
            Faults::None => Vec::new(),
            Faults::Of(names) => names.iter().filter_map(|name| faults::find(name)).collect(),
            Faults::All | Faults::Swarm => faults::all().collect(),
        }
    }

    /// Of those that can be had, the ones that this run draws from: never none where there are some.
    pub fn chosen(&self, possible: &[&'static Kind], rng: &mut StdRng) -> Vec<&'static Kind> {
        match self.faults {
            Faults::None | Faults::Of(_) | Faults::All => possible.to_vec(),
            Faults::Swarm => {
                let drawn = possible.iter().filter(|_| rng.random_bool(PART));
                let mut drawn: Vec<&Kind> = drawn.copied().collect();
                if drawn.is_empty() {
                    drawn.extend(possible.choose(rng).copied());
                }
                drawn
            }
        }
    }
}
