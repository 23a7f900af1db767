//! What ends by time. The leader proposes; nothing here reads a clock, and what can be checked at
//! this index is checked again.

use crate::agent::AgentState;
use crate::apply::{Outcome, Step};
use crate::command::Reply;
use crate::id::{AgentId, Incarnation, TaskId};
use crate::rejected::Rejected;
use crate::state::State;
use crate::task::Phase;

impl State {
    /// Leases are soft state, so the leader's word counts here; an incarnation that holds nothing
    /// and is not ready has nothing to lose.
    pub(super) fn expire_lease(
        &mut self,
        agent: &AgentId,
        incarnation: Incarnation,
        step: &mut Step<'_>,
    ) -> Outcome {
        let ready = self.agents.get(agent).is_some_and(|known| {
            known.profile.incarnation == incarnation && known.state == AgentState::Ready
        });
        let holds = self.held_under(agent, incarnation).next().is_some();
        if !ready && !holds {
            return Err(Rejected::Stale(format!("agent {agent} is lost already")));
        }
        self.lose_agent(agent, incarnation, step);
        Ok(Reply::Done)
    }

    /// Only for a task that was never assigned: one that comes back for a retry was in time.
    pub(super) fn expire_deadline(&mut self, id: TaskId, step: &mut Step<'_>) -> Outcome {
        let task = self.tasks.get(&id).ok_or(Rejected::NoSuchTask(id))?;
        let waits = matches!(task.phase, Phase::Queued { .. }) && task.attempts == 0;
        if !waits {
            return Err(Rejected::Stale(format!("task {id} has met its deadline")));
        }
        if task.deadline.is_none_or(|deadline| deadline > step.now) {
            return Err(Rejected::Stale(format!("task {id} still has time")));
        }
        let mut task = task.clone();
        task.phase = Phase::Failed {
            reason: "not assigned before its deadline".into(),
        };
        self.write_ended(task, step);
        Ok(Reply::Done)
    }
}
