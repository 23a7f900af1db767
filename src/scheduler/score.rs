//! Scores: integers in thousandths, lower is better.
//!
//! Each [`Strategy`] has a formula: what it looks at (terms), and how much each of these counts. All of them go by what is
//! *assigned*: a reported load is up to 5 s old, and going by it alone would send the whole herd to one agent, so `adaptive`
//! looks at both. Ties are broken
//! by a hash of the agent and the first task of the round, so that equal agents share equally and every machine decides
//! alike.

use std::fmt;

use model::{AgentId, Class, Millis, Scored, Strategy};

use crate::filter::Room;
use crate::health::Health;

/// What a formula looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Term {
    /// Preferences that the agent does not meet.
    Unmet,
    /// Attempts for each slot.
    Queue,
    /// How far its turn is off.
    Turn,
    Attempts,
    /// How far it is from the task's client.
    Distance,
    /// Slots that are free, of all; fewer than none where attempts were sent ahead.
    Free,
    /// Attempts of the task's namespace.
    Own,
    Cpu,
    Memory,
    Latency,
    /// How long such tasks take there.
    Service,
    /// How far the highest class of those that have to end is above the lowest one.
    Class,
    /// Attempts that have to end.
    Victims,
    /// Seconds for which they have run.
    Lost,
}

impl Term {
    pub fn as_str(self) -> &'static str {
        match self {
            Term::Unmet => "unmet",
            Term::Queue => "queue",
            Term::Turn => "turn",
            Term::Attempts => "attempts",
            Term::Distance => "distance",
            Term::Free => "free",
            Term::Own => "own",
            Term::Cpu => "cpu",
            Term::Memory => "memory",
            Term::Latency => "latency",
            Term::Service => "service",
            Term::Class => "class",
            Term::Victims => "victims",
            Term::Lost => "lost",
        }
    }
}

/// A term, and how much it counts, in thousandths.
pub type Weighted = (Term, i64);

/// How a strategy scores, as the traces of its decisions name it. A formula that changes gets another version: what a
/// trace says has to be read as it was meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Formula {
    pub version: u32,
    pub way: Way,
    /// Whether preferences count, before all else.
    pub prefers: bool,
    /// What else is looked at.
    others: &'static [Weighted],
}

/// How an agent is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Of those that have room.
    Strategy(Strategy),
    /// Of those where others have to end for it: where least is lost.
    Preemption,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Way::Strategy(strategy) => strategy.fmt(f),
            Way::Preemption => f.write_str("preemption"),
        }
    }
}

/// What an unmet preference counts for: more than all else together. A turn is never off by that much, nor has any agent so
/// many attempts.
const UNMET: Weighted = (Term::Unmet, 1_000_000_000);

impl Formula {
    /// All that is looked at, in the order of a trace's values.
    pub fn terms(&self) -> impl Iterator<Item = Weighted> + use<> {
        let unmet = self.prefers.then_some(UNMET);
        unmet.into_iter().chain(self.others.iter().copied())
    }

    /// The weighted sum of the terms, which are in thousandths.
    fn weighted(&self, value: impl Fn(Term) -> i64) -> i64 {
        let weighted = self.terms().map(|(term, weight)| value(term) * weight);
        weighted.sum::<i64>() / 1_000
    }

    fn scored(&self, agent: &AgentId, value: impl Fn(Term) -> i64) -> Scored {
        Scored {
            agent: agent.clone(),
            score: self.weighted(&value),
            terms: self.terms().map(|(term, _)| value(term)).collect(),
        }
    }

    /// One that looks at no preferences.
    const fn plain(version: u32, strategy: Strategy, others: &'static [Weighted]) -> Formula {
        Formula {
            version,
            way: Way::Strategy(strategy),
            prefers: false,
            others,
        }
    }

    const fn preemption(version: u32, others: &'static [Weighted]) -> Formula {
        Formula {
            version,
            way: Way::Preemption,
            prefers: false,
            others,
        }
    }

    const fn preferring(version: u32, strategy: Strategy, others: &'static [Weighted]) -> Formula {
        Formula {
            prefers: true,
            ..Formula::plain(version, strategy, others)
        }
    }
}

