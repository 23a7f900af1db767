//! Decides again what the log says was decided, from nothing but the log, and compares.
//!
//! What a leader knows beyond the log stands beside its decisions ([`model::Observed`]): so whoever has the entries, and the
//! state before them, comes to the same decisions, with the same traces. Where somebody does not, either a decision went
//! by something that is not written down, or the two decide differently: both are bugs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use model::{
    Applied, Assignment, Command, Entry, Observed, Op, Sample, Stamped, State, SystemCommand,
    TaskId,
};

use crate::fleet::{AgentView, Fleet};
use crate::plan::{Asker, Planner, Round, round_max};
use crate::reserved::{Placed, Reservations};
use crate::rotation::Rotations;

/// States that are remembered: a leader decides on one that is at most a few entries old.
const STATES: usize = 64;
/// Rounds of a leader that may be on their way at once, and more.
const ROUNDS: u64 = 64;

/// What came of deciding an entry's decisions again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remade {
    /// There are none in it, or it does not say what they were made by.
    Nothing,
    /// So many are just the same, traces and all.
    Same(usize),
    /// What they were made by is not all there.
    Unknown(&'static str),
    /// This one is not.
    Different(String),
}

/// Entries in their order, and what has to be remembered of them.
#[derive(Debug)]
pub struct Remaking {
    states: VecDeque<State>,
    term: u64,
    /// The term was seen from its first entry on, and all of its rounds: so it is known whose turn it is.
    is_whole: bool,
    /// What was decided lately, by the leader's count.
    rounds: BTreeMap<u64, Decided>,
    rotations: Arc<Rotations>,
}

/// What an entry assigned.
#[derive(Debug, Default)]
struct Decided {
    placed: Vec<Placed>,
    tasks: BTreeSet<TaskId>,
}

impl Remaking {
    /// From this state on.
    pub fn from(state: State) -> Remaking {
        Remaking {
            term: state.last_term(),
            is_whole: state.last_applied() == 0,
            states: VecDeque::from([state]),
            rounds: BTreeMap::new(),
            rotations: Arc::default(),
        }
    }

    /// The last state.
    pub fn state(&self) -> &State {
        // There is one from the beginning on, and the last is never dropped.
        &self.states[self.states.len() - 1]
    }

    /// Applies the next entry, after it has decided what it decides.
    pub fn apply(&mut self, stamped: Stamped) -> (Remade, Applied) {
        if stamped.term != self.term {
            self.term = stamped.term;
            self.is_whole = true;
            self.rounds.clear();
            self.rotations = Arc::default();
        }
        let remade = self.remake(&stamped.entry);
        let mut state = self.state().clone();
        let applied = state.apply(stamped);
        self.keep(state);
        (remade, applied)
    }

    /// The same of one without operations: it has an index.
    pub fn note_index(&mut self, index: u64, term: u64) {
        let mut state = self.state().clone();
        state.note_index(index, term);
        self.keep(state);
    }

    fn keep(&mut self, state: State) {
        self.states.push_back(state);
        if self.states.len() > STATES {
            self.states.pop_front();
        }
    }

    fn remake(&mut self, entry: &Entry) -> Remade {
        let observed = entry.ops.iter().find_map(|op| match op {
            Op::System(SystemCommand::Observe(observed)) => Some(observed),
            Op::System(_) | Op::Client { .. } => None,
        });
        let Some(observed) = observed else {
            return Remade::Nothing;
        };
        let last = self.rounds.last_key_value().map_or(0, |(round, _)| *round);
        // One that is missing has taken turns, and never came to the log.
        self.is_whole &= observed.round == last + 1;
        let (remade, rotations) = self.decide(entry, observed);
        let remade = match (remade, rotations) {
            (Remade::Same(count), Some(rotations)) => {
                self.rotations = rotations;
                Remade::Same(count)
            }
            (Remade::Different(_), _) if !self.is_whole => {
                Remade::Unknown("whose turn it was is not known")
            }
            (others, _) => {
                self.is_whole = false;
                others
            }
        };
        let decided = Decided::of(entry, self.state());
        self.rounds.insert(observed.round, decided);
        let oldest = observed.round.saturating_sub(ROUNDS);
        self.rounds.retain(|round, _| *round >= oldest);
        remade
    }

