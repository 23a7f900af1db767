//! Whose turn it is: agents one after the other, or each as often as it has slots.
//!
//! Start-time fair queueing (Goyal, Vin and Cheng, 1996) of one unit for each decision: an agent's turn comes when the clock
//! of the rotation reaches it; taken, it comes again a unit divided by its weight later. One that could not take its turns,
//! or is new, goes on with the others and does not make up for what it missed.

use std::collections::BTreeMap;

use model::{AGENTS_MAX, AgentId, Strategy};

use crate::health::Restraint;

/// When it comes, and where that is the same, who had the last one longer ago.
pub type Turn = (u64, u64);

/// From one turn of an agent with weight 1 to the next.
const UNIT: u64 = 1 << 20;
/// Names that are remembered: of those that have left, too, until it is looked through.
const REMEMBERED: usize = 2 * AGENTS_MAX;

/// The rotations of all strategies that have one. Soft state of a leader: the next one begins anew.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rotations {
    each: Rotation,
    by_slots: Rotation,
    /// Of hot machines, whatever the strategy.
    pub(crate) restraint: Restraint,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Rotation {
    now: u64,
    turns: BTreeMap<AgentId, u64>,
}

impl Rotations {
    fn of(&self, strategy: Strategy) -> Option<&Rotation> {
        match strategy {
            Strategy::RoundRobin => Some(&self.each),
            Strategy::WeightedRoundRobin => Some(&self.by_slots),
            _ => None,
        }
    }

    /// How far an agent's turn is off, in thousandths of a turn; nothing under a strategy without turns.
    pub fn until(&self, strategy: Strategy, agent: &AgentId) -> i64 {
        let off = self.of(strategy).map_or(0, |rotation| {
            rotation.turn(agent).saturating_sub(rotation.now)
        });
        i64::try_from(off.saturating_mul(1_000) / UNIT).unwrap_or(i64::MAX)
    }

    /// Whether a strategy goes by turns.
    pub fn are_of(strategy: Strategy) -> bool {
        matches!(
            strategy,
            Strategy::RoundRobin | Strategy::WeightedRoundRobin
        )
    }

    /// The agent's turns, one after the other and by slots: the lowest of all goes first.
    pub fn turns(&self, agent: &AgentId) -> [Turn; 2] {
        [&self.each, &self.by_slots].map(|rotation| {
            let last = rotation.turns.get(agent).copied();
            (rotation.turn(agent), last.unwrap_or(0))
        })
    }

    /// It has taken its turn; nothing under a strategy without turns.
    pub fn take(&mut self, strategy: Strategy, agent: &AgentId, slots: u32) {
        match strategy {
            Strategy::RoundRobin => self.each.take(agent, 1),
            Strategy::WeightedRoundRobin => self.by_slots.take(agent, slots),
            _ => {}
        }
    }
}

impl Rotation {
    fn turn(&self, agent: &AgentId) -> u64 {
        self.turns
            .get(agent)
            .map_or(self.now, |turn| self.now.max(*turn))
    }

    fn take(&mut self, agent: &AgentId, weight: u32) {
        let start = self.turn(agent);
        // Those behind did not want theirs, or could not: the clock goes by who was taken.
        self.now = start;
        let next = start.saturating_add(UNIT / u64::from(weight.max(1)));
        self.turns.insert(agent.clone(), next);
        if self.turns.len() > REMEMBERED {
            let now = self.now;
            self.turns.retain(|_, turn| *turn > now);
        }
    }
}
