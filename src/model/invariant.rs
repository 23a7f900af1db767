//! What must hold of every state, whatever was applied. Tests call it after each entry.

use std::collections::{BTreeMap, BTreeSet};

use crate::agent::Agent;
use crate::apply::submit::request_of_task;
use crate::blob::BlobDigest;
use crate::id::TaskId;
use crate::limit;
use crate::principal::Role;
use crate::resource::{Demand, Gpus};
use crate::state::State;
use crate::task::{Attempt, Phase, Task};

/// Every violation, in words; none where the state is sound.
pub fn check(state: &State) -> Vec<String> {
    let mut found = Vec::new();
    for task in state.tasks.iter().map(|(_, task)| task) {
        check_task(state, task, &mut found);
        check_request(state, task, &mut found);
        check_attempts(state, task, &mut found);
    }
    for agent in state.agents() {
        check_agent(state, agent, &mut found);
        check_supply(state, agent, &mut found);
    }
    check_orphans(state, &mut found);
    check_archive(state, &mut found);
    check_blobs(state, &mut found);
    check_tokens(state, &mut found);
    check_quotas(state, &mut found);
    check_rules(state, &mut found);
    if state.index != state.rebuilt_index() {
        found.push("the indexes differ from the records".into());
    }
    if state.hash() != state.recompute_hash() {
        found.push("the incremental hash differs from the records".into());
    }
    found
}

/// Each says something of its own.
fn check_rules(state: &State, found: &mut Vec<String>) {
    let rules: Vec<_> = state.rules().collect();
    if rules.len() > limit::RULES_MAX {
        found.push(format!("there are {} rules", rules.len()));
    }
    for (place, rule) in rules.iter().enumerate() {
        let mut others = rules[..place].iter();
        if let Some(other) = others.find(|it| it.asked.is_about_the_same(&rule.asked)) {
            found.push(format!("{} and {} are one rule", other.id, rule.id));
        }
    }
}

/// Registered with fewer slots it may hold more than they are, but nothing is added to that.
fn check_agent(state: &State, agent: &Agent, found: &mut Vec<String>) {
    let id = &agent.profile.id;
    let capacity = agent.profile.slots.saturating_add(limit::PREFETCH_MAX);
    let busy = state.slots_taken(id);
    let assigned_since = state
        .held_by(id)
        .filter_map(Task::live)
        .any(|live| live.epoch.0 > agent.registered_index);
    if busy > capacity && assigned_since {
        found.push(format!("{id} holds {busy} of {capacity}"));
    }
}

/// The same of what the agent has beyond slots. What was assigned since it registered had room in each dimension that it
/// asks for; nothing has been added since.
fn check_supply(state: &State, agent: &Agent, found: &mut Vec<String>) {
    let id = &agent.profile.id;
    let Some(supply) = &agent.profile.supply else {
        return;
    };
    let (mut all, mut since) = (Vec::new(), Vec::new());
    for task in state.held_by(id) {
        let (Some(live), Some(spec)) = (task.live(), state.specs.get(&task.id)) else {
            continue;
        };
        if live.preempted_by.is_some() {
            continue;
        }
        let one = (spec.demand(), live.gpus.clone());
        if live.epoch.0 > agent.registered_index {
            since.push(one.clone());
        }
        all.push(one);
    }
    let sums = |demands: &[(Demand, Gpus)]| {
        let each = demands.iter();
        each.fold((0, 0), |(cpu, memory), (demand, _)| {
            (
                cpu + u64::from(demand.cpu_milli),
                memory + demand.memory_mib,
            )
        })
    };
    let ((cpu, memory), (cpu_since, memory_since)) = (sums(&all), sums(&since));
    for (what, given, added, most) in [
        ("processors", cpu, cpu_since, supply.cpu_milli.into()),
        ("memory", memory, memory_since, supply.memory_mib),
    ] {
        if given > most && added > 0 {
            found.push(format!("{id} gives {given} of {most} of its {what}"));
        }
    }
    for (place, vram) in (0u16..).zip(&supply.gpus) {
        let on = |(_, gpus): &&(Demand, Gpus)| gpus.contains(&place);
        let whole = all.iter().filter(on).filter(|(it, _)| it.gpus > 0).count();
        let shares = all.iter().filter(on).filter(|(it, _)| it.gpus == 0);
        let shared: u64 = shares.clone().map(|(demand, _)| demand.vram_mib).sum();
        let is_sound = whole <= 1 && (whole == 0 || shares.count() == 0) && shared <= *vram;
        if !is_sound && since.iter().any(|it| on(&it)) {
            found.push(format!(
                "{id} gives more than all of its GPU {place}: {all:?}"
            ));
        }
    }
    for (demand, gpus) in &since {
        let asked = match (demand.gpus, demand.vram_mib) {
            (0, 0) => 0,
            (0, _) => 1,
            (gpus, _) => gpus as usize,
        };
        let has = |place: &u16| supply.gpus.get(usize::from(*place)).copied();
        let small = gpus
            .iter()
            .any(|it| has(it).is_none_or(|it| it < demand.vram_mib));
        if gpus.len() != asked || small {
            found.push(format!(
                "{id} gives GPUs {gpus:?} to what asks for {demand:?}"
            ));
        }
    }
}

