//! Scores: integers in thousandths, lower is better.
//!
//! Policy version 1 is least loaded by what is *assigned*: a reported load is up to 5 s old, and
//! going by it would send the whole herd to one agent. Ties are broken by a hash of
//! the agent and the first task of the round, so that equal agents share equally and every machine decides alike.

use model::{AgentId, Scored};

use crate::filter::Room;

/// Names the terms and weights of a trace.
pub const POLICY_VERSION: u32 = 1;
/// The terms of a score, in the order of a trace's values.
pub const TERMS: [&str; 1] = ["queue"];
/// Their weights, in thousandths.
pub const WEIGHTS: [i64; 1] = [1_000];

fn terms(room: Room) -> [i64; TERMS.len()] {
    [i64::from(room.taken) * 1_000 / i64::from(room.slots.max(1))]
}

/// The weighted sum of the terms of an agent that could take a task.
pub fn weighted(room: Room) -> i64 {
    let weighted = terms(room).into_iter().zip(WEIGHTS);
    weighted.map(|(term, weight)| term * weight).sum::<i64>() / 1_000
}

/// The score with its terms, as a trace shows it.
pub fn score(agent: &AgentId, room: Room) -> Scored {
    Scored {
        agent: agent.clone(),
        score: weighted(room),
        terms: terms(room).to_vec(),
    }
}

/// Breaks ties: FNV-1a over a number (a queued task's own, or a count of submits) and the agent's name,
/// finished as in SplitMix64: without that, names which differ in their last letter only would not
/// share equally.
pub fn tie(seed: u64, agent: &AgentId) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let bytes = seed.to_be_bytes();
    let bytes = bytes.iter().chain(agent.as_str().as_bytes());
    let hash = bytes.fold(OFFSET, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(PRIME)
    });
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}
