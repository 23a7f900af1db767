//! What was sent ahead of a free slot, and waits there behind what is not as short as attempts were there before: it is asked
//! back, for another agent may have a slot sooner.
//!
//! The agent alone knows whether it has begun meanwhile, and goes on with it then. One that may be assigned only once stays:
//! given back, it would end for good.

use model::{Agent, Fence, Millis, State};

use crate::agents::Agents;
use crate::io::{Cause, Output};

/// Asks for it; told again, an agent hears it as often as it likes.
pub(crate) fn recall(agents: &Agents, state: &State, now: Millis, out: &mut Vec<Output>) {
    for (id, known) in agents.iter() {
        let waiting = state.agent(id).and_then(|agent| {
            let fence = known.waits_ahead(agent.profile.slots, now)?;
            may_go_back(state, agent, fence).then_some((agent, fence))
        });
        let Some((agent, fence)) = waiting else {
            continue;
        };
        if let Some(session) = agents.ready_session(id, agent.profile.incarnation) {
            let reason = format!("the slots of agent {id} are taken for longer than was thought");
            out.push(Output::cancel(session, fence, Cause::Recalled, reason));
        }
    }
}

fn may_go_back(state: &State, agent: &Agent, fence: Fence) -> bool {
    let id = &agent.profile.id;
    let is_live = state.live_fence(fence.task) == Some(fence);
    let spec = state.spec(fence.task);
    // One that waits for the place of another does not wait for a slot.
    let yields = |task: &model::Task| task.live().is_some_and(|it| it.preempted_by.is_some());
    is_live && spec.is_some_and(|spec| !spec.at_most_once) && !state.held_by(id).any(yields)
}
