//! What must hold of every state, whatever was applied. Tests call it after each entry.

use crate::limit;
use crate::state::State;
use crate::task::{Phase, Task};

/// Every violation, in words; none where the state is sound.
pub fn check(state: &State) -> Vec<String> {
    let mut found = Vec::new();
    for task in state.tasks.iter().map(|(_, task)| task) {
        check_task(state, task, &mut found);
    }
    for agent in state.agents() {
        let capacity = agent.profile.slots.saturating_add(limit::PREFETCH_MAX);
        let current = state
            .held_by(&agent.profile.id)
            .filter_map(Task::live)
            .filter(|live| live.incarnation == agent.profile.incarnation);
        let busy = current.count();
        if busy > capacity as usize && agent.registered_index > 0 {
            found.push(format!("{} holds {busy} of {capacity}", agent.profile.id));
        }
    }
    if state.index != state.rebuilt_index() {
        found.push("the indexes differ from the tasks".into());
    }
    if state.hash() != state.recompute_hash() {
        found.push("the incremental hash differs from the records".into());
    }
    for (_, request) in state.requests.iter() {
        if state.task(request.task).is_none() {
            found.push(format!(
                "a request id names {}, which is gone",
                request.task
            ));
        }
    }
    found
}

fn check_task(state: &State, task: &Task, found: &mut Vec<String>) {
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
    let Some(attempt) = &task.latest else {
        if task.attempts > 0 {
            found.push(format!("{} lost sight of its attempts", task.id));
        }
        return;
    };
    if attempt.epoch.0 > state.last_applied() {
        found.push(format!("{} has an epoch from the future", task.id));
    }
    if let Phase::Assigned { attempt: live, .. } = &task.phase {
        if live != attempt {
            found.push(format!("{} has two attempts", task.id));
        }
        if task.settled == Some(live.epoch) {
            found.push(format!("{} runs under an epoch that was settled", task.id));
        }
    }
    let at_most_once = state
        .specs
        .get(&task.id)
        .is_some_and(|spec| spec.at_most_once);
    if at_most_once && task.attempts > 1 {
        found.push(format!("{} was begun {} times", task.id, task.attempts));
    }
}