fn check_task(state: &State, task: &Task, found: &mut Vec<String>) {
    if task.id > state.meta.last_task {
        found.push(format!("{} has an id that was not given yet", task.id));
    }
    if state.specs.get(&task.id).is_none() {
        found.push(format!("{} has no spec", task.id));
    }
    if task.is_terminal() != task.ended.is_some() {
        found.push(format!(
            "{} is {} but its end says otherwise",
            task.id,
            task.state().as_str()
        ));
    }
    let mut lost = task.lost_agents.clone();
    lost.sort();
    lost.dedup();
    if lost.len() != task.lost_agents.len() || lost.len() > limit::LOST_AGENTS_MAX as usize {
        found.push(format!("{} lost {:?}", task.id, task.lost_agents));
    }
}

fn check_request(state: &State, task: &Task, found: &mut Vec<String>) {
    let spec = state.specs.get(&task.id);
    let key = spec.and_then(|spec| request_of_task(task, &spec.namespace));
    let known = key.map(|key| state.requests.get(&key).map(|request| request.task));
    if known.is_some_and(|known| known != Some(task.id)) {
        found.push(format!("{} can't be found by its request id", task.id));
    }
}

fn check_attempts(state: &State, task: &Task, found: &mut Vec<String>) {
    let Some(attempt) = task.latest.as_deref() else {
        if task.attempts > 0 {
            found.push(format!("{} lost sight of its attempts", task.id));
        }
        return;
    };
    if attempt.epoch.0 > state.last_applied() {
        found.push(format!("{} has an epoch from the future", task.id));
    }
    if let Phase::Assigned { attempt: live, .. } = &task.phase {
        if **live != *attempt {
            found.push(format!("{} has two attempts", task.id));
        }
        if task.settled == Some(live.epoch) {
            found.push(format!("{} runs under an epoch that was settled", task.id));
        }
    }
    check_once(state, task, attempt, found);
}

fn check_once(state: &State, task: &Task, latest: &Attempt, found: &mut Vec<String>) {
    let at_most_once = state
        .specs
        .get(&task.id)
        .is_some_and(|spec| spec.at_most_once);
    if at_most_once && task.attempts > 1 {
        found.push(format!("{} was begun {} times", task.id, task.attempts));
    }
    if let Phase::Unknown { attempt, .. } = &task.phase {
        if !at_most_once {
            found.push(format!("{} is unknown, but may be tried again", task.id));
        }
        if **attempt != *latest {
            found.push(format!("{} waits for the end of another attempt", task.id));
        }
    }
}

/// Segments follow each other, and nothing before the first is said to be kept.
fn check_archive(state: &State, found: &mut Vec<String>) {
    let mut from = state.archived_from();
    for segment in state.all_segments() {
        if segment.first < from || segment.first >= segment.end {
            found.push(format!("segment {segment:?} begins before {from}"));
        }
        from = segment.end;
    }
}

/// What the records in memory name is counted, and nothing is kept that nobody names.
fn check_blobs(state: &State, found: &mut Vec<String>) {
    let mut named: BTreeMap<BlobDigest, u64> = BTreeMap::new();
    let of_specs = state.specs.iter().flat_map(|(_, spec)| spec.blob_refs());
    let of_results = state.results.iter().flat_map(|(_, it)| it.blob_refs());
    for blob in of_specs.chain(of_results) {
        *named.entry(blob.digest).or_default() += 1;
    }
    for digest in named.keys().filter(|digest| !state.has_blob(digest)) {
        found.push(format!("blob {digest} is named, and not known"));
    }
    for (digest, blob) in state.blobs.iter() {
        let held = named.get(digest).copied().unwrap_or(0);
        if held != blob.held {
            found.push(format!("blob {digest} is named {held} times: {blob:?}"));
        }
        let mut segments = state.all_segments().map(|segment| segment.first);
        let kept = blob
            .segment
            .is_some_and(|it| segments.any(|first| first == it));
        if blob.segment.is_some() != kept || held == 0 && !kept {
            found.push(format!("blob {digest} is named nowhere: {blob:?}"));
        }
    }
}

fn check_tokens(state: &State, found: &mut Vec<String>) {
    for token in state.join_tokens() {
        let id = &token.asked.id;
        if token.admitted.len() > token.asked.uses as usize {
            found.push(format!("join token {id} let in more than it may"));
        }
        let keys: BTreeSet<_> = token.admitted.iter().map(|one| &one.name).collect();
        if token.asked.role == Role::Controller && keys.len() != token.admitted.len() {
            found.push(format!("join token {id} gave a controller's id twice"));
        }
    }
}

/// No namespace has more at once than it may.
fn check_quotas(state: &State, found: &mut Vec<String>) {
    for (namespace, settings) in state.set_namespaces() {
        let (_, running) = state.load(namespace);
        if settings.max_running > 0 && running > settings.max_running {
            found.push(format!("{running} tasks of {namespace} run: {settings:?}"));
        }
    }
}

fn check_orphans(state: &State, found: &mut Vec<String>) {
    for (agent, _) in state.holders() {
        if state.agent(agent).is_none() {
            found.push(format!("{agent}, which is gone, holds attempts"));
        }
    }
    let gone = |id: &TaskId| state.tasks.get(id).is_none();
    for (id, _) in state.specs.iter().filter(|(id, _)| gone(id)) {
        found.push(format!("the spec of {id}, which is gone, is kept"));
    }
    for (id, _) in state.results.iter().filter(|(id, _)| gone(id)) {
        found.push(format!("the result of {id}, which is gone, is kept"));
    }
    for (_, request) in state.requests.iter() {
        if gone(&request.task) != request.left.is_some() {
            found.push(format!(
                "a request id says otherwise than the tasks where {} is",
                request.task
            ));
        }
    }
}
