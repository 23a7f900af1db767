//! Scores: integers in thousandths, lower is better.
//!
//! Each [`Strategy`] has a formula: what it looks at (terms), and how much each of these counts. All of them go by what is
//! *assigned*: a reported load is up to 5 s old, and going by it would send the whole herd to one agent. Ties are broken
//! by a hash of the agent and the first task of the round, so that equal agents share equally and every machine decides
//! alike.

use model::{AgentId, Scored, Strategy};

use crate::filter::Room;

/// How a strategy scores, as the traces of its decisions name it. A formula that changes gets another version: what a
/// trace says has to be read as it was meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Formula {
    pub version: u32,
    pub strategy: Strategy,
    /// Whether preferences count, before all else.
    pub prefers: bool,
    /// What is looked at, in the order of a trace's values.
    pub terms: &'static [&'static str],
    /// How much each of them counts, in thousandths.
    pub weights: &'static [i64],
}

const ONE: &[i64] = &[1_000];

/// One that looks at no preferences.
const fn formula_with(
    version: u32,
    strategy: Strategy,
    terms: &'static [&'static str],
    weights: &'static [i64],
) -> Formula {
    Formula {
        version,
        strategy,
        prefers: false,
        terms,
        weights,
    }
}

/// What an unmet preference counts for: more than all else together. A turn is never off by that much, nor has any agent so
/// many attempts.
const UNMET: i64 = 1_000_000_000;

/// The same with preferences before all else.
const fn preferring(
    version: u32,
    strategy: Strategy,
    terms: &'static [&'static str],
    weights: &'static [i64],
) -> Formula {
    Formula {
        prefers: true,
        ..formula_with(version, strategy, terms, weights)
    }
}

const UNMET_AND_ONE: &[i64] = &[UNMET, 1_000];

/// All that there ever were.
static FORMULAS: [Formula; 16] = [
    formula_with(1, Strategy::Adaptive, &["queue"], ONE),
    formula_with(2, Strategy::RoundRobin, &["turn"], ONE),
    formula_with(3, Strategy::WeightedRoundRobin, &["turn"], ONE),
    formula_with(4, Strategy::LeastConnections, &["attempts"], ONE),
    formula_with(5, Strategy::IpHash, &["distance"], ONE),
    formula_with(6, Strategy::PowerOfTwo, &["queue"], ONE),
    formula_with(7, Strategy::Binpack, &["free"], ONE),
    // One more of its own counts more than all that an agent may hold for a slot.
    formula_with(8, Strategy::Spread, &["own", "queue"], &[1_000, 100]),
    preferring(9, Strategy::Adaptive, &["unmet", "queue"], UNMET_AND_ONE),
    preferring(10, Strategy::RoundRobin, &["unmet", "turn"], UNMET_AND_ONE),
    preferring(
        11,
        Strategy::WeightedRoundRobin,
        &["unmet", "turn"],
        UNMET_AND_ONE,
    ),
    preferring(
        12,
        Strategy::LeastConnections,
        &["unmet", "attempts"],
        UNMET_AND_ONE,
    ),
    preferring(13, Strategy::IpHash, &["unmet", "distance"], UNMET_AND_ONE),
    preferring(14, Strategy::PowerOfTwo, &["unmet", "queue"], UNMET_AND_ONE),
    preferring(15, Strategy::Binpack, &["unmet", "free"], UNMET_AND_ONE),
    preferring(
        16,
        Strategy::Spread,
        &["unmet", "own", "queue"],
        &[UNMET, 1_000, 100],
    ),
];

/// The one that a decision was made by; `None`: of a later release.
pub fn formula_of(policy_version: u32) -> Option<&'static Formula> {
    let mut all = FORMULAS.iter();
    all.find(|formula| formula.version == policy_version)
}

/// The one that decisions are made by now, of tasks for which somebody prefers some agents, or nobody any.
pub fn formula(strategy: Strategy, prefers: bool) -> &'static Formula {
    let plain = match strategy {
        Strategy::Adaptive => 0,
        Strategy::RoundRobin => 1,
        Strategy::WeightedRoundRobin => 2,
        Strategy::LeastConnections => 3,
        Strategy::IpHash => 4,
        Strategy::PowerOfTwo => 5,
        Strategy::Binpack => 6,
        Strategy::Spread => 7,
    };
    match prefers {
        true => &FORMULAS[plain + 8],
        false => &FORMULAS[plain],
    }
}

/// What is known of an agent that could take a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measure {
    pub room: Room,
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
    /// Attempts for each slot.
    fn queue(self) -> i64 {
        i64::from(self.room.taken) * 1_000 / i64::from(self.room.slots.max(1))
    }

    /// Slots that are free, of all; fewer than none where attempts were sent ahead.
    fn free(self) -> i64 {
        1_000 - self.queue()
    }

    /// The terms of a formula.
    fn terms(self, formula: &Formula) -> impl Iterator<Item = i64> {
        let unmet = formula.prefers.then_some(i64::from(self.unmet) * 1_000);
        let (first, second) = match formula.strategy {
            Strategy::Adaptive | Strategy::PowerOfTwo => (self.queue(), None),
            Strategy::RoundRobin | Strategy::WeightedRoundRobin => (self.turn, None),
            Strategy::LeastConnections => (i64::from(self.room.taken) * 1_000, None),
            Strategy::IpHash => (thousandths(self.distance), None),
            Strategy::Binpack => (self.free(), None),
            Strategy::Spread => (i64::from(self.own) * 1_000, Some(self.queue())),
        };
        unmet.into_iter().chain([first]).chain(second)
    }

    /// The weighted sum of the terms.
    pub fn weighted(self, formula: &Formula) -> i64 {
        let weighted = self.terms(formula).zip(formula.weights);
        weighted.map(|(term, weight)| term * weight).sum::<i64>() / 1_000
    }

    /// The score with its terms, as a trace shows it.
    pub fn scored(self, formula: &Formula, agent: &AgentId) -> Scored {
        Scored {
            agent: agent.clone(),
            score: self.weighted(formula),
            terms: self.terms(formula).collect(),
        }
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
