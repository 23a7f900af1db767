//! Wakes those who wait for a task, and remembers which attempts run.
//!
//! Whoever waits registers under its one task, so an applied event costs one look-up and wakes
//! only those that asked for it. A bell that rings says "look again", never what happened: the
//! waiter reads the applied state, so no ring can be lost, repeated or stale.
//!
//! Which attempts run is soft state that agents report to every controller; the log knows only
//! assignments and ends. An entry leaves with the event that ends its attempt.
//!
//! A snapshot that replaces the state brings no events. [`Hub::recheck`] finds what was missed then.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::{AgentId, Epoch, Event, Fence, State, TaskId};
use tokio::sync::Notify;

/// What a waiter wants to be woken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wants {
    /// The end of the task.
    End,
    /// Every step of it.
    Change,
}

#[derive(Debug)]
struct Waiter {
    wants: Wants,
    bell: Arc<Notify>,
}

/// Waiters by task, and the attempts that run.
#[derive(Debug, Default)]
pub struct Hub {
    waiters: Mutex<HashMap<TaskId, Vec<Waiter>>>,
    running: Mutex<HashMap<TaskId, Epoch>>,
}

/// A registration; it ends when dropped.
#[derive(Debug)]
pub struct Interest {
    hub: Arc<Hub>,
    task: TaskId,
    bell: Arc<Notify>,
}

impl Interest {
    /// Until the bell has rung since the last call (or since the registration).
    pub async fn rung(&self) {
        self.bell.notified().await;
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        let mut waiters = locked(&self.hub.waiters);
        if let Entry::Occupied(mut entry) = waiters.entry(self.task) {
            entry
                .get_mut()
                .retain(|waiter| !Arc::ptr_eq(&waiter.bell, &self.bell));
            if entry.get().is_empty() {
                entry.remove();
            }
        }
    }
}

/// Waiting.
impl Hub {
    /// Registers first, so that the caller may then look at the state without missing a step.
    pub fn watch(self: &Arc<Hub>, task: TaskId, wants: Wants) -> Interest {
        let bell = Arc::new(Notify::new());
        let waiter = Waiter {
            wants,
            bell: Arc::clone(&bell),
        };
        locked(&self.waiters).entry(task).or_default().push(waiter);
        Interest {
            hub: Arc::clone(self),
            task,
            bell,
        }
    }

    /// After `events` were applied.
    pub fn applied(&self, events: &[Event]) {
        self.forget_ended(events);
        let waiters = locked(&self.waiters);
        if waiters.is_empty() {
            return;
        }
        for event in events {
            if let Some((task, happened)) = step_of(event) {
                ring(&waiters, task, happened);
            }
        }
    }

    /// Rings for every task that has ended and for all that want changes. For what was applied
    /// without events.
    pub fn recheck(&self, state: &State) {
        for (task, waiters) in locked(&self.waiters).iter() {
            let ended = state.task(*task).is_none_or(model::Task::is_terminal);
            let due = waiters
                .iter()
                .filter(|waiter| ended || waiter.wants == Wants::Change);
            due.for_each(|waiter| waiter.bell.notify_one());
        }
        locked(&self.running).retain(|task, epoch| {
            *epoch > Epoch(state.last_applied())
                || state
                    .live_fence(*task)
                    .is_some_and(|live| live.epoch == *epoch)
        });
    }

    pub fn waiting(&self) -> usize {
        locked(&self.waiters).len()
    }
}

/// Running.
impl Hub {
    /// An agent says that this attempt runs. `view` gives the newest applied state; it is read
    /// under our lock, so that the event that ends the attempt can't come in between.
    pub fn started(&self, agent: &AgentId, fence: Fence, view: impl FnOnce() -> Arc<State>) {
        let fresh = {
            let mut running = locked(&self.running);
            if running.get(&fence.task) == Some(&fence.epoch) {
                return;
            }
            let may_run = may_run(&view(), agent, fence);
            if may_run && running.len() < model::TASKS_MAX {
                running.insert(fence.task, fence.epoch);
            }
            may_run
        };
        if fresh {
            ring(&locked(&self.waiters), fence.task, Wants::Change);
        }
    }

    /// Whether the task's live attempt is known to run.
    pub fn is_running(&self, task: &model::Task) -> bool {
        let Some(live) = task.live() else {
            return false;
        };
        locked(&self.running).get(&task.id) == Some(&live.epoch)
    }

    pub fn running(&self) -> usize {
        locked(&self.running).len()
    }

