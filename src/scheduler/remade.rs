//! Decides again what the log says was decided, from nothing but the log, and compares.
//!
//! What a leader knows beyond the log stands beside its decisions ([`model::Observed`]): so whoever has the entries, and the
//! state before them, comes to the same decisions, with the same traces. Where somebody does not, either a decision went
//! by something that is not written down, or the two decide differently: both are bugs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use model::{
    AgentId, Applied, Command, Entry, Observed, Op, Stamped, State, SystemCommand, TaskId,
};

use crate::fleet::{AgentView, Fleet};
use crate::plan::{Asker, Planner, Round, round_max};
use crate::reserved::{Placed, Reservations};
use crate::rotation::Rotations;
use crate::told::{Known, Told};

/// States that are remembered: a leader decides on one that is at most a few entries old.
const STATES: usize = 64;
/// Rounds of a leader that may be on their way at once, and more.
const ROUNDS: u64 = 64;

/// What came of deciding an entry's decisions again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remade {
    /// There are none in it.
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
    /// The last round, and the one with which its turns began.
    last: Option<(u64, u64)>,
    /// Whose turn it is, where all rounds since the turns began were seen, and came out the same.
    rotations: Option<Arc<Rotations>>,
    /// What was decided lately, by the leader's count.
    rounds: BTreeMap<u64, Decided>,
}

/// What an entry assigned, and told.
#[derive(Debug, Default)]
struct Decided {
    placed: Vec<Placed>,
    tasks: BTreeSet<TaskId>,
    told: Told,
}

impl Remaking {
    /// From this state on.
    pub fn from(state: State) -> Remaking {
        Remaking {
            term: state.last_term(),
            states: VecDeque::from([state]),
            last: None,
            rotations: None,
            rounds: BTreeMap::new(),
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
            self.rounds.clear();
            self.last = None;
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
            return match entry.ops.iter().any(places) {
                true => Remade::Unknown("nothing is written of what it was made by"),
                false => Remade::Nothing,
            };
        };
        let Observed { round, since, .. } = *observed;
        if since == round {
            self.rotations = Some(Arc::default());
        } else if self.last != Some((round.saturating_sub(1), since)) {
            // One that is missing has taken turns, and never came to the log.
            self.rotations = None;
        }
        self.last = Some((round, since));
        let remade = match self.decide(entry, observed) {
            Ok((count, rotations)) => {
                self.rotations = Some(rotations);
                Remade::Same(count)
            }
            Err(remade) => {
                self.rotations = None;
                remade
            }
        };
        let decided = Decided::of(entry, observed, self.state());
        self.rounds.insert(round, decided);
        let oldest = round.saturating_sub(ROUNDS);
        self.rounds.retain(|round, _| *round >= oldest);
        remade
    }

    /// How many decisions are the same, and whose turn it is then.
    fn decide(
        &self,
        entry: &Entry,
        observed: &Observed,
    ) -> Result<(usize, Arc<Rotations>), Remade> {
        if !observed.is_whole {
            let why = "what it was made by is not all written down";
            return Err(Remade::Unknown(why));
        }
        let mut newest_first = self.states.iter().rev();
        let state = newest_first.find(|state| state.last_applied() <= observed.applied);
        let state = state.ok_or(Remade::Unknown("the state that it was made on is too old"))?;
        let under_way = observed.under_way.iter();
        let under_way: Option<Vec<&Decided>> =
            under_way.map(|round| self.rounds.get(round)).collect();
        let under_way = under_way.ok_or(Remade::Unknown("a round before it is not known"))?;
        let rotations = self.rotations.as_ref();
        let rotations = rotations.ok_or(Remade::Unknown("whose turn it was is not known"))?;
        let fleet = Fleet {
            agents: seen(state, observed, &under_way),
            rotations: Arc::clone(rotations),
            ..Fleet::default()
        };
        let taken = under_way.iter().flat_map(|it| it.tasks.iter().copied());
        let mut planner = Planner::new(state, &fleet, observed.now);
        let count = compared(&mut planner, entry, observed, &taken.collect());
        let count = count.map_err(Remade::Different)?;
        Ok((count, planner.into_rotations()))
    }
}

/// The agents, as the leader saw them.
fn seen(
    state: &State,
    observed: &Observed,
    under_way: &[&Decided],
) -> BTreeMap<AgentId, AgentView> {
    let mut reservations = Reservations::default();
    let placed = under_way.iter().flat_map(|it| &it.placed);
    placed.for_each(|placed| reservations.add(placed));
    let news = Told::from(observed);
    let rounds = under_way.iter().map(|it| &it.told);
    let known = Known::of(state, rounds.chain([&news]));
    let agents = state.agents().map(|agent| {
        let id = &agent.profile.id;
        let (sample, service) = known.last(id);
        let view = AgentView {
            sample,
            service,
            reserved: reservations.of(id),
        };
        (id.clone(), view)
    });
    agents.collect()
}

fn places(op: &Op) -> bool {
    match op {
        Op::System(command) => command.assignment().is_some(),
        Op::Client { placement, .. } => placement.is_some(),
    }
}

impl Decided {
    /// Before the entry is applied.
    fn of(entry: &Entry, observed: &Observed, state: &State) -> Decided {
        let mut decided = Decided {
            told: Told::from(observed),
            ..Decided::default()
        };
        for op in &entry.ops {
            match op {
                Op::System(command) => {
                    let task = command.assignment().map(|it| it.task);
                    decided.tasks.extend(task);
                    decided.placed.extend(Placed::by(state, command));
                }
                Op::Client {
                    command: Command::SubmitTask(submit),
                    placement: Some(placement),
                    ..
                } => decided
                    .placed
                    .push(Placed::of(&placement.agent, &submit.spec)),
                Op::Client { .. } => {}
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
        Op::System(SystemCommand::Observe(_)) | Op::Client { .. } => false,
        Op::System(command) => command.assignment().is_none(),
    };
    let before = entry.ops.iter().take_while(is_due).count();
    let plan = planner.round(Round {
        now: observed.now,
        taken,
        max: round_max(before),
        after: None,
    });
    let mut count = 0;
    let cut = plan.cut;
    let mut planned = plan.into_commands();
    let mut seed = observed.seed;
    for op in &entry.ops {
        match op {
            Op::System(recorded) if let Some(assignment) = recorded.assignment() => {
                // An estimate is a word about the decision, and no part of it.
                let estimate = assignment.placement.estimate;
                let planned = planned.next().map(|it| it.with_estimate(estimate));
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
            } if !cut => {
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
