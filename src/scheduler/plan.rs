//! A round of decisions: the queue in its order, each task to the best agent that has room.
//!
//! The queue stands by requirement ([`model::Waiting`]), and a round merges these lines by class and
//! age. A line that no agent with room fits is passed over as a whole, so however many tasks wait
//! for an agent that is not there, those behind them cost and wait no more than without them. A
//! round ends when no agent has room, or at a bound: the next one then goes on where it stopped.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use model::{
    Agent, AgentId, Asking, Assignment, Expression, Placement, Reason, Requirement, State, TaskId,
    TaskSpec, Timestamp, Trace, Waiting,
};

use crate::filter::{self, Room};
use crate::fleet::Fleet;
use crate::order::{self, Line, Place};
use crate::ranking::Ranking;
use crate::score;

/// Requirements that one round looks at: bounds its time to a few milliseconds.
const REQUIREMENTS_MAX: usize = 4_096;
/// Tasks whose retry is ripe that one round takes from one line; more than one may assign and the
/// pipeline may hold, so that those behind come up as these go.
const RIPE_MAX: usize = 2_048;

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
    /// Where the last round stopped, if it could not look at every requirement.
    pub after: Option<&'r Requirement>,
}

/// What a round decided.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    pub assignments: Vec<Assignment>,
    /// The round ended at a bound, not at the end of the queue: some that wait were not looked at.
    pub cut: bool,
    /// Where the next round goes on; where there is nothing, from the start.
    pub resume: Option<Requirement>,
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
    candidates: BTreeMap<&'a AgentId, Candidate<'a>>,
    /// Agents that can get no work now, by reason.
    refused: BTreeMap<Reason, u32>,
    /// Requirements of new tasks that no agent with room meets.
    hopeless: BTreeSet<Vec<Expression>>,
    /// Those that none meets which understands more than plain tasks: agents with room only become fewer.
    only_old: BTreeSet<Vec<Expression>>,
}

/// An agent with room.
#[derive(Debug)]
struct Candidate<'a> {
    agent: &'a Agent,
    room: Room,
    /// What its attempts ask its models.
    asking: Asking,
}

