//! Queue indexes: what is queued, who holds what, what ends when. They follow from the tasks
//! table, stay outside the hash, and are rebuilt when a snapshot is installed.

use imbl::{OrdMap, OrdSet};

use crate::id::{AgentId, TaskId};
use crate::spec::Class;
use crate::task::{Phase, StateName, Task};
use crate::time::Timestamp;

/// Everything that would otherwise need a scan of all tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Index {
    /// Queued, and free to go now: by class, then age.
    pub ready: OrdSet<(Class, TaskId)>,
    /// Queued, but not before this state time.
    pub delayed: OrdSet<(Timestamp, TaskId)>,
    /// Queued tasks that fail if not assigned by then.
    pub deadlines: OrdSet<(Timestamp, TaskId)>,
    /// The tasks whose live attempt an agent holds.
    pub held: OrdMap<AgentId, OrdSet<TaskId>>,
    /// Finished tasks by the state time of their end.
    pub ended: OrdSet<(Timestamp, TaskId)>,
    pub counts: OrdMap<StateName, u64>,
}

impl Index {
    pub fn add(&mut self, task: &Task) {
        *self.counts.entry(task.state()).or_insert(0) += 1;
        match &task.phase {
            Phase::Queued { not_before, .. } => {
                match not_before {
                    Some(at) => drop(self.delayed.insert((*at, task.id))),
                    None => drop(self.ready.insert((task.class, task.id))),
                }
                if let Some(deadline) = task.deadline {
                    self.deadlines.insert((deadline, task.id));
                }
            }
            Phase::Assigned { attempt, .. } => {
                self.held
                    .entry(attempt.agent.clone())
                    .or_default()
                    .insert(task.id);
            }
            Phase::Succeeded
            | Phase::Failed { .. }
            | Phase::Cancelled(_)
            | Phase::Unknown { .. }
            | Phase::DeadLetter { .. } => {
                self.ended.insert((task.ended.unwrap_or_default(), task.id));
            }
        }
    }

    pub fn remove(&mut self, task: &Task) {
        if let Some(count) = self.counts.get_mut(&task.state()) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.counts.remove(&task.state());
            }
        }
        match &task.phase {
            Phase::Queued { not_before, .. } => {
                match not_before {
                    Some(at) => drop(self.delayed.remove(&(*at, task.id))),
                    None => drop(self.ready.remove(&(task.class, task.id))),
                }
                if let Some(deadline) = task.deadline {
                    self.deadlines.remove(&(deadline, task.id));
                }
            }
            Phase::Assigned { attempt, .. } => self.release(&attempt.agent, task.id),
            Phase::Succeeded
            | Phase::Failed { .. }
            | Phase::Cancelled(_)
            | Phase::Unknown { .. }
            | Phase::DeadLetter { .. } => {
                self.ended
                    .remove(&(task.ended.unwrap_or_default(), task.id));
            }
        }
    }

    fn release(&mut self, agent: &AgentId, task: TaskId) {
        if let Some(held) = self.held.get_mut(agent) {
            held.remove(&task);
            if held.is_empty() {
                self.held.remove(agent);
            }
        }
    }
}
