//! A round of decisions: the queue in its order, each task to the best agent that has room.
//!
//! Tasks with the same requirements fail alike, so a requirement that no agent meets is tried once
//! a round. A round ends when no agent has room, or after [`SCAN_MAX`] tasks.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    Agent, AgentId, Assignment, Expression, Placement, Reason, Scored, State, Task, TaskId,
    TaskSpec, Timestamp, Trace,
};

use crate::filter::{self, Room};
use crate::fleet::Fleet;
use crate::score;

/// Tasks that one round looks at: bounds its time to a few milliseconds.
const SCAN_MAX: usize = 4_096;
/// Runners-up that a trace names; the rest are counts.
const RUNNERS_UP: usize = 2;

/// What a round decided.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    pub assignments: Vec<Assignment>,
    /// The round ended at a bound, not at the end of the queue: those behind were not looked at.
    pub cut: bool,
}

/// Assigns queued tasks, at most `max`, leaving out those in `taken` (decided, not applied yet).
pub fn plan(
    state: &State,
    fleet: &Fleet,
    now: Timestamp,
    taken: &BTreeSet<TaskId>,
    max: usize,
) -> Plan {
    let mut planner = Planner::new(state, fleet);
    planner.round(now, taken, max)
}

/// The rooms of all agents while a round fills them; also places new tasks after the round.
#[derive(Debug)]
pub struct Planner<'a> {
    state: &'a State,
    candidates: BTreeMap<&'a AgentId, (&'a Agent, Room)>,
    /// Agents that can get no work now, by reason.
    refused: BTreeMap<Reason, u32>,
    /// Requirements that no agent with room meets.
    hopeless: BTreeSet<Vec<Expression>>,
}

impl<'a> Planner<'a> {
    pub fn new(state: &'a State, fleet: &Fleet) -> Planner<'a> {
        let mut planner = Planner {
            state,
            candidates: BTreeMap::new(),
            refused: BTreeMap::new(),
            hopeless: BTreeSet::new(),
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
                    planner.candidates.insert(&agent.profile.id, (agent, room));
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
    pub fn round(&mut self, now: Timestamp, taken: &BTreeSet<TaskId>, max: usize) -> Plan {
        let mut plan = Plan::default();
        let state = self.state;
        for (scanned, task) in in_order(state, now).enumerate() {
            if !self.has_room() {
                break;
            }
            if plan.assignments.len() == max || scanned == SCAN_MAX {
                plan.cut = true;
                break;
            }
            if taken.contains(&task.id) {
                continue;
            }
            let Some(spec) = state.spec(task.id) else {
                continue;
            };
            if let Some(placement) = self.place(&spec, task.id.0, &task.lost_agents) {
                plan.assignments.push(Assignment {
                    task: task.id,
                    placement,
                });
            }
        }
        plan
    }

    /// The best agent for a task, whose room it then takes. `seed` breaks ties; `avoided` are
    /// agents that were lost under it: taken only where there is no other.
    pub fn place(&mut self, spec: &TaskSpec, seed: u64, avoided: &[AgentId]) -> Option<Placement> {
        if !self.has_room() || self.hopeless.contains(&spec.require) {
            return None;
        }
        let mut refused = self.refused.clone();
        let mut fitting: Vec<Scored> = Vec::new();
        let mut shunned: Vec<Scored> = Vec::new();
        for (id, (agent, room)) in &self.candidates {
            match filter::fits(agent, spec) {
                Ok(()) if avoided.contains(id) => shunned.push(score::score(id, *room)),
                Ok(()) => fitting.push(score::score(id, *room)),
                Err(reason) => *refused.entry(reason).or_insert(0) += 1,
            }
        }
        if fitting.is_empty() {
            fitting = shunned;
        } else if !shunned.is_empty() {
            let count = u32::try_from(shunned.len()).unwrap_or(u32::MAX);
            refused.insert(Reason::LostBefore, count);
        }
        if fitting.is_empty() {
            self.hopeless.insert(spec.require.clone());
            return None;
        }
        fitting.sort_by_key(|scored| (scored.score, score::tie(seed, &scored.agent)));
        Some(self.take(fitting, refused))
    }

    fn take(&mut self, mut ranked: Vec<Scored>, refused: BTreeMap<Reason, u32>) -> Placement {
        ranked.truncate(1 + RUNNERS_UP);
        let winner = ranked.remove(0);
        let agent = winner.agent.clone();
        let mut incarnation = model::Incarnation::default();
        if let Some((found, room)) = self.candidates.get_mut(&agent) {
            incarnation = found.profile.incarnation;
            room.taken = room.taken.saturating_add(1);
            if room.taken >= room.capacity {
                self.candidates.remove(&agent);
                *self.refused.entry(Reason::NoFreeSlot).or_insert(0) += 1;
            }
        }
        let trace = Trace {
            policy_version: score::POLICY_VERSION,
            winner,
            runners_up: ranked,
            refusals: refused.into_iter().collect(),
        };
        Placement {
            agent,
            incarnation,
            trace,
        }
    }
}

/// Queued tasks that may go now: by class, then age, those whose retry is ripe among the others.
fn in_order(state: &State, now: Timestamp) -> impl Iterator<Item = &Task> {
    let mut ripe: Vec<&Task> = state
        .delayed()
        .take_while(|(at, _)| *at <= now)
        .take(SCAN_MAX)
        .map(|(_, task)| task)
        .collect();
    ripe.sort_by_key(|task| (task.class, task.id));
    let mut ripe = ripe.into_iter().peekable();
    let mut ready = state.queue().peekable();
    std::iter::from_fn(move || match (ready.peek(), ripe.peek()) {
        (Some(a), Some(b)) if (b.class, b.id) < (a.class, a.id) => ripe.next(),
        (Some(_), _) => ready.next(),
        (None, _) => ripe.next(),
    })
}
