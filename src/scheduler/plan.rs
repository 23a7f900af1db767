//! A round of decisions: the queue in its order, each task to the best agent that has room.
//!
//! The queue stands by what tasks need and by tenant ([`model::Waiting`]), and a round takes from these lines in turns
//! ([`crate::order`]). A line that no agent with room fits, or whose namespace has used up its quota, is passed over as a
//! whole, so however many tasks wait for an agent that is not there, those behind them cost and wait no more than without
//! them. A round ends when no agent has room, or at a bound: the next one then goes on where it stopped.

mod choose;
mod preempt;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::{
    Agent, AgentId, Assignment, Namespace, Preemption, QueueKey, Reason, Requirement, State,
    SystemCommand, TaskId, TaskSpec, Timestamp, Work,
};

use crate::candidate::{Candidate, Claim};
use crate::filter::{self, Room};
use crate::fleet::{AgentView, Fleet};
use crate::health::{Asked, Hold, Machines};
use crate::kept::{Holder, kept};
use crate::order::{self, Became, Line, Turns};
use crate::ranking::Rankings;
use crate::rotation::Rotations;
use crate::rules::{RuleSet, Rules};

pub use choose::Asker;
pub use preempt::PATIENCE;

/// Requirements that one round looks at, and lines that it takes from: with the tasks in it they bound its time to a few
/// milliseconds. Where there are more, rounds take turns, and the order of class and share holds within each.
const REQUIREMENTS_MAX: usize = 4_096;
pub(crate) const LINES_MAX: usize = 16_384;
/// Tasks that one round passes over because the agents with room are too old for them; bounds its time as well.
const NOT_UNDERSTOOD_MAX: usize = 4_096;

/// Decisions of a round, as many as an entry of the log takes of them.
pub const ROUND_MAX: usize = 256;

/// Operations in one entry; a bound on the time that it takes to apply.
pub const OPS_PER_ENTRY: usize = 512;

/// Decisions of a round in an entry that has so many operations already.
pub fn round_max(before: usize) -> usize {
    ROUND_MAX.min(OPS_PER_ENTRY.saturating_sub(before))
}

/// What a round starts from.
#[derive(Debug, Clone, Copy)]
pub struct Round<'r> {
    pub now: Timestamp,
    /// Tasks whose assignment is under way.
    pub taken: &'r BTreeSet<TaskId>,
    /// Assignments at most.
    pub max: usize,
    /// Where the last round stopped, if it could not look at every queue.
    pub after: Option<&'r QueueKey>,
}

/// What a round decided.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    pub assignments: Vec<Assignment>,
    /// Tasks that get the places of others.
    pub preemptions: Vec<Preemption>,
    /// The round ended at a bound, not at the end of the queue: some that wait were not looked at.
    pub cut: bool,
    /// Where the next round goes on; where there is nothing, from the start.
    pub resume: Option<QueueKey>,
}

impl Plan {
    /// All that it decides, in the order in which it stands in an entry.
    pub fn into_commands(self) -> impl Iterator<Item = SystemCommand> {
        let assigned = self.assignments.into_iter().map(SystemCommand::Assign);
        let preempted = self.preemptions.into_iter().map(SystemCommand::Preempt);
        assigned.chain(preempted)
    }
}

/// Assigns queued tasks, as a round of its own.
pub fn plan(state: &State, fleet: &Fleet, round: Round<'_>) -> Plan {
    Planner::new(state, fleet, round.now).round(round)
}

/// The rooms of all agents while a round fills them; also places new tasks after the round.
#[derive(Debug)]
pub struct Planner<'a> {
    state: &'a State,
    fleet: &'a Fleet,
    /// Agents that had room when the round began, by id.
    candidates: Vec<Candidate<'a>>,
    /// How many of them have room now.
    open: usize,
    /// Agents that can get no work now, by reason.
    refused: BTreeMap<Reason, u32>,
    rankings: Rankings,
    /// Whose turn it is, under strategies that go by turns.
    rotations: Arc<Rotations>,
    /// How many more attempts each namespace may have; `None`: as many as there is room for.
    quotas: BTreeMap<Namespace, Option<u32>>,
    /// Breaks ties between agents: of the first task that is placed, so that each round has an order of its own.
    seed: Option<u64>,
    /// For whom agents are kept free.
    kept: BTreeMap<AgentId, Holder>,
    /// Those by hand that hold.
    rules: Arc<Rules<'a>>,
    machines: Machines<'a>,
    /// State time.
    now: Timestamp,
    /// Some task was passed over for a blob that the leader lacks.
    passed_lacking: bool,
    /// The sorts of work for which it is looked at how long they take.
    works: Vec<Work>,
}

