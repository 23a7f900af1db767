//! What was sent ahead of a free slot, and waits there behind what is not as short as attempts were there before: it is asked
//! back, for another agent may have a slot sooner.
//!
//! The agent alone knows which of its attempts has not begun, so all are asked for that are there for long; those that have
//! begun go on. One that may be assigned only once stays: given back, it would end for good. So does one that has been given
//! back before: it would have to wait a while.

use model::{Agent, Fence, Phase, State, Task, Timestamp};

use crate::agents::{Agents, SHORT};
use crate::io::{Cause, Output};

/// Asks for what is there for long, each once on a session.
pub(crate) fn recall(agents: &mut Agents, state: &State, now: Timestamp, out: &mut Vec<Output>) {
    for agent in state.agents() {
        let (id, slots) = (&agent.profile.id, agent.profile.slots);
        if state.slots_taken(id) <= slots {
            continue;
        }
        let Some(session) = agents.ready_session(id, agent.profile.incarnation) else {
            continue;
        };
        for fence in waiting(state, agent, now) {
            if agents.asks_back(id, fence) {
                let reason =
                    format!("the slots of agent {id} are taken for longer than was thought");
                out.push(Output::cancel(session, fence, Cause::Recalled, reason));
            }
        }
    }
}

/// Those of which one may not have begun, and has waited.
fn waiting(state: &State, agent: &Agent, now: Timestamp) -> Vec<Fence> {
    let held = state.held_under(&agent.profile.id, agent.profile.incarnation);
    let held: Vec<&Task> = held.collect();
    // Who waits for the place of another does not wait for a slot.
    let yields = |task: &&Task| task.live().is_some_and(|it| it.preempted_by.is_some());
    if held.iter().any(yields) {
        return Vec::new();
    }
    let old = held.into_iter().filter(|task| {
        let may_go = matches!(task.phase, Phase::Assigned { cancel: None, .. });
        let is_old = task.live().is_some_and(|it| {
            let since = it.since;
            since.0 > 0 && now.since(since) >= SHORT
        });
        let is_first = task.given_back() == 0;
        let repeats = state.spec(task.id).is_some_and(|spec| !spec.at_most_once);
        may_go && is_old && is_first && repeats
    });
    old.filter_map(|task| state.live_fence(task.id)).collect()
}
