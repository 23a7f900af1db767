//! Indexes: what is queued, who holds what, what ends when, how many bytes are kept. They follow
//! from the tables, stay outside the hash, and are rebuilt when a snapshot is installed.
//!
//! Queued tasks stand by requirement. Those with the same one fit the same agents, so a round
//! that finds nobody for one of them passes over all of them at once, however many there are.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use crate::blob::{Blob, BlobDigest};
use crate::class::Class;
use crate::id::{AgentId, Incarnation, TaskId};
use crate::label::Expression;
use crate::task::{Phase, StateName, Task};
use crate::time::Timestamp;

/// What a task asks of an agent's labels.
pub type Requirement = Arc<[Expression]>;

/// The queued tasks of one requirement.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Free to go now: by class, then age.
    pub ready: OrdSet<(Class, TaskId)>,
    /// Not before this state time: the earliest first.
    pub delayed: OrdSet<(Timestamp, TaskId)>,
}

/// Everything that would otherwise need a scan of all records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Index {
    /// Queued tasks by requirement; none of them is empty.
    pub queues: OrdMap<Requirement, Waiting>,
    /// Tasks that were never assigned, and fail if they are not by then.
    pub deadlines: OrdSet<(Timestamp, TaskId)>,
    /// The tasks whose live attempt an agent holds, by its incarnation; none of them is empty.
    pub held: OrdMap<AgentId, OrdMap<Incarnation, OrdSet<TaskId>>>,
    /// Finished tasks by the state time of their end.
    pub ended: OrdSet<(Timestamp, TaskId)>,
    /// Ended, but a person or a late result may still change them: by the same time.
    pub undecided: OrdSet<(Timestamp, TaskId)>,
    pub counts: OrdMap<StateName, u64>,
    /// Bytes of all specs and results.
    pub kept_bytes: u64,
    /// The blobs whose last mention in the archive is in a segment; none of them is empty.
    pub mentioned: OrdMap<u64, OrdSet<BlobDigest>>,
    /// Bytes of all blobs, and of those that only the archive names.
    pub blob_bytes: u64,
    pub archived_blob_bytes: u64,
}

impl Index {
    pub fn add(&mut self, task: &Task, require: &[Expression]) {
        *self.counts.entry(task.state()).or_insert(0) += 1;
        match &task.phase {
            Phase::Queued { not_before, .. } => {
                self.enqueue(task, *not_before, require);
                if let Some(deadline) = open_deadline(task) {
                    self.deadlines.insert((deadline, task.id));
                }
            }
            Phase::Assigned { attempt, .. } => {
                self.held
                    .entry(attempt.agent.clone())
                    .or_default()
                    .entry(attempt.incarnation)
                    .or_default()
                    .insert(task.id);
            }
            Phase::Succeeded | Phase::Failed { .. } | Phase::Cancelled(_) => {
                self.ended.insert((task.ended.unwrap_or_default(), task.id));
            }
            Phase::Unknown { .. } | Phase::DeadLetter { .. } => {
                let ended = task.ended.unwrap_or_default();
                self.undecided.insert((ended, task.id));
            }
        }
    }

    pub fn remove(&mut self, task: &Task, require: &[Expression]) {
        if let Some(count) = self.counts.get_mut(&task.state()) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.counts.remove(&task.state());
            }
        }
        match &task.phase {
            Phase::Queued { not_before, .. } => {
                self.dequeue(task, *not_before, require);
                if let Some(deadline) = open_deadline(task) {
                    self.deadlines.remove(&(deadline, task.id));
                }
            }
            Phase::Assigned { attempt, .. } => {
                self.release(&attempt.agent, attempt.incarnation, task.id);
            }
            Phase::Succeeded | Phase::Failed { .. } | Phase::Cancelled(_) => {
                self.ended
                    .remove(&(task.ended.unwrap_or_default(), task.id));
            }
            Phase::Unknown { .. } | Phase::DeadLetter { .. } => {
                let ended = task.ended.unwrap_or_default();
                self.undecided.remove(&(ended, task.id));
            }
        }
    }

    pub fn add_blob(&mut self, digest: BlobDigest, blob: &Blob) {
        self.blob_bytes += blob.size;
        if blob.held == 0 {
            self.archived_blob_bytes += blob.size;
        }
        if let Some(segment) = blob.segment {
            self.mentioned.entry(segment).or_default().insert(digest);
        }
    }

    pub fn remove_blob(&mut self, digest: BlobDigest, blob: &Blob) {
        self.blob_bytes = self.blob_bytes.saturating_sub(blob.size);
        if blob.held == 0 {
            self.archived_blob_bytes = self.archived_blob_bytes.saturating_sub(blob.size);
        }
        let Some(segment) = blob.segment else { return };
        if let Some(mentioned) = self.mentioned.get_mut(&segment) {
            mentioned.remove(&digest);
            if mentioned.is_empty() {
                self.mentioned.remove(&segment);
            }
        }
    }

    fn enqueue(&mut self, task: &Task, not_before: Option<Timestamp>, require: &[Expression]) {
        // Looked up before it is made: a key is allocated only for a new requirement.
        if !self.queues.contains_key(require) {
            self.queues.insert(require.into(), Waiting::default());
        }
        if let Some(waiting) = self.queues.get_mut(require) {
            match not_before {
                Some(at) => drop(waiting.delayed.insert((at, task.id))),
                None => drop(waiting.ready.insert((task.class, task.id))),
            }
        }
    }

    fn dequeue(&mut self, task: &Task, not_before: Option<Timestamp>, require: &[Expression]) {
        let Some(waiting) = self.queues.get_mut(require) else {
            return;
        };
        match not_before {
            Some(at) => drop(waiting.delayed.remove(&(at, task.id))),
            None => drop(waiting.ready.remove(&(task.class, task.id))),
        }
        if waiting.ready.is_empty() && waiting.delayed.is_empty() {
            self.queues.remove(require);
        }
    }

    fn release(&mut self, agent: &AgentId, incarnation: Incarnation, task: TaskId) {
        let Some(incarnations) = self.held.get_mut(agent) else {
            return;
        };
        if let Some(held) = incarnations.get_mut(&incarnation) {
            held.remove(&task);
            if held.is_empty() {
                incarnations.remove(&incarnation);
            }
        }
        if incarnations.is_empty() {
            self.held.remove(agent);
        }
    }
}

/// A deadline is for the first assignment: one that was met does not come back with a retry.
fn open_deadline(task: &Task) -> Option<Timestamp> {
    task.deadline.filter(|_| task.attempts == 0)
}
