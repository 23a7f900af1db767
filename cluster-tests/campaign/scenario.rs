//! What can be run: a name, what it is for, and what is broken in it.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use crate::faults::{self, Kind, Need};

/// What is broken in a run, and why one would want that.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    pub name: &'static str,
    /// One line for the person who chooses.
    pub about: &'static str,
    pub faults: Faults,
    pub span: Span,
}

/// How long a cluster lives, and what of its log is left in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// Some minutes. Snapshots are taken all the time, and the whole log is kept and judged.
    Round,
    /// Some minutes; the log is purged behind its snapshots, so that who was away is sent one.
    Purged,
    /// As long as it takes, as a cluster is that nobody tests: its log is purged now and then.
    Long,
}

impl Span {
    /// Why there is no log to judge by.
    pub fn unlogged(self) -> Option<&'static str> {
        match self {
            Span::Round => None,
            Span::Purged | Span::Long => {
                Some("not in this scenario, whose log is purged behind its snapshots")
            }
        }
    }
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
        span: Span::Round,
    },
    Scenario {
        name: "leader-kill",
        about: "the leader is killed again and again",
        faults: Faults::Of(&["kill-leader"]),
        span: Span::Round,
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
        span: Span::Round,
    },
    Scenario {
        name: "pauses",
        about: "processes stop for a while and go on as if nothing had been, or crawl",
        faults: Faults::Of(&[
            "pause-1x",
            "pause-3x",
            "pause-10x",
            "slow-leader",
            "slow-agent",
            "zombie-agent",
        ]),
        span: Span::Round,
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
        span: Span::Round,
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
        span: Span::Round,
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
            "hang-at-spawn",
        ]),
        span: Span::Round,
    },
    Scenario {
        name: "expiries",
        about: "half of many agents hang or are cut off until their leases are over, and come back (--agents 8 at least)",
        faults: Faults::Of(&["zombie-agents", "exile-agents"]),
        span: Span::Round,
    },
    Scenario {
        name: "outages",
        about: "controllers die or can't reach each other, while agents lose their leases (half of them with --agents 8 or more)",
        faults: Faults::Of(&[
            "kill-leader",
            "kill-follower",
            "kill-all",
            "isolate-leader",
            "isolate-follower",
            "split",
            "one-way",
            "bridge",
            "zombie-agents",
            "exile-agents",
        ]),
        span: Span::Round,
    },
    Scenario {
        name: "clocks",
        about: "wall clocks jump, and leaders change meanwhile",
        faults: Faults::Of(&["clock-forward", "clock-back", "kill-leader"]),
        span: Span::Round,
    },
    Scenario {
        name: "disks",
        about: "disks of controllers forget, fail, are slow or have no room left",
        faults: Faults::Of(&[
            "power-cut",
            "power-cut-minority",
            "power-cut-all",
            "disk-error",
            "disk-full",
            "slow-fsync",
        ]),
        span: Span::Round,
    },
    Scenario {
        name: "damage",
        about: "files of controllers and agents have other bits than were written, or no end",
        faults: Faults::Of(&["bit-flip", "truncate", "bit-flip-agent", "truncate-agent"]),
        span: Span::Round,
    },
    Scenario {
        name: "maintenance",
        about: "what administrators do: orderly stops, restarts one by one, leadership handed over, members replaced",
        faults: Faults::Of(&[
            "terminate-leader",
            "terminate-agent",
            "rolling-restart",
            "transfer-leadership",
            "remove-and-rejoin",
        ]),
        span: Span::Round,
    },
    Scenario {
        name: "failpoints",
        about: "processes die at places in the code: between a write and its sync, a commit and its answer",
        faults: Faults::Of(&[
            "die-at-append-before",
            "die-at-fsync-before",
            "die-at-fsync-after",
            "die-at-append-after",
            "die-at-vote-before",
            "die-at-vote-after",
            "die-at-apply-before",
            "die-at-apply-after",
            "die-at-reply-before",
            "die-at-lease-expiry-before",
            "die-at-lease-expiry-after",
            "die-at-snapshot-write-before",
            "die-at-snapshot-write-after",
            "die-at-snapshot-rename-before",
            "die-at-snapshot-rename-after",
            "die-at-start-before",
            "die-at-spawn-before",
            "die-at-report-before",
        ]),
        span: Span::Round,
    },
    Scenario {
        name: "snapshots",
        about: "the log is purged, controllers that were away or are new are sent snapshots, and processes die meanwhile",
        faults: Faults::Of(&[
            "fall-behind",
            "remove-and-rejoin",
            "die-at-purge-before",
            "die-at-purge-after",
            "kill-leader",
            "kill-follower",
        ]),
        span: Span::Purged,
    },
    Scenario {
        name: RANDOM,
        about: "a part of all kinds of fault, drawn from the seed",
        faults: Faults::Swarm,
        span: Span::Round,
    },
    Scenario {
        name: "soak",
        about: "everything is broken, on one cluster for hours, with what it takes of the machine drawn over time",
        faults: Faults::All,
        span: Span::Long,
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
            span: match kind.needs.contains(&Need::Purges) {
                true => Span::Purged,
                false => Span::Round,
            },
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