    /// Also whose turn it is then.
    fn decide(&self, entry: &Entry, observed: &Observed) -> (Remade, Option<Arc<Rotations>>) {
        let unknown = |why| (Remade::Unknown(why), None);
        if !observed.is_whole {
            return unknown("what it was made by is not all written down");
        }
        let mut newest_first = self.states.iter().rev();
        let state = newest_first.find(|state| state.last_applied() <= observed.applied);
        let Some(state) = state else {
            return unknown("the state that it was made on is too old");
        };
        let under_way = observed.under_way.iter();
        let under_way: Option<Vec<&Decided>> =
            under_way.map(|round| self.rounds.get(round)).collect();
        let Some(under_way) = under_way else {
            return unknown("a round before it is not known");
        };
        let fleet = self.fleet(state, observed, &under_way);
        let taken = under_way.iter().flat_map(|it| it.tasks.iter().copied());
        let taken = taken.collect();
        let mut planner = Planner::new(state, &fleet, observed.now);
        match compared(&mut planner, entry, observed, &taken) {
            Ok(count) => (Remade::Same(count), Some(planner.into_rotations())),
            Err(difference) => (Remade::Different(difference), None),
        }
    }

    /// As the leader saw it.
    fn fleet(&self, state: &State, observed: &Observed, under_way: &[&Decided]) -> Fleet {
        let mut reservations = Reservations::default();
        let placed = under_way.iter().flat_map(|it| &it.placed);
        placed.for_each(|placed| reservations.add(placed));
        let news: BTreeMap<_, &Sample> = observed.samples.iter().map(|(id, it)| (id, it)).collect();
        let agents = state.agents().map(|agent| {
            let id = &agent.profile.id;
            let sample = news.get(id).copied().or_else(|| self.state().sample(id));
            let view = AgentView {
                sample: sample.cloned().unwrap_or_default(),
                reserved: reservations.of(id),
            };
            (id.clone(), view)
        });
        Fleet {
            agents: agents.collect(),
            rotations: Arc::clone(&self.rotations),
            ..Fleet::default()
        }
    }
}

impl Decided {
    /// Before the entry is applied.
    fn of(entry: &Entry, state: &State) -> Decided {
        let mut decided = Decided::default();
        for op in &entry.ops {
            match op {
                Op::System(SystemCommand::Assign(Assignment { task, placement })) => {
                    if let Some(spec) = state.spec(*task) {
                        decided.placed.push(Placed::of(&placement.agent, &spec));
                    }
                    decided.tasks.insert(*task);
                }
                Op::Client {
                    command: Command::SubmitTask(submit),
                    placement: Some(placement),
                    ..
                } => decided
                    .placed
                    .push(Placed::of(&placement.agent, &submit.spec)),
                Op::System(_) | Op::Client { .. } => {}
            }
        }
        decided
    }
}

/// How many decisions are the same; else which one is not.
fn compared(
    planner: &mut Planner<'_>,
    entry: &Entry,
    observed: &Observed,
    taken: &BTreeSet<TaskId>,
) -> Result<usize, String> {
    let is_due = |op: &&Op| match op {
        Op::System(SystemCommand::Assign(_) | SystemCommand::Observe(_)) | Op::Client { .. } => {
            false
        }
        Op::System(_) => true,
    };
    let before = entry.ops.iter().take_while(is_due).count();
    let plan = planner.round(Round {
        now: observed.now,
        taken,
        max: round_max(before),
        after: None,
    });
    let mut count = 0;
    let mut planned = plan.assignments.into_iter();
    let mut seed = observed.seed;
    for op in &entry.ops {
        match op {
            Op::System(SystemCommand::Assign(recorded)) => {
                let planned = planned.next();
                // An estimate is a word about the decision, and no part of it.
                let estimate = recorded.placement.estimate;
                let planned = planned.map(|it| it.with_estimate(estimate));
                if planned.as_ref() != Some(recorded) {
                    return Err(format!("recorded {recorded:?}, decided again {planned:?}"));
                }
                count += 1;
            }
            Op::Client {
                principal,
                command: Command::SubmitTask(submit),
                placement: recorded,
                ..
            } if !plan.cut => {
                seed = seed.wrapping_add(1);
                let asker = Asker::of_submit(principal, seed);
                let placed = planner.place(&submit.spec, asker);
                if placed != *recorded {
                    return Err(format!("recorded {recorded:?}, decided again {placed:?}"));
                }
                count += usize::from(placed.is_some());
            }
            Op::Client { .. } | Op::System(_) => {}
        }
    }
    match planned.next() {
        None => Ok(count),
        Some(more) => Err(format!("nothing is recorded, decided again {more:?}")),
    }
}