impl<'a> Planner<'a> {
    /// At a state time.
    pub fn new(state: &'a State, fleet: &'a Fleet, now: Timestamp) -> Planner<'a> {
        let rules = Arc::new(Rules::of(state, now));
        let machines = Machines::of(state, fleet);
        let kept = kept(state, fleet, (&rules, &machines), now);
        let mut rotations = Arc::clone(&fleet.rotations);
        if !rotations.restraint.is_about(machines.hot()) {
            Arc::make_mut(&mut rotations).restraint.note(machines.hot());
        }
        let mut planner = Planner {
            state,
            fleet,
            candidates: Vec::new(),
            open: 0,
            refused: BTreeMap::new(),
            rankings: Rankings::default(),
            rotations,
            quotas: BTreeMap::new(),
            seed: None,
            kept,
            rules,
            machines,
            now,
            passed_lacking: false,
            works: Vec::new(),
        };
        let unknown = AgentView::default();
        for agent in state.agents() {
            let view = fleet.agents.get(&agent.profile.id).unwrap_or(&unknown);
            let room = filter::room(state, agent, view);
            match filter::accepts_work(agent, view, room) {
                Ok(()) => {
                    let candidate = planner.candidate((agent, room), view);
                    planner.candidates.push(candidate);
                }
                Err(reason) => *planner.refused.entry(reason).or_insert(0) += 1,
            }
        }
        planner.open = planner.candidates.len();
        planner
    }

    /// An agent as the round finds it.
    fn candidate(&self, (agent, room): (&'a Agent, Room), view: &AgentView) -> Candidate<'a> {
        let known = (self.state, view);
        let seen = (&self.machines, &*self.rotations, self.now);
        let mut candidate = Candidate::new((agent, room), known, seen, &self.rules);
        candidate.kept_for = self.kept.get(&agent.profile.id).copied();
        candidate
    }

    /// Whether any agent could take anything.
    pub fn has_room(&self) -> bool {
        self.open > 0
    }

    /// Assigns queued tasks in their order.
    pub fn round(&mut self, round: Round<'_>) -> Plan {
        let mut plan = Plan {
            resume: round.after.cloned(),
            ..Plan::default()
        };
        self.count_begun(round.taken);
        if self.has_room() {
            self.fill(round, &mut plan);
        }
        self.preempt(round, &mut plan);
        plan
    }

    /// Gives away what room there is.
    fn fill(&mut self, round: Round<'_>, plan: &mut Plan) {
        let lines = self.lines(round, plan);
        let mut turns = Turns::new(self.state, round.now, lines, round.taken);
        let mut not_understood = 0;
        while let Some(turn) = turns.next() {
            if !self.has_room() {
                break;
            }
            if plan.assignments.len() == round.max {
                plan.cut = true;
                break;
            }
            let became = match self.next(turn.task, round.taken) {
                Next::Assigned(assignment) => {
                    plan.assignments.push(assignment);
                    Became::Gone
                }
                Next::Passed => Became::Passed,
                Next::NotUnderstood if not_understood < NOT_UNDERSTOOD_MAX => {
                    not_understood += 1;
                    Became::Passed
                }
                // Those behind it come up when newer agents have taken some.
                Next::NotUnderstood => Became::Stuck,
                Next::Hopeless => Became::Stuck,
            };
            turns.go_on(turn, became);
        }
    }

    /// The lines that some agent with room fits.
    fn lines(&mut self, round: Round<'_>, plan: &mut Plan) -> Vec<(&'a QueueKey, Line<'a>)> {
        let state = self.state;
        let mut queues = state.queues_behind(round.after);
        let mut lines = Vec::new();
        let mut last = None;
        // Queues of one requirement stand together.
        let mut rules = None;
        let mut seen: Option<&Requirement> = None;
        // Whether they fit any agent, of this requirement.
        let mut fitting: Vec<((RuleSet, bool), bool)> = Vec::new();
        let some_are_held_back = self.candidates.iter().any(|it| it.hold != Hold::Not);
        let mut requirements = 0;
        for (key, waiting) in queues.by_ref() {
            let QueueKey {
                requirement,
                kind,
                tenant,
            } = key;
            let sort = (&tenant.namespace, *kind);
            // Users of one namespace stand together.
            let concerning = match rules {
                Some((same, concerning)) if same == sort => concerning,
                Some(_) | None => self.rules.concerning(sort.0, sort.1),
            };
            rules = Some((sort, concerning));
            if seen != Some(requirement) {
                fitting.clear();
            }
            let is_overdue = some_are_held_back && order::is_overdue(state, waiting, round.now);
            let alike = (concerning, is_overdue);
            let known = fitting.iter().find(|(known, _)| *known == alike);
            let fits = match known {
                Some((_, fits)) => *fits,
                None => {
                    requirements += 1;
                    let need = requirement.need();
                    let rules = (&*self.rules, concerning);
                    let is_for_idle_ones = some_are_held_back
                        && self.machines.is_for_idle_ones(&Asked {
                            rules,
                            need,
                            // As few of them as there may be.
                            is_plain: false,
                        });
                    let fits = |it: &Candidate<'_>| {
                        let may = !is_for_idle_ones || it.hold.admits(is_overdue);
                        may && it.fits(state, need).and(it.obeys(concerning)).is_ok()
                    };
                    let fits = self.candidates.iter().any(fits);
                    fitting.push((alike, fits));
                    fits
                }
            };
            if requirements > REQUIREMENTS_MAX || lines.len() == LINES_MAX {
                plan.cut = true;
                break;
            }
            last = Some(key);
            seen = Some(requirement);
            if fits && self.may_run(&tenant.namespace) {
                let line = order::line(state, (tenant, waiting), round.now, order::RIPE_MAX);
                lines.push((key, line));
            }
        }
        plan.resume = last.filter(|_| plan.cut).cloned();
        lines
    }

    fn may_run(&mut self, namespace: &Namespace) -> bool {
        self.quota(namespace).is_none_or(|left| left > 0)
    }

    /// How many more attempts a namespace may have.
    fn quota(&mut self, namespace: &Namespace) -> Option<u32> {
        match self.quotas.get(namespace) {
            Some(known) => *known,
            None => {
                let left = self.state.running_left(namespace);
                self.quotas.insert(namespace.clone(), left);
                left
            }
        }
    }

    /// One more is begun.
    fn count(&mut self, namespace: &Namespace) {
        if let Some(left) = self.quota(namespace) {
            let left = Some(left.saturating_sub(1));
            self.quotas.insert(namespace.clone(), left);
        }
    }

    fn count_begun(&mut self, begun: &BTreeSet<TaskId>) {
        for id in begun {
            if let Some(spec) = self.state.spec(*id) {
                self.count(&spec.namespace);
            }
        }
    }

    fn next(&mut self, id: TaskId, taken: &BTreeSet<TaskId>) -> Next {
        let state = self.state;
        let (Some(task), Some(spec)) = (state.task(id), state.spec(id)) else {
            return Next::Passed;
        };
        if taken.contains(&id) || self.lacks(&spec) {
            return Next::Passed;
        }
        let asker = Asker {
            user: &task.user,
            task: Some(id),
            seed: id.0,
            avoided: &task.lost_agents,
        };
        match self.place(&spec, asker) {
            Some(placement) => Next::Assigned(Assignment {
                task: id,
                placement,
            }),
            None if spec.blobs.is_empty()
                || self.is_hopeless(&spec, Claim::of(&self.kept, Some(id), &spec))
                || !self.may_run(&spec.namespace) =>
            {
                Next::Hopeless
            }
            // Agents that are too old for this one may be good enough for others with the same requirement.
            None => Next::NotUnderstood,
        }
    }

    fn lacks(&mut self, spec: &TaskSpec) -> bool {
        let lacks = self.fleet.lacked_by(spec).is_some();
        self.passed_lacking |= lacks;
        lacks
    }

    /// Whether it went by blobs that the leader lacks, of which the log knows nothing.
    pub fn passed_lacking(&self) -> bool {
        self.passed_lacking
    }

    /// Whose turn it is after all that was placed.
    pub fn into_rotations(self) -> Arc<Rotations> {
        self.rotations
    }
}

/// What became of the task at the head of a line.
enum Next {
    Assigned(Assignment),
    /// It is on its way already, or what it needs is on its way to the leader.
    Passed,
    /// Agents with room fit it, and are too old for it.
    NotUnderstood,
    /// No agent with room fits it, or its namespace may have no more: neither may those behind it in its line go.
    Hopeless,
}