    fn forget_ended(&self, events: &[Event]) {
        let mut running = None;
        for event in events {
            if let Event::AttemptEnded { fence, .. } = event {
                let running = running.get_or_insert_with(|| locked(&self.running));
                if running.get(&fence.task) == Some(&fence.epoch) {
                    running.remove(&fence.task);
                }
            }
        }
    }
}

/// It is the agent's own live attempt, or one that this replica has not applied yet.
fn may_run(state: &State, agent: &AgentId, fence: Fence) -> bool {
    if fence.generation != state.generation() {
        return false;
    }
    let live = state.task(fence.task).and_then(model::Task::live);
    fence.epoch > Epoch(state.last_applied())
        || live.is_some_and(|live| live.epoch == fence.epoch && live.agent == *agent)
}

fn ring(waiters: &HashMap<TaskId, Vec<Waiter>>, task: TaskId, happened: Wants) {
    for waiter in waiters.get(&task).into_iter().flatten() {
        if happened == Wants::End || waiter.wants == Wants::Change {
            waiter.bell.notify_one();
        }
    }
}

/// The task that an event is about, and whether it ended.
fn step_of(event: &Event) -> Option<(TaskId, Wants)> {
    match event {
        Event::TaskEnded { task, .. } => Some((*task, Wants::End)),
        Event::TaskQueued { task } | Event::TaskRequeued { task } => Some((*task, Wants::Change)),
        Event::TaskAssigned { fence, .. } | Event::CancelRequested { fence, .. } => {
            Some((fence.task, Wants::Change))
        }
        Event::AttemptEnded { .. }
        | Event::AgentRegistered { .. }
        | Event::AgentLost { .. }
        | Event::TasksForgotten { .. } => None,
    }
}

/// Nothing that holds these locks can panic half-way through a change.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use model::{Generation, StateName};

    use super::*;

    const TASK: TaskId = TaskId(7);

    fn fence(epoch: u64) -> Fence {
        Fence {
            task: TASK,
            generation: Generation(0),
            epoch: Epoch(epoch),
        }
    }

    fn agent() -> AgentId {
        AgentId::new("a1").unwrap()
    }

    fn ended() -> Event {
        Event::TaskEnded {
            task: TASK,
            state: StateName::Succeeded,
        }
    }

    fn rang(interest: &Interest) -> bool {
        interest.rung().now_or_never().is_some()
    }

    #[test]
    fn a_bell_rings_for_its_own_task_and_only_for_what_was_wanted() {
        let hub = Arc::new(Hub::default());
        let end = hub.watch(TASK, Wants::End);
        let change = hub.watch(TASK, Wants::Change);
        let other = hub.watch(TaskId(8), Wants::Change);
        hub.applied(&[Event::TaskRequeued { task: TASK }]);
        assert!(!rang(&end) && rang(&change) && !rang(&other));
        hub.applied(&[ended()]);
        assert!(rang(&end) && rang(&change) && !rang(&other));
        assert!(!rang(&end), "one event rings once");
    }

    #[test]
    fn a_ring_before_the_wait_is_not_lost() {
        let hub = Arc::new(Hub::default());
        let end = hub.watch(TASK, Wants::End);
        hub.applied(&[ended()]);
        assert!(rang(&end));
    }

    #[test]
    fn a_dropped_interest_leaves_nothing_behind() {
        let hub = Arc::new(Hub::default());
        let first = hub.watch(TASK, Wants::End);
        let second = hub.watch(TASK, Wants::End);
        drop(first);
        assert_eq!(hub.waiting(), 1);
        drop(second);
        assert_eq!(hub.waiting(), 0);
    }

    #[test]
    fn an_attempt_that_has_ended_does_not_run_again_because_of_a_late_report() {
        let hub = Arc::new(Hub::default());
        // Not applied here yet: it may run.
        hub.started(&agent(), fence(5), || Arc::new(State::default()));
        assert_eq!(hub.running(), 1);
        let attempt_ended = Event::AttemptEnded {
            fence: fence(5),
            agent: agent(),
        };
        hub.applied(&[attempt_ended]);
        assert_eq!(hub.running(), 0);
        let mut later = State::default();
        later.note_index(9, 1);
        hub.started(&agent(), fence(5), || Arc::new(later));
        assert_eq!(hub.running(), 0);
    }

    #[test]
    fn what_ended_without_events_is_found_by_a_recheck() {
        let hub = Arc::new(Hub::default());
        let end = hub.watch(TASK, Wants::End);
        hub.started(&agent(), fence(5), || Arc::new(State::default()));
        let mut installed = State::default();
        installed.note_index(100, 1);
        hub.recheck(&installed);
        assert!(rang(&end));
        assert_eq!(hub.running(), 0);
    }
}
