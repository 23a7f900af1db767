//! Agents with room in the order in which they are to be taken, for tasks that all require the same.
//!
//! A ranking is made once in a round, by one look at each agent, and kept true while the round fills them: what one more
//! decision costs does not grow with the number of agents.

use std::collections::{BTreeMap, BTreeSet};

use model::Reason;

/// Score, the hash that breaks ties, and the number of the agent among the candidates.
pub type Rank = (i64, u64, usize);

#[derive(Debug, Default)]
pub struct Ranking {
    order: BTreeSet<Rank>,
    /// Why an agent with room does not fit; by number.
    unfit: Vec<Option<Reason>>,
    reasons: BTreeMap<Reason, u32>,
}

impl Ranking {
    pub fn add(&mut self, rank: Rank, fits: Result<(), Reason>) {
        match fits {
            Ok(()) => drop(self.order.insert(rank)),
            Err(reason) => {
                *self.reasons.entry(reason.clone()).or_insert(0) += 1;
                let number = rank.2;
                if self.unfit.len() <= number {
                    self.unfit.resize(number + 1, None);
                }
                self.unfit[number] = Some(reason);
            }
        }
    }

    pub fn remove(&mut self, rank: Rank) {
        let unfit = self.unfit.get_mut(rank.2).and_then(Option::take);
        if let Some(reason) = unfit {
            let count = self.reasons.get(&reason).map_or(0, |count| *count);
            match count {
                0 | 1 => drop(self.reasons.remove(&reason)),
                more => drop(self.reasons.insert(reason, more - 1)),
            }
        }
        self.order.remove(&rank);
    }

    /// Those that fit, the best first.
    pub fn best(&self) -> impl Iterator<Item = usize> {
        self.order.iter().map(|(_, _, agent)| *agent)
    }

    pub fn has(&self, rank: Rank) -> bool {
        self.order.contains(&rank)
    }

    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Why the others don't fit, and how many of them.
    pub fn reasons(&self) -> &BTreeMap<Reason, u32> {
        &self.reasons
    }
}