const QUEUE: &[Weighted] = &[(Term::Queue, 1_000)];
const TURN: &[Weighted] = &[(Term::Turn, 1_000)];
const ATTEMPTS: &[Weighted] = &[(Term::Attempts, 1_000)];
const DISTANCE: &[Weighted] = &[(Term::Distance, 1_000)];
const FREE: &[Weighted] = &[(Term::Free, 1_000)];
// One more of its own counts more than all that an agent may hold for a slot.
const OWN: &[Weighted] = &[(Term::Own, 1_000), (Term::Queue, 100)];
/// Half of it is the machine's [health](crate::health).
const ADAPTIVE: &[Weighted] = &[
    (Term::Cpu, 200),
    (Term::Memory, 150),
    (Term::Latency, 150),
    (Term::Queue, 250),
    (Term::Service, 150),
];

/// A class more counts more than as many attempts as there can be, and one of these more than all that was run: up to a day of
/// it is counted.
const HARM: &[Weighted] = &[
    (Term::Class, 2_000_000_000),
    (Term::Victims, 100_000_000),
    (Term::Lost, 1_000),
];

/// All that there ever were. `adaptive` went by the queue alone at first.
static FORMULAS: [Formula; 19] = [
    Formula::plain(1, Strategy::Adaptive, QUEUE),
    Formula::plain(2, Strategy::RoundRobin, TURN),
    Formula::plain(3, Strategy::WeightedRoundRobin, TURN),
    Formula::plain(4, Strategy::LeastConnections, ATTEMPTS),
    Formula::plain(5, Strategy::IpHash, DISTANCE),
    Formula::plain(6, Strategy::PowerOfTwo, QUEUE),
    Formula::plain(7, Strategy::Binpack, FREE),
    Formula::plain(8, Strategy::Spread, OWN),
    Formula::preferring(9, Strategy::Adaptive, QUEUE),
    Formula::preferring(10, Strategy::RoundRobin, TURN),
    Formula::preferring(11, Strategy::WeightedRoundRobin, TURN),
    Formula::preferring(12, Strategy::LeastConnections, ATTEMPTS),
    Formula::preferring(13, Strategy::IpHash, DISTANCE),
    Formula::preferring(14, Strategy::PowerOfTwo, QUEUE),
    Formula::preferring(15, Strategy::Binpack, FREE),
    Formula::preferring(16, Strategy::Spread, OWN),
    Formula::plain(17, Strategy::Adaptive, ADAPTIVE),
    Formula::preferring(18, Strategy::Adaptive, ADAPTIVE),
    Formula::preemption(19, HARM),
];

/// The one that a decision was made by; `None`: of a later release.
pub fn formula_of(policy_version: u32) -> Option<&'static Formula> {
    let mut all = FORMULAS.iter();
    all.find(|formula| formula.version == policy_version)
}

/// The one that decisions are made by now, of tasks for which somebody prefers some agents, or nobody any.
pub fn formula(strategy: Strategy, prefers: bool) -> &'static Formula {
    let (plain, preferring) = match strategy {
        Strategy::Adaptive => (16, 17),
        Strategy::RoundRobin => (1, 9),
        Strategy::WeightedRoundRobin => (2, 10),
        Strategy::LeastConnections => (3, 11),
        Strategy::IpHash => (4, 12),
        Strategy::PowerOfTwo => (5, 13),
        Strategy::Binpack => (6, 14),
        Strategy::Spread => (7, 15),
    };
    &FORMULAS[if prefers { preferring } else { plain }]
}

/// The one by which it is decided whose places a task gets.
pub fn preemption() -> &'static Formula {
    &FORMULAS[18]
}

/// What is lost where a task gets the places of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Harm {
    /// The highest class of those that have to end.
    pub class: Class,
    pub victims: usize,
    /// For how long they have run, all together.
    pub lost: Millis,
}

