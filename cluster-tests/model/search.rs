//! Whether there is an order of operations, each within its time, that explains every answer: the search of Wing and
//! Gong, with Lowe's memory of what was tried.
//!
//! ```text
//!  time ──►   ├── a ──┤
//!                ├──────── b ────────┤          a before c, for a had ended when c began;
//!                        ├── c ──┤              b anywhere among them
//! ```
//!
//! It takes the operations that may come next (nothing that is left ended before they began), one after the other, and goes
//! on with the state that each leads to; where it gets stuck it goes back. The same set of taken operations with the
//! same state is not tried twice. An operation that was never answered may be taken at any time after its begin, or
//! never. The time may grow with the exponent of how many overlap, so the steps are bounded.

use std::collections::BTreeSet;

/// What an object does. An answer that was not given (`None`) is any.
pub trait Specification {
    type State: Clone + Ord;
    type Call;
    type Answer;

    fn initial(&self) -> Self::State;

    /// The state after a call that gave this answer; `None` where it can't have.
    fn step(
        &self,
        state: &Self::State,
        call: &Self::Call,
        answer: Option<&Self::Answer>,
    ) -> Option<Self::State>;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timed<C, A> {
    pub invoked: u64,
    /// `None`: never; it may have happened, and may yet.
    pub answered: Option<u64>,
    pub call: C,
    /// `None` where it was never answered.
    pub answer: Option<A>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Linearizable,
    /// After the longest order that was found, none of these could come next: places in what was given.
    Not {
        stuck: Vec<usize>,
        explained: usize,
    },
    /// Not decided within the steps.
    TooLong,
}

/// Searches, in at most so many steps.
pub fn search<S: Specification>(
    specification: &S,
    operations: &[Timed<S::Call, S::Answer>],
    steps: u64,
) -> Verdict {
    let mut order: Vec<usize> = (0..operations.len()).collect();
    order.sort_by_key(|at| (operations[*at].invoked, *at));
    let answered = operations.iter().filter(|it| it.answered.is_some()).count();
    Search {
        specification,
        operations,
        order,
        answered,
        left: steps,
        taken: Taken::none(operations.len()),
        tried: BTreeSet::new(),
        best: (0, Vec::new()),
    }
    .run()
}

/// Which operations were taken, one bit each.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Taken(Vec<u64>);

impl Taken {
    fn none(operations: usize) -> Taken {
        Taken(vec![0; operations.div_ceil(64)])
    }

    fn has(&self, at: usize) -> bool {
        self.0[at / 64] >> (at % 64) & 1 == 1
    }

    fn flip(&mut self, at: usize) {
        self.0[at / 64] ^= 1 << (at % 64);
    }
}

struct Search<'s, S: Specification> {
    specification: &'s S,
    operations: &'s [Timed<S::Call, S::Answer>],
    /// Places, by the time of their begin.
    order: Vec<usize>,
    answered: usize,
    left: u64,
    taken: Taken,
    tried: BTreeSet<(Taken, S::State)>,
    /// How many answers the best order explained, and what could have come next there.
    best: (usize, Vec<usize>),
}

/// A choice that was made, and those that are left.
struct Level<State> {
    state: State,
    choices: Vec<usize>,
    next: usize,
    /// What was taken to come here.
    by: Option<usize>,
}

impl<S: Specification> Search<'_, S> {
    fn run(mut self) -> Verdict {
        let mut explained = 0;
        let mut levels = vec![self.level(self.specification.initial(), None)];
        while let Some(level) = levels.last_mut() {
            if explained == self.answered {
                return Verdict::Linearizable;
            }
            let Some(at) = level.choices.get(level.next).copied() else {
                if let Some(by) = level.by {
                    self.taken.flip(by);
                    explained -= usize::from(self.operations[by].answered.is_some());
                }
                levels.pop();
                continue;
            };
            level.next += 1;
            if self.left == 0 {
                return Verdict::TooLong;
            }
            self.left -= 1;
            let Timed { call, answer, .. } = &self.operations[at];
            let Some(state) = self.specification.step(&level.state, call, answer.as_ref()) else {
                continue;
            };
            self.taken.flip(at);
            if !self.tried.insert((self.taken.clone(), state.clone())) {
                self.taken.flip(at);
                continue;
            }
            explained += usize::from(self.operations[at].answered.is_some());
            let level = self.level(state, Some(at));
            if explained > self.best.0 {
                self.best = (explained, level.choices.clone());
            }
            levels.push(level);
        }
        let (explained, mut stuck) = self.best;
        if explained == 0 {
            stuck = self.order.iter().copied().take(1).collect();
        }
        stuck.retain(|at| self.operations[*at].answered.is_some());
        Verdict::Not { stuck, explained }
    }

    /// What may come next: nothing that is left had ended before it began.
    fn level(&self, state: S::State, by: Option<usize>) -> Level<S::State> {
        let left = || self.order.iter().copied().filter(|at| !self.taken.has(*at));
        let first_end = left().filter_map(|at| self.operations[at].answered).min();
        let end = first_end.unwrap_or(u64::MAX);
        let choices = left().take_while(|at| self.operations[*at].invoked <= end);
        let mut choices: Vec<usize> = choices.collect();
        // What ended first most likely came first; what never ended, last of all.
        choices.sort_by_key(|at| (self.operations[*at].answered.unwrap_or(u64::MAX), *at));
        Level {
            state,
            choices,
            next: 0,
            by,
        }
    }
}
