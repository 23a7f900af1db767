//! A round of decisions: the queue in its order, each task to the best agent that has room.
//!
//! The queue stands by requirement and tenant ([`model::Waiting`]), and a round takes from these lines in turns
//! ([`crate::order`]). A line that no agent with room fits, or whose namespace has used up its quota, is passed over as a
//! whole, so however many tasks wait for an agent that is not there, those behind them cost and wait no more than without
//! them. A round ends when no agent has room, or at a bound: the next one then goes on where it stopped.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    Agent, AgentId, Asking, Assignment, Expression, Namespace, Placement, QueueKey, Reason,
    Requirement, State, TaskId, TaskSpec, Tenant, Timestamp, Trace,
};

use crate::filter::{self, Room};
use crate::fleet::{AgentView, Fleet};
use crate::order::{self, Became, Line, Turns};
use crate::ranking::{Rank, Ranking};
use crate::score;

/// Requirements that one round looks at, and lines that it takes from: with the tasks in it they bound its time to a few
/// milliseconds. Where there are more, rounds take turns, and the order of class and share holds within each.
const REQUIREMENTS_MAX: usize = 4_096;
const LINES_MAX: usize = 16_384;
/// The winner and the runners-up that a trace names; the rest are not told apart.
const PLACES: usize = 3;

/// Tasks that one round passes over because the agents with room are too old for them; bounds its time as well.
const NOT_UNDERSTOOD_MAX: usize = 4_096;

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
    /// The round ended at a bound, not at the end of the queue: some that wait were not looked at.
    pub cut: bool,
    /// Where the next round goes on; where there is nothing, from the start.
    pub resume: Option<QueueKey>,
}

/// Assigns queued tasks, as a round of its own.
pub fn plan(state: &State, fleet: &Fleet, round: Round<'_>) -> Plan {
    Planner::new(state, fleet).round(round)
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
    /// By requirement: for plain tasks, and for those that not every agent understands.
    rankings: BTreeMap<Vec<Expression>, [Option<Ranking>; 2]>,
    /// How many more attempts each namespace may have; `None`: as many as there is room for.
    quotas: BTreeMap<Namespace, Option<u32>>,
    /// Breaks ties between agents: of the first task that is placed, so that each round has an order of its own.
    seed: Option<u64>,
}

/// An agent with room.
#[derive(Debug)]
struct Candidate<'a> {
    agent: &'a Agent,
    room: Room,
    /// What its attempts ask its models.
    asking: Asking,
    /// Breaks ties; not before there is a seed.
    tie: u64,
}

impl Candidate<'_> {
    fn has_room(&self) -> bool {
        self.room.taken < self.room.capacity
    }

    fn rank(&self, number: usize) -> Rank {
        (score::weighted(self.room), self.tie, number)
    }

    /// A requirement, and for tasks that are not plain that it understands them.
    fn runs(&self, state: &State, require: &[Expression], is_plain: bool) -> Result<(), Reason> {
        self.fits(state, require)?;
        match is_plain {
            true => Ok(()),
            false => self.agent.profile.understands_blobs(),
        }
    }

    fn fits(&self, state: &State, require: &[Expression]) -> Result<(), Reason> {
        filter::fits(self.agent, require)?;
        filter::asks_room(state, self.agent, &self.asking, require)
    }
}