impl Candidate<'_> {
    /// Its requirement, and all else that is in it.
    fn runs(&self, state: &State, spec: &TaskSpec) -> Result<(), Reason> {
        self.fits(state, &spec.require)?;
        self.agent.profile.understands(spec)
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
            candidates: BTreeMap::new(),
            refused: BTreeMap::new(),
            hopeless: BTreeSet::new(),
            only_old: BTreeSet::new(),
        };
        for agent in state.agents() {
            let view = fleet
                .agents
                .get(&agent.profile.id)
                .cloned()
                .unwrap_or_default();
            let room = filter::room(state, agent, &view);
            match filter::accepts_work(agent, &view, room) {
                Ok(()) => {
                    let candidate = Candidate {
                        agent,
                        room,
                        asking: filter::asking(state, agent, &view),
                    };
                    planner.candidates.insert(&agent.profile.id, candidate);
                }
                Err(reason) => *planner.refused.entry(reason).or_insert(0) += 1,
            }
        }
        planner
    }

    /// Whether any agent could take anything.
    pub fn has_room(&self) -> bool {
        !self.candidates.is_empty()
    }

    /// Assigns queued tasks in the order of class and age.
    pub fn round(&mut self, round: Round<'_>) -> Plan {
        let mut plan = Plan {
            resume: round.after.cloned(),
            ..Plan::default()
        };
        if !self.has_room() {
            return plan;
        }
        let mut lines = self.lines(round, &mut plan);
        let mut heads: BinaryHeap<_> = lines.iter_mut().enumerate().filter_map(head).collect();
        let mut not_understood = 0;
        while let Some(Reverse(((_, task), at))) = heads.pop() {
            if !self.has_room() {
                break;
            }
            if plan.assignments.len() == round.max {
                plan.cut = true;
                break;
            }
            match self.next(task, round.taken) {
                Next::Assigned(assignment) => plan.assignments.push(assignment),
                Next::Passed => {}
                Next::NotUnderstood if not_understood < NOT_UNDERSTOOD_MAX => not_understood += 1,
                // Those behind it come up when newer agents have taken some.
                Next::NotUnderstood => continue,
                // Nor for those behind it in its line.
                Next::Hopeless => continue,
            }
            heads.extend(head((at, &mut lines[at])));
        }
        plan
    }

    /// The lines that some agent with room fits.
    fn lines(&self, round: Round<'_>, plan: &mut Plan) -> Vec<Line<'a>> {
        let mut queues = self.state.queues_behind(round.after);
        let mut lines = Vec::new();
        let mut last = None;
        for (requirement, waiting) in queues.by_ref().take(REQUIREMENTS_MAX) {
            last = Some(requirement);
            let mut candidates = self.candidates.values();
            if candidates.any(|candidate| candidate.fits(self.state, requirement).is_ok()) {
                lines.push(line(self.state, waiting, round.now));
            }
        }
        plan.cut = queues.next().is_some();
        plan.resume = last.filter(|_| plan.cut).cloned();
        lines
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
            None if spec.blobs.is_empty() || self.hopeless.contains(&spec.require) => {
                Next::Hopeless
            }
            None => Next::NotUnderstood,
        }
    }

    /// The best agent for a task, whose room it then takes. `seed` breaks ties; `avoided` are
    /// agents that were lost under it: taken only where there is no other.
    pub fn place(&mut self, spec: &TaskSpec, seed: u64, avoided: &[AgentId]) -> Option<Placement> {
        let waits = !self.has_room() || self.fleet.lacked_by(spec).is_some();
        let too_old = !spec.blobs.is_empty() && self.only_old.contains(&spec.require);
        if waits || too_old || self.hopeless.contains(&spec.require) {
            return None;
        }
        let mut fitting = Ranking::new(seed);
        let mut shunned = Ranking::new(seed);
        let mut unfit: BTreeMap<Reason, u32> = BTreeMap::new();
        for (id, candidate) in &self.candidates {
            match candidate.runs(self.state, spec) {
                Ok(()) if avoided.contains(id) => shunned.offer(id, candidate.room),
                Ok(()) => fitting.offer(id, candidate.room),
                Err(reason) => *unfit.entry(reason).or_insert(0) += 1,
            }
        }
        if fitting.is_empty() {
            fitting = shunned;
        } else if !shunned.is_empty() {
            unfit.insert(Reason::LostBefore, shunned.offered());
        }
        if fitting.is_empty() {
            // Agents that are too old for this one may be good enough for others with the same requirement.
            let requirements = match unfit.contains_key(&Reason::TooOld) {
                true => &mut self.only_old,
                false => &mut self.hopeless,
            };
            requirements.insert(spec.require.clone());
            return None;
        }
        let model = spec.inference.as_ref().map(|asked| asked.model.as_str());
        self.take(&fitting, &unfit, model)
    }

    fn take(
        &mut self,
        ranked: &Ranking<'_>,
        unfit: &BTreeMap<Reason, u32>,
        model: Option<&str>,
    ) -> Option<Placement> {
        let mut ranked = ranked.scored();
        let winner = ranked.next()?;
        let runners_up = ranked.collect();
        // Those that get no work at all, then those that fit not this: no reason is in both.
        let refusals = self.refused.iter().chain(unfit);
        let refusals = refusals.map(|(reason, agents)| (reason.clone(), *agents));
        let trace = Trace {
            policy_version: score::POLICY_VERSION,
            refusals: refusals.collect(),
            winner,
            runners_up,
        };
        let agent = trace.winner.agent.clone();
        let candidate = self.candidates.get_mut(&agent)?;
        let incarnation = candidate.agent.profile.incarnation;
        let room = &mut candidate.room;
        room.taken = room.taken.saturating_add(1);
        if let Some(model) = model {
            *candidate.asking.entry(model.to_owned()).or_insert(0) += 1;
        }
        if room.taken >= room.capacity {
            self.candidates.remove(&agent);
            *self.refused.entry(Reason::NoFreeSlot).or_insert(0) += 1;
        }
        Some(Placement {
            agent,
            incarnation,
            trace: trace.into(),
        })
    }
}

/// What became of the task at the head of a line.
enum Next {
    Assigned(Assignment),
    /// It is on its way already, or what it needs is on its way to the leader.
    Passed,
    /// Agents with room fit it, and are too old for it.
    NotUnderstood,
    /// No agent with room fits it.
    Hopeless,
}

/// The tasks of one requirement that may go now, those whose retry is ripe among the others.
fn line<'a>(state: &'a State, waiting: &'a Waiting, now: Timestamp) -> Line<'a> {
    let ripe = waiting.delayed.iter().take_while(|(at, _)| *at <= now);
    let ripe = ripe.take(RIPE_MAX).filter_map(|(_, id)| state.task(*id));
    let mut ripe: Vec<Place> = ripe.map(|task| (task.standing(now), task.id)).collect();
    ripe.sort_unstable();
    let ready = order::ready(state, waiting, now);
    match ripe.is_empty() {
        true => ready,
        false => order::merged(vec![ready, Box::new(ripe.into_iter())]),
    }
}

/// The next task of a line, in the form that puts the first in order on top of a heap.
fn head((at, line): (usize, &mut Line<'_>)) -> Option<Reverse<(Place, usize)>> {
    line.next().map(|task| Reverse((task, at)))
}