impl Harm {
    /// In thousandths.
    fn term(self, term: Term) -> i64 {
        let above = Class::Scavenger as i64 - self.class as i64;
        match term {
            Term::Class => above * 1_000,
            Term::Victims => i64::try_from(self.victims).unwrap_or(i64::MAX) * 1_000,
            Term::Lost => i64::try_from(self.lost.0).map_or(LOST_MAX, |it| it.min(LOST_MAX)),
            _ => 0,
        }
    }

    /// As a trace shows it.
    pub fn scored(self, agent: &AgentId) -> Scored {
        preemption().scored(agent, |term| self.term(term))
    }
}

/// A day, in thousandths of a second.
const LOST_MAX: i64 = 86_400_000;

/// What is known of an agent that could take a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measure {
    pub room: Room,
    pub health: Health,
    /// How long such tasks take there, in thousandths of what they usually do.
    pub service: i64,
    /// Preferences that it does not meet.
    pub unmet: u32,
    /// How far its turn is off, in thousandths of a turn.
    pub turn: i64,
    /// Attempts of the task's namespace that it holds.
    pub own: u32,
    /// How far it is from the task's client, of all that there is: see [`distance`].
    pub distance: u64,
}

impl Measure {
    /// In thousandths.
    fn term(self, term: Term) -> i64 {
        let taken = i64::from(self.room.taken) * 1_000;
        let queue = taken / i64::from(self.room.slots.max(1));
        match term {
            Term::Unmet => i64::from(self.unmet) * 1_000,
            Term::Queue => queue,
            Term::Turn => self.turn,
            Term::Attempts => taken,
            Term::Distance => thousandths(self.distance),
            Term::Free => 1_000 - queue,
            Term::Own => i64::from(self.own) * 1_000,
            Term::Cpu => self.health.cpu,
            Term::Memory => self.health.memory,
            Term::Latency => self.health.latency,
            Term::Service => self.service,
            Term::Class | Term::Victims | Term::Lost => 0,
        }
    }

    /// The weighted sum of the terms.
    pub fn weighted(self, formula: &Formula) -> i64 {
        formula.weighted(|term| self.term(term))
    }

    /// The score with its terms, as a trace shows it.
    pub fn scored(self, formula: &Formula, agent: &AgentId) -> Scored {
        formula.scored(agent, |term| self.term(term))
    }
}

/// Of the whole range.
fn thousandths(hash: u64) -> i64 {
    let share = (u128::from(hash) * 1_000) >> 64;
    i64::try_from(share).unwrap_or(1_000)
}

/// How far an agent, by its [`name`], is from a client: agents that come or go move nobody but their own clients (rendezvous
/// hashing; Thaler and Ravishankar, 1998).
pub fn distance(client: u64, name: u64) -> u64 {
    finished(client ^ name.rotate_left(32))
}

/// A number that stands for an agent.
pub fn name(agent: &AgentId) -> u64 {
    hash(agent.as_str().bytes())
}

/// A number that stands for a client.
pub fn client(namespace: &str, name: &str) -> u64 {
    let parts = [namespace.as_bytes(), &[0], name.as_bytes()];
    hash(parts.into_iter().flatten().copied())
}

/// Breaks ties: a hash of a number (a queued task's own, or a count of submits) and the agent's name.
pub fn tie(seed: u64, agent: &AgentId) -> u64 {
    let bytes = seed.to_be_bytes();
    hash(bytes.into_iter().chain(agent.as_str().bytes()))
}

/// FNV-1a, finished as in SplitMix64: without that, names which differ in their last letter only would not share equally.
fn hash(bytes: impl Iterator<Item = u8>) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let hash = bytes.fold(OFFSET, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(PRIME)
    });
    finished(hash)
}

fn finished(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// Two of so many, drawn by a number; the same one twice where there is no other.
pub fn two_of(count: usize, seed: u64) -> (usize, usize) {
    let count = count as u64;
    let drawn = hash(seed.to_be_bytes().into_iter());
    let (first, step) = match count {
        0 | 1 => (0, 0),
        _ => (
            (drawn >> 32) % count,
            1 + (drawn & 0xffff_ffff) % (count - 1),
        ),
    };
    let second = (first + step) % count.max(1);
    let index = |number: u64| usize::try_from(number).unwrap_or(0);
    (index(first), index(second))
}