impl<'a> Planner<'a> {
    pub fn new(state: &'a State, fleet: &'a Fleet) -> Planner<'a> {
        let mut planner = Planner {
            state,
            fleet,
            candidates: Vec::new(),
            open: 0,
            refused: BTreeMap::new(),
            rankings: BTreeMap::new(),
            quotas: BTreeMap::new(),
            seed: None,
        };
        let unknown = AgentView::default();
        for agent in state.agents() {
            let view = fleet.agents.get(&agent.profile.id).unwrap_or(&unknown);
            let room = filter::room(state, agent, view);
            match filter::accepts_work(agent, view, room) {
                Ok(()) => planner.candidates.push(Candidate {
                    agent,
                    room,
                    asking: filter::asking(state, agent, view),
                    tie: 0,
                }),
                Err(reason) => *planner.refused.entry(reason).or_insert(0) += 1,
            }
        }
        planner.open = planner.candidates.len();
        planner
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
        if !self.has_room() {
            return plan;
        }
        self.count_begun(round.taken);
        let lines = self.lines(round, &mut plan);
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
        plan
    }

    /// The lines that some agent with room fits.
    fn lines(&mut self, round: Round<'_>, plan: &mut Plan) -> Vec<(&'a Tenant, Line<'a>)> {
        let state = self.state;
        let mut queues = state.queues_behind(round.after);
        let mut lines = Vec::new();
        let mut last = None;
        // Queues of one requirement stand together.
        let mut seen: Option<(&Requirement, bool)> = None;
        let mut requirements = 0;
        for (key, waiting) in queues.by_ref() {
            let fits = match seen {
                Some((require, fits)) if *require == key.require => fits,
                Some(_) | None => {
                    requirements += 1;
                    let mut candidates = self.candidates.iter();
                    candidates.any(|candidate| candidate.fits(state, &key.require).is_ok())
                }
            };
            if requirements > REQUIREMENTS_MAX || lines.len() == LINES_MAX {
                plan.cut = true;
                break;
            }
            last = Some(key);
            seen = Some((&key.require, fits));
            if fits && self.may_run(&key.tenant.namespace) {
                let line = order::line(state, (&key.tenant, waiting), round.now, order::RIPE_MAX);
                lines.push((&key.tenant, line));
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
        if taken.contains(&id) || self.fleet.lacked_by(&spec).is_some() {
            return Next::Passed;
        }
        match self.place(&spec, id.0, &task.lost_agents) {
            Some(placement) => Next::Assigned(Assignment {
                task: id,
                placement,
            }),
            None if spec.blobs.is_empty()
                || self.is_hopeless(&spec.require)
                || !self.may_run(&spec.namespace) =>
            {
                Next::Hopeless
            }
            // Agents that are too old for this one may be good enough for others with the same requirement.
            None => Next::NotUnderstood,
        }
    }

    /// The best agent for a task, whose room it then takes. `seed` breaks ties; `avoided` are
    /// agents that were lost under it: taken only where there is no other.
    pub fn place(&mut self, spec: &TaskSpec, seed: u64, avoided: &[AgentId]) -> Option<Placement> {
        // Before anything is ranked: a rank has it in it.
        if self.seed.is_none() {
            self.seed = Some(seed);
            for candidate in &mut self.candidates {
                candidate.tie = score::tie(seed, &candidate.agent.profile.id);
            }
        }
        let waits = !self.has_room() || self.fleet.lacked_by(spec).is_some();
        if waits || !self.may_run(&spec.namespace) {
            return None;
        }
        let trace = self.decided(spec, avoided)?;
        let number = self.number_of(&trace.winner.agent)?;
        let incarnation = self.candidates[number].agent.profile.incarnation;
        let model = spec.inference.as_ref().map(|asked| asked.model.as_str());
        self.take(number, model);
        self.count(&spec.namespace);
        Some(Placement {
            agent: trace.winner.agent.clone(),
            incarnation,
            trace: trace.into(),
        })
    }

    /// Which agent is the best, and why.
    fn decided(&mut self, spec: &TaskSpec, avoided: &[AgentId]) -> Option<Trace> {
        self.rank(&spec.require, spec.blobs.is_empty());
        let ranking = self.ranked(&spec.require, spec.blobs.is_empty())?;
        let shunned = avoided.iter().filter_map(|agent| self.number_of(agent));
        let shunned: Vec<usize> = shunned
            .filter(|number| ranking.has(self.candidates[*number].rank(*number)))
            .collect();
        let others = ranking.best().filter(|number| !shunned.contains(number));
        let mut best: Vec<usize> = others.take(PLACES).collect();
        let mut unfit = ranking.reasons().clone();
        match u32::try_from(shunned.len()) {
            _ if best.is_empty() => best.extend(ranking.best().take(PLACES)),
            Ok(0) | Err(_) => {}
            Ok(some) => drop(unfit.insert(Reason::LostBefore, some)),
        }
        let mut scored = best.into_iter().map(|number| {
            let candidate = &self.candidates[number];
            score::score(&candidate.agent.profile.id, candidate.room)
        });
        // Those that get no work at all, then those that fit not this: no reason is in both.
        let refusals = self.refused.iter().chain(&unfit);
        let refusals = refusals.map(|(reason, agents)| (reason.clone(), *agents));
        let trace = Trace {
            policy_version: score::POLICY_VERSION,
            winner: scored.next()?,
            runners_up: scored.collect(),
            refusals: refusals.collect(),
        };
        Some(trace.fitted())
    }

    fn ranked(&self, require: &[Expression], is_plain: bool) -> Option<&Ranking> {
        let both = self.rankings.get(require)?;
        both[usize::from(is_plain)].as_ref()
    }

    /// Makes the ranking for tasks of this sort, where there is none.
    fn rank(&mut self, require: &[Expression], is_plain: bool) {
        if self.ranked(require, is_plain).is_some() {
            return;
        }
        let mut ranking = Ranking::default();
        let open = self.candidates.iter().enumerate();
        for (number, candidate) in open.filter(|(_, candidate)| candidate.has_room()) {
            let fits = candidate.runs(self.state, require, is_plain);
            ranking.add(candidate.rank(number), fits);
        }
        let both = self.rankings.entry(require.to_vec()).or_default();
        both[usize::from(is_plain)] = Some(ranking);
    }

    /// Whether no agent with room takes tasks with this requirement, be they as plain as can be.
    fn is_hopeless(&mut self, require: &[Expression]) -> bool {
        self.rank(require, true);
        self.ranked(require, true).is_none_or(Ranking::is_empty)
    }

    fn number_of(&self, agent: &AgentId) -> Option<usize> {
        let found = |candidate: &Candidate<'_>| candidate.agent.profile.id.cmp(agent);
        self.candidates.binary_search_by(found).ok()
    }

    /// One place at an agent, and at its model: every ranking is told.
    fn take(&mut self, number: usize, model: Option<&str>) {
        let candidate = &mut self.candidates[number];
        let before = candidate.rank(number);
        candidate.room.taken = candidate.room.taken.saturating_add(1);
        if let Some(model) = model {
            *candidate.asking.entry(model.to_owned()).or_insert(0) += 1;
        }
        let (after, has_room) = (candidate.rank(number), candidate.has_room());
        if !has_room {
            self.open -= 1;
            *self.refused.entry(Reason::NoFreeSlot).or_insert(0) += 1;
        }
        let candidate = &self.candidates[number];
        for (require, both) in &mut self.rankings {
            for (is_plain, ranking) in [false, true].into_iter().zip(both) {
                let Some(ranking) = ranking else { continue };
                if !has_room {
                    ranking.remove(before);
                } else if ranking.has(before) {
                    ranking.remove(before);
                    // Its models may be asked no more; nothing else about it can change within a round.
                    ranking.add(after, candidate.runs(self.state, require, is_plain));
                }
            }
        }
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
