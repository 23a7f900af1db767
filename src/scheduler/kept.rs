//! Agents that are kept free for tasks which ask for much.
//!
//! A task that asks for all GPUs of a machine would wait for ever where smaller ones take each GPU that comes free. So who
//! has waited for longer than its class waits ([`Class::patience`]), while nothing of its line runs, is given an agent that takes nothing else until it has run
//! empty enough; tasks of higher classes alone go there all the same. Which agent follows from the state: the one that lacks least,
//! and as it is given nothing, it stays that.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    Agent, AgentId, Class, Mix, QueueKey, Reason, State, Supply, Taken, Task, TaskId, TaskSpec,
    Timestamp,
};

use crate::filter;
use crate::fleet::Fleet;
use crate::health::{Asked, Machines};
use crate::order;
use crate::rules::{RuleSet, Rules};

/// Queues that are looked at.
const QUEUES_MAX: usize = 16_384;
/// Of so many agents one may be kept, or one of fewer.
const SHARE: usize = 4;
/// Agents that are kept at a time, and tasks for which one is looked for: they bound what a round costs.
const KEPT_MAX: usize = 32;
const TRIES: usize = 128;

/// A task for which an agent is kept, and the class with which it goes.
pub type Holder = (Class, TaskId);

/// For whom each agent is kept.
pub fn kept(
    state: &State,
    fleet: &Fleet,
    (rules, machines): (&Rules<'_>, &Machines<'_>),
    now: Timestamp,
) -> BTreeMap<AgentId, Holder> {
    let mut waiting = overdue(state, fleet, now);
    if waiting.is_empty() {
        return BTreeMap::new();
    }
    let served = served(state);
    waiting.retain(|(_, id)| line_of(state, *id).is_some_and(|line| !served.contains(&line)));
    waiting.sort_unstable();
    let agents: Vec<Open<'_>> = open(state, fleet, rules).collect();
    let most = (state.agents().count() / SHARE + 1).min(KEPT_MAX);
    let mut kept = BTreeMap::new();
    let mut closed: BTreeSet<RuleSet> = BTreeSet::new();
    let mut tries = 0;
    // Some could run nowhere: they take no place from those behind them. Nor do those to which rules leave no agent that
    // is not kept yet.
    for holder in waiting {
        if kept.len() == most || tries == TRIES {
            break;
        }
        let (Some(spec), Some(task)) = (state.spec(holder.1), state.task(holder.1)) else {
            continue;
        };
        let concerning = rules.concerning(&spec.namespace, spec.kind());
        if closed.contains(&concerning) {
            continue;
        }
        let free = agents.iter().filter(|it| !kept.contains_key(it.id()));
        let mut free = free
            .filter(|it| it.obeys(rules, concerning).is_ok())
            .peekable();
        if free.peek().is_none() {
            closed.insert(concerning);
            continue;
        }
        tries += 1;
        // One that is held back may not have it, while an idle one could.
        let asked = Asked::of((rules, concerning), &spec);
        let is_for_idle_ones = machines.is_for_idle_ones(&asked);
        let free = free.filter(|it| !(is_for_idle_ones && machines.is_hot(it.id())));
        let lacking = free.filter_map(|agent| Some((agent.lacks(&spec, task)?, agent.id())));
        if let Some((_, agent)) = lacking.min() {
            kept.insert(agent.clone(), holder);
        }
    }
    kept
}

/// The first task of each line that asks for something and has waited for too long, with the class that it goes with.
fn overdue(state: &State, fleet: &Fleet, now: Timestamp) -> Vec<Holder> {
    let queues = state.demanding_queues().take(QUEUES_MAX);
    let firsts = queues.filter_map(|(key, waiting)| {
        let mut line = order::line(state, (&key.tenant, waiting), now, order::RIPE_MAX);
        let (precedence, id) = line.next()?;
        let (task, spec) = (state.task(id)?, state.spec(id)?);
        // Of one that comes back, from its last try on.
        let tried = task.latest.as_ref().map(|attempt| attempt.since);
        let waited = now.since(task.waits_since.max(tried.unwrap_or_default()));
        let waits = task.waits_since.0 > 0 && waited >= task.class.patience();
        let may_go = state.running_left(&spec.namespace) != Some(0);
        let holder = (precedence.class.min(task.class.after(waited)), id);
        (waits && may_go && fleet.lacked_by(&spec).is_none()).then_some(holder)
    });
    firsts.collect()
}

fn line_of(state: &State, id: TaskId) -> Option<QueueKey> {
    let spec = state.spec(id)?;
    let tenant = state.task(id)?.tenant(&spec);
    Some(QueueKey::of(&spec, tenant))
}

/// The lines of which something runs: however long those behind it have waited, they move on.
fn served(state: &State) -> BTreeSet<QueueKey> {
    let asking = state
        .agents()
        .filter(|it| state.taken(&it.profile.id).is_some());
    let held = asking.flat_map(|agent| state.held_by(&agent.profile.id));
    held.filter_map(|task| line_of(state, task.id)).collect()
}

/// An agent that could be kept.
struct Open<'a> {
    agent: &'a Agent,
    supply: &'a Supply,
    taken: Taken,
    busy: u32,
    /// The rules by hand that name it.
    naming: RuleSet,
    /// What it holds, and was given since.
    mixes: [Option<&'a Mix>; 2],
}

fn open<'a>(
    state: &'a State,
    fleet: &'a Fleet,
    rules: &'a Rules<'_>,
) -> impl Iterator<Item = Open<'a>> {
    state.agents().filter_map(move |agent| {
        let view = fleet.agents.get(&agent.profile.id)?;
        filter::is_open(agent, view).ok()?;
        Some(Open {
            agent,
            supply: agent.profile.supply.as_ref()?,
            taken: filter::taken(state, agent, view),
            busy: filter::room(state, agent, view).taken,
            naming: rules.naming(&agent.profile),
            mixes: [state.mix(&agent.profile.id), Some(&view.reserved.mix)],
        })
    })
}

impl Open<'_> {
    fn id(&self) -> &AgentId {
        &self.agent.profile.id
    }

    fn obeys(&self, rules: &Rules<'_>, concerning: RuleSet) -> Result<(), Reason> {
        rules.obeyed(concerning, self.naming, self.mixes)
    }

    /// How much it lacks to run a task, if it could ever: resources in thousandths of what is asked for, then attempts.
    fn lacks(&self, spec: &TaskSpec, task: &Task) -> Option<(bool, u64, u32)> {
        let demand = spec.demand();
        filter::fits(self.agent, &spec.require).ok()?;
        self.agent.profile.understands(spec).ok()?;
        model::could(Some(self.supply), &demand).ok()?;
        let was_lost = task.lost_agents.contains(self.id());
        Some((was_lost, self.supply.lacks(&self.taken, &demand), self.busy))
    }
}
