//! What leaves memory with an entry, and what is dropped for good. Decided by the log alone: by counts,
//! bytes, indexes and state time, so every controller archives the same at the same entry.
//!
//! The newest finished tasks stay; the others leave in the order of their ends. What waits for a
//! person, or for a late result (`unknown`, `dead_letter`), stays until it is as old as anything may get.

use std::sync::Arc;

use crate::apply::submit::request_of_task;
use crate::archive::{LeftTask, Record, RecordKey, Retention, Segment};
use crate::command::Reply;
use crate::event::{Applied, Event};
use crate::id::TaskId;
use crate::limit;
use crate::requests::Left;
use crate::state::State;
use crate::task::Task;
use crate::time::{Millis, Timestamp};
use crate::version::StateVersion;

use super::{Outcome, Step};

impl State {
    /// How much is kept, from here on.
    pub(super) fn retain(&mut self, retention: Retention, step: &mut Step<'_>) -> Outcome {
        retention.validate()?;
        // Shorter segments begin with the one that is open.
        if let Some(open) = &mut self.meta.open {
            open.end = open.end.min(retention.cut_after(step.index));
        }
        self.meta.retention = retention;
        Ok(Reply::Done)
    }

    /// The last thing that an entry does.
    pub(super) fn archive(&mut self, wall: Timestamp, applied: &mut Applied) {
        let index = self.meta.last_applied;
        let leaving = self.leaving();
        self.drop_segments(applied);
        self.forget_requests();
        if self.meta.state_version >= StateVersion::PACKED_REQUESTS {
            self.requests.pack();
        }
        let mut records = Vec::with_capacity(1 + leaving.len());
        let mut mentioned = Vec::new();
        if !applied.events.is_empty() {
            records.push(Record::of_events(index, wall, &applied.events));
        }
        for (n, id) in (1..).zip(leaving) {
            if let Some(record) = self.take_out(id) {
                let key = RecordKey { index, n };
                self.mark_request(&record, index);
                mentioned.extend(record.spec.blob_refs());
                let result = record.result.as_ref();
                mentioned.extend(result.iter().flat_map(|result| result.blob_refs()));
                records.push(Record::of_task(key, &record));
            }
        }
        if records.is_empty() {
            return;
        }
        applied.archive.closed = self.cut(index);
        let now = self.meta.time;
        let retention = &self.meta.retention;
        let open = self
            .meta
            .open
            .get_or_insert_with(|| Segment::opened_at(index, now, retention));
        for record in &records {
            open.add(record, now);
        }
        let segment = open.first;
        applied.archive.segment = segment;
        applied.archive.records = records;
        self.mention_blobs(segment, &mentioned);
    }

    /// The finished tasks that have no room in memory any more, and those that nobody decided about
    /// for as long as anything is kept. A bounded number, for an entry must not take long.
    fn leaving(&self) -> Vec<TaskId> {
        let kept = usize::try_from(self.meta.retention.hot_tasks).unwrap_or(usize::MAX);
        let over = self.index.ended.len().saturating_sub(kept);
        let ended = self.index.ended.iter().take(over);
        let age = self.meta.retention.max_age;
        let undecided = self.index.undecided.iter();
        let old = undecided.take_while(|(ended, _)| self.meta.time.since(*ended) >= age);
        let ids = ended.chain(old).map(|(_, id)| *id);
        ids.take(limit::LEAVING_MAX).collect()
    }

    fn take_out(&mut self, id: TaskId) -> Option<LeftTask> {
        let spec = self.specs.shared(&id)?;
        let result = self.results.shared(&id);
        let task: Arc<Task> = self.forget_task(id)?;
        Some(LeftTask {
            generation: self.meta.generation,
            task,
            spec,
            result,
        })
    }

    /// Its request id stays known, and begins to grow old.
    fn mark_request(&mut self, left: &LeftTask, index: u64) {
        let Some(key) = request_of_task(&left.task, &left.spec.namespace) else {
            return;
        };
        let at = self.meta.time;
        self.requests.leave(key, Left { index, at });
    }

    /// Closes the open segment where this entry is beyond it.
    fn cut(&mut self, index: u64) -> Option<Segment> {
        let retention = &self.meta.retention;
        let now = self.meta.time;
        let full = self.meta.open.as_ref().is_some_and(|open| {
            index >= open.end
                || open.content.bytes >= retention.segment_bytes
                || now.since(open.opened) >= segment_age(retention)
        });
        let mut closed = self.meta.open.take_if(|_| full)?;
        closed.end = index.min(closed.end);
        self.segments.put(closed.first, closed.clone());
        Some(closed)
    }

    /// Whole segments, the oldest first.
    fn drop_segments(&mut self, applied: &mut Applied) {
        let mut bytes = self.archive_bytes();
        loop {
            let bytes_with_blobs = bytes + self.index.archived_blob_bytes;
            let oldest = self.segments().next().cloned();
            let Some(oldest) = oldest.filter(|oldest| self.is_over(oldest, bytes_with_blobs))
            else {
                return;
            };
            let first = oldest.first;
            bytes = bytes.saturating_sub(oldest.content.bytes);
            self.meta.archived_from = oldest.end;
            self.segments.remove(&first);
            self.forget_mentions(first);
            self.drop_loose_blobs();
            applied.archive.dropped.push(oldest);
            applied.events.push(Event::SegmentDropped { first });
        }
    }

    fn is_over(&self, oldest: &Segment, bytes: u64) -> bool {
        let age = self.meta.time.since(oldest.latest);
        let retention = &self.meta.retention;
        // Room for request ids is made by whole segments, but none is forgotten before its time.
        // Where some of it was made already, the ids are forgotten first; where all ids are of tasks
        // in memory, no segment holds any.
        let window_full = self.requests.len() >= limit::REQUESTS_MAX / 16 * 15
            && self.requests.next_over() >= Some(self.meta.archived_from);
        age >= retention.max_age
            || bytes > retention.max_bytes
            || (window_full && age >= limit::REQUEST_KEPT)
    }

    /// Drops request ids of tasks whose records are gone, once they are old enough.
    fn forget_requests(&mut self) {
        let (now, archived_from) = (self.meta.time, self.meta.archived_from);
        self.requests.forget(limit::LEAVING_MAX, |left| {
            left.index < archived_from && now.since(left.at) >= limit::REQUEST_KEPT
        });
    }
}

/// A segment does not stay open for longer, or its first records would be kept for much longer than asked.
fn segment_age(retention: &Retention) -> Millis {
    Millis((retention.max_age.0 / 7).max(1))
}
