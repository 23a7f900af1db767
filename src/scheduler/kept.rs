//! Agents that are kept free for tasks which ask for much.
//!
//! A task that asks for all GPUs of a machine would wait for ever where smaller ones take each GPU that comes free. So who
//! has waited for longer than its class waits ([`patience`]) is given an agent that takes nothing else until it has run
//! empty enough; tasks of higher classes alone go there all the same. Which agent follows from the state: the one that lacks least,
//! and as it is given nothing, it stays that.

use std::collections::BTreeMap;

use model::{Agent, AgentId, Class, Millis, State, Task, TaskId, TaskSpec, Timestamp};

use crate::filter::{self, Room};
use crate::fleet::{AgentView, Fleet};
use crate::order;

/// For who does not rise: somebody waits for it.
const SHORT_PATIENCE: Millis = Millis(60_000);
/// Queues that are looked at.
const QUEUES_MAX: usize = 16_384;
/// Of so many agents one may be kept, or one of fewer.
const SHARE: usize = 4;

/// For how long a task waits before an agent is kept free for it.
pub fn patience(class: Class) -> Millis {
    class.rise().map_or(SHORT_PATIENCE, |(longest, _)| longest)
}

/// A task for which an agent is kept, and the class with which it goes.
pub type Holder = (Class, TaskId);

/// For whom each agent is kept.
pub fn kept(state: &State, fleet: &Fleet, now: Timestamp) -> BTreeMap<AgentId, Holder> {
    let mut waiting = overdue(state, fleet, now);
    if waiting.is_empty() {
        return BTreeMap::new();
    }
    waiting.sort_unstable();
    let most = state.agents().count() / SHARE + 1;
    let mut kept = BTreeMap::new();
    for holder in waiting.into_iter().take(most) {
        let (_, id) = holder;
        let (Some(spec), Some(task)) = (state.spec(id), state.task(id)) else {
            continue;
        };
        let free = state
            .agents()
            .filter(|it| !kept.contains_key(&it.profile.id));
        let lacking = free.filter_map(|agent| lack(state, fleet, (agent, &spec, task)));
        if let Some((_, agent)) = lacking.min() {
            kept.insert(agent.clone(), holder);
        }
    }
    kept
}

/// The first task of each line that asks for something and has waited for too long, with the class that it goes with.
fn overdue(state: &State, fleet: &Fleet, now: Timestamp) -> Vec<Holder> {
    let queues = state.queues_behind(None).take(QUEUES_MAX);
    let asking = queues.filter(|(key, _)| !key.requirement.demand.is_nothing());
    let firsts = asking.filter_map(|(key, waiting)| {
        let mut line = order::line(state, (&key.tenant, waiting), now, order::RIPE_MAX);
        let first = line.next()?;
        let (task, spec) = (state.task(first.1)?, state.spec(first.1)?);
        let waits = task.waits_since.0 > 0 && now.since(task.waits_since) >= patience(task.class);
        let may_go = state.running_left(&spec.namespace) != Some(0);
        (waits && may_go && fleet.lacked_by(&spec).is_none()).then_some(first)
    });
    firsts.collect()
}

/// How much an agent lacks to run a task, if it could ever: resources in thousandths of what is asked for, then attempts.
fn lack<'a>(
    state: &State,
    fleet: &Fleet,
    (agent, spec, task): (&'a Agent, &TaskSpec, &Task),
) -> Option<((bool, u64, u32), &'a AgentId)> {
    const EMPTY: Room = Room {
        slots: 1,
        taken: 0,
        capacity: 1,
    };
    let profile = &agent.profile;
    let unknown = AgentView::default();
    let view = fleet.agents.get(&profile.id).unwrap_or(&unknown);
    let supply = profile.supply.as_ref()?;
    filter::fits(agent, &spec.require).ok()?;
    profile.understands(spec).ok()?;
    model::could(Some(supply), &spec.demand()).ok()?;
    filter::accepts_work(agent, view, EMPTY).ok()?;
    let taken = filter::taken(state, agent, view);
    let busy = filter::room(state, agent, view).taken;
    let was_lost = task.lost_agents.contains(&profile.id);
    Some((
        (was_lost, supply.lacks(&taken, &spec.demand()), busy),
        &profile.id,
    ))
}
