//! Cancelling. A queued task ends at once; a held one ends when its agent has ended it, so that
//! its slot is not given away while the process still runs.

use std::sync::Arc;

use crate::apply::{Outcome, Step};
use crate::command::Reply;
use crate::event::Event;
use crate::id::{Fence, TaskId};
use crate::principal::Principal;
use crate::rejected::Rejected;
use crate::state::State;
use crate::task::{Attempt, Cancellation, Phase};

impl State {
    pub(super) fn cancel(
        &mut self,
        principal: &Principal,
        id: TaskId,
        reason: String,
        step: &mut Step<'_>,
    ) -> Outcome {
        let task = self.tasks.get(&id).ok_or(Rejected::NoSuchTask(id))?;
        let cancel = Cancellation {
            by: principal.name.clone(),
            reason,
        };
        match &task.phase {
            Phase::Queued { .. } => {
                let mut task = task.clone();
                task.phase = Phase::Cancelled(Box::new(cancel));
                self.write_ended(task, step);
            }
            Phase::Assigned {
                attempt,
                cancel: None,
            } => {
                let attempt = Arc::clone(attempt);
                self.request_cancel(id, attempt, cancel, step);
            }
            // Asked for before: the same answer, nothing new.
            Phase::Assigned {
                cancel: Some(_), ..
            }
            | Phase::Cancelled(_) => {}
            Phase::Succeeded
            | Phase::Failed { .. }
            | Phase::Unknown { .. }
            | Phase::DeadLetter { .. } => {
                let state = task.state().as_str().to_owned();
                return Err(Rejected::AlreadyEnded { task: id, state });
            }
        }
        Ok(Reply::Cancelled { task: id })
    }

    fn request_cancel(
        &mut self,
        id: TaskId,
        attempt: Arc<Attempt>,
        cancel: Cancellation,
        step: &mut Step<'_>,
    ) {
        let Some(task) = self.tasks.get(&id) else {
            return;
        };
        let mut task = task.clone();
        step.events.push(Event::CancelRequested {
            fence: Fence {
                task: id,
                generation: self.meta.generation,
                epoch: attempt.epoch,
            },
            agent: attempt.agent.clone(),
            reason: cancel.to_string(),
        });
        task.last_index = step.index;
        task.phase = Phase::Assigned {
            attempt,
            cancel: Some(Box::new(cancel)),
        };
        self.write_task(task);
    }
}
