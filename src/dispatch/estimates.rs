//! When tasks that wait are expected to start: looked at now and then, so that it can be said afterwards how wrong it was.

use std::collections::BTreeMap;

use model::{Estimate, Millis, State, StateVersion, TaskId, Timestamp};
use scheduler::{Budget, Clock, Fleet, waits};

/// Between two looks: each plays a part of the queue through.
const EVERY: u64 = 1_000;
/// What one may cost; who is farther back is asked about when its turn has come nearer.
const BUDGET: Budget = Budget {
    tasks: 1_000,
    looks: 100_000,
};
/// So many looks of a play keep the next one off for a millisecond more: about a hundredth of the time goes into them.
const LOOKS: u64 = 20;

/// Of one term.
#[derive(Debug, Default)]
pub(crate) struct Estimates {
    made: BTreeMap<TaskId, Estimate>,
    next: Millis,
}

impl Estimates {
    /// Of those that have none yet, where it is time.
    pub fn look(&mut self, state: &State, fleet: &Fleet, clock: Clock) {
        let is_known = state.state_version() >= StateVersion::OBSERVATIONS;
        if clock.monotonic < self.next || state.queue_is_empty() || !is_known {
            return;
        }
        // What was cancelled, or went under another leader.
        self.made.retain(|task, _| state.is_queued(*task));
        let (waits, looks) = waits(state, fleet, clock.state, BUDGET);
        let pause = EVERY.max(looks as u64 / LOOKS);
        self.next = Millis(clock.monotonic.0.saturating_add(pause));
        for (task, wait) in waits {
            // What can start now is about to.
            if wait.millis.0 > 0 {
                self.made.entry(task).or_insert(Estimate {
                    made: clock.state,
                    start: Timestamp(clock.state.0.saturating_add(wait.millis.0)),
                });
            }
        }
    }

    /// It starts.
    pub fn take(&mut self, task: TaskId) -> Option<Estimate> {
        self.made.remove(&task)
    }
}
