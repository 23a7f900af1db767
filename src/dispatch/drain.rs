//! An agent that is to be empty is asked for what it holds: first for what has not begun, and once its
//! time is up for all of it.
//!
//! What is asked for follows from the state alone, so a new leader, or a new session, asks again; the
//! agent hears it as often as it likes. Whether an attempt has begun is the agent's to say. One that may
//! be assigned only once is left where it is until the time is up: given back, it would end for good.

use model::{AgentId, DrainStage, Phase, State, Task};

use crate::agents::Agents;
use crate::io::{Cause, Output};

/// Asks an agent that is being drained for what it holds, as far as it has come.
pub(crate) fn send(agents: &Agents, state: &State, agent: &AgentId, out: &mut Vec<Output>) {
    let Some(drain) = state.agent(agent).and_then(model::Agent::drain) else {
        return;
    };
    for task in state.held_by(agent) {
        let Some(cause) = cause(state, task, drain.stage) else {
            continue;
        };
        let live = task.live();
        let session = live.and_then(|live| agents.ready_session(agent, live.incarnation));
        let (Some(fence), Some(session)) = (state.live_fence(task.id), session) else {
            continue;
        };
        let reason = format!("agent {agent} is being drained");
        out.push(Output::cancel(session, fence, cause, reason));
    }
}

fn cause(state: &State, task: &Task, stage: DrainStage) -> Option<Cause> {
    // Its end was asked for already, and is final.
    let cancelled = matches!(
        task.phase,
        Phase::Assigned {
            cancel: Some(_),
            ..
        }
    );
    let once = state.spec(task.id).is_none_or(|spec| spec.at_most_once);
    if cancelled {
        return None;
    }
    match stage {
        DrainStage::Waiting if once => None,
        DrainStage::Waiting => Some(Cause::Recalled),
        DrainStage::Overdue => Some(Cause::Evicted),
    }
}
