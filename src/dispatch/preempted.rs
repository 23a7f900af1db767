//! Attempts whose places others have got: their agents are told to end them.
//!
//! What is told follows from the state alone, so a new leader, or a new session, tells it again; the agent hears it as
//! often as it likes.

use model::{Fence, State};

use crate::agents::Agents;
use crate::io::{Cause, Output};

/// Whether this live attempt is to end for another task.
pub(crate) fn yields(state: &State, fence: Fence) -> bool {
    let live = state.task(fence.task).and_then(model::Task::live);
    live.is_some_and(|live| live.preempted_by.is_some())
}

/// Tells the agent of one to end it.
pub(crate) fn send(agents: &Agents, state: &State, fence: Fence, out: &mut Vec<Output>) {
    let live = state.task(fence.task).and_then(model::Task::live);
    let Some(live) = live.filter(|live| live.epoch == fence.epoch) else {
        return;
    };
    let id = agents.session_of(&live.agent, live.incarnation);
    let (Some(by), Some(id)) = (live.preempted_by, id) else {
        return;
    };
    // One that came back as an older release knows no such cause. It is to report the end also of what never came.
    let session = agents.session(id);
    let is_known = session.is_some_and(|session| session.profile.awaits_ends().is_ok());
    let cause = match is_known {
        true => Cause::Preempted,
        false => Cause::Cancelled,
    };
    let reason = format!("task {by} has got its place");
    out.push(Output::cancel(id, fence, cause, reason));
}
