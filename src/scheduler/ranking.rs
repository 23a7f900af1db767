//! Agents with room in the order in which they are to be taken, for tasks that all need the same.
//!
//! A ranking is made once in a round, by one look at each agent, and kept true while the round fills them: what one more
//! decision costs does not grow with the number of agents. (Under strategies that go by the client or the namespace each
//! decision looks at all agents that fit, for there may be as many of these as tasks; so does the draw of two.)

use std::collections::{BTreeMap, BTreeSet};

use model::{Expression, Reason, State};

use crate::candidate::{Candidate, Lens, Rank, Wants};

#[derive(Debug, Default)]
pub struct Ranking {
    order: BTreeSet<Rank>,
    /// Why an agent with room does not fit; by number.
    unfit: Vec<Option<Reason>>,
    reasons: BTreeMap<Reason, u32>,
    /// Slots of idle machines that could run such tasks, now or later: those that are held back may not then.
    idle_slots: u64,
    /// Hot machines that could have run them when the round began.
    hot: Vec<usize>,
}

impl Ranking {
    pub fn new(idle_slots: u64) -> Ranking {
        Ranking {
            idle_slots,
            ..Ranking::default()
        }
    }

    pub fn note_hot(&mut self, number: usize) {
        self.hot.push(number);
    }

    /// With the slots of the idle ones.
    pub fn hot(&self) -> (&[usize], u64) {
        (&self.hot, self.idle_slots)
    }

    pub fn admits(&self, candidate: &Candidate<'_>, lens: Lens) -> Result<(), Reason> {
        match self.idle_slots == 0 || candidate.hold.admits(lens.is_overdue) {
            true => Ok(()),
            false => Err(Reason::Busy),
        }
    }

    pub fn add(&mut self, rank: Rank, fits: Result<(), Reason>) {
        match fits {
            Ok(()) => drop(self.order.insert(rank)),
            Err(reason) => {
                *self.reasons.entry(reason.clone()).or_insert(0) += 1;
                let number = rank.number;
                if self.unfit.len() <= number {
                    self.unfit.resize(number + 1, None);
                }
                self.unfit[number] = Some(reason);
            }
        }
    }

    pub fn remove(&mut self, rank: Rank) {
        let unfit = self.unfit.get_mut(rank.number).and_then(Option::take);
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
        self.order.iter().map(|rank| rank.number)
    }

    pub fn has(&self, rank: Rank) -> bool {
        self.order.contains(&rank)
    }

    fn is_unfit(&self, number: usize) -> bool {
        self.unfit.get(number).is_some_and(Option::is_some)
    }

    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Why the others don't fit, and how many of them.
    pub fn reasons(&self) -> &BTreeMap<Reason, u32> {
        &self.reasons
    }
}

/// All rankings of a round, by requirement, then by what else the tasks have in common.
#[derive(Debug, Default)]
pub struct Rankings(BTreeMap<Vec<Expression>, Vec<Alike>>);

/// Those of tasks that require the same.
#[derive(Debug)]
struct Alike {
    lens: Lens,
    prefer: Vec<Expression>,
    ranking: Ranking,
}

impl Alike {
    fn wants(&self) -> Wants<'_> {
        (self.lens, &self.prefer)
    }
}

impl Rankings {
    pub fn get(&self, require: &[Expression], wants: Wants<'_>) -> Option<&Ranking> {
        let mut alike = self.0.get(require)?.iter();
        let found = alike.find(|seen| seen.wants() == wants);
        found.map(|seen| &seen.ranking)
    }

    pub fn put(&mut self, require: &[Expression], (lens, prefer): Wants<'_>, ranking: Ranking) {
        let alike = self.0.entry(require.to_vec()).or_default();
        alike.push(Alike {
            lens,
            prefer: prefer.to_vec(),
            ranking,
        });
    }

    fn all(&mut self) -> impl Iterator<Item = (&Vec<Expression>, &mut Alike)> {
        let all = self.0.iter_mut();
        all.flat_map(|(require, alike)| alike.iter_mut().map(move |one| (require, one)))
    }

    /// Takes an agent out before something about it changes, for good where it has no room then. Answers of each ranking
    /// whether it stood there among those that fit.
    pub fn leave(
        &mut self,
        candidate: &Candidate<'_>,
        (number, closes): (usize, bool),
    ) -> Vec<bool> {
        let leaving = self.all().map(|(_, alike)| {
            let rank = candidate.rank(alike.wants(), number);
            let ranking = &mut alike.ranking;
            let fitted = ranking.has(rank);
            debug_assert!(
                fitted || ranking.is_unfit(number),
                "a rank that is not kept true"
            );
            if fitted || closes {
                ranking.remove(rank);
            }
            fitted
        });
        leaving.collect()
    }

    /// Puts it where it stands now. What it did not fit it still does not.
    pub fn come_back(
        &mut self,
        state: &State,
        candidate: &Candidate<'_>,
        (number, left): (usize, &[bool]),
    ) {
        let left = self.all().zip(left).filter(|(_, fitted)| **fitted);
        for ((require, alike), _) in left {
            let fits = candidate.runs(state, require, alike.lens);
            let fits = fits.and(alike.ranking.admits(candidate, alike.lens));
            let rank = candidate.rank(alike.wants(), number);
            alike.ranking.add(rank, fits);
        }
    }
}
