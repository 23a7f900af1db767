//! The archive's records: what leaves memory, and the segments it goes to.
//!
//! The archive is a function of the log. An entry at `index` leaves at most one record of its events
//! (`n` = 0) and one for each finished task that left memory with it (`n` from 1), so the key (index, n)
//! names the same bytes on every controller, and to write a record twice changes nothing. Segments are
//! cut where the log says, and each has the sum of its records' digests: `State` holds those, so
//! the hash that is compared between controllers covers what is no longer in memory, too.
//!
//! Here are values only. Where the bytes are kept is crate `raft`'s to say; which tasks leave, and
//! which segments are dropped, is decided in `apply/archive.rs`.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::entry::{DecodeError, decode, encode};
use crate::event::Event;
use crate::hash::{RecordDigest, Sum};
use crate::id::{Fence, Generation, TaskId};
use crate::limit;
use crate::outcome::{Disposition, Outcome};
use crate::rejected::Rejected;
use crate::spec::TaskSpec;
use crate::task::Task;
use crate::time::{Millis, Timestamp};

/// The record format that this release writes.
const FORMAT: u8 = 1;

/// The place of an entry's events among its records.
const EVENTS: u32 = 0;

/// Which record: that of an entry's events, or the n-th task that left with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordKey {
    pub index: u64,
    pub n: u32,
}

/// A record as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub key: RecordKey,
    /// Whose it is; none for events.
    pub task: Option<TaskId>,
    pub bytes: Arc<[u8]>,
}

/// The events of one entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventsRecord {
    /// The leader's wall clock, for display.
    pub wall: Timestamp,
    pub events: Vec<Event>,
}

/// All that is kept of a finished task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskRecord {
    pub generation: Generation,
    pub task: Task,
    pub spec: TaskSpec,
    pub result: Option<Outcome>,
}

impl TaskRecord {
    /// What a report under this fence is, of a task that ended long ago.
    pub fn disposition(&self, fence: Fence) -> Disposition {
        match self.generation == fence.generation && self.task.settled == Some(fence.epoch) {
            true => Disposition::Duplicate,
            false => Disposition::Stale,
        }
    }
}

/// The same, as it is taken out of the tables; it has the same encoding.
pub(crate) struct LeftTask {
    pub generation: Generation,
    pub task: Arc<Task>,
    pub spec: Arc<TaskSpec>,
    pub result: Option<Arc<Outcome>>,
}

impl Record {
    pub(crate) fn of_events(index: u64, wall: Timestamp, events: &[Event]) -> Record {
        let key = RecordKey { index, n: EVENTS };
        Record {
            key,
            task: None,
            bytes: encode(FORMAT, &(wall, events)).into(),
        }
    }

    pub(crate) fn of_task(key: RecordKey, left: &LeftTask) -> Record {
        let result = left.result.as_deref();
        let fields = (left.generation, &*left.task, &*left.spec, result);
        Record {
            key,
            task: Some(left.task.id),
            bytes: encode(FORMAT, &fields).into(),
        }
    }

    /// A record that was read back, or came from another controller.
    pub fn read(key: RecordKey, bytes: Arc<[u8]>) -> Result<Record, DecodeError> {
        let task = match key.is_events() {
            true => None,
            false => Some(TaskRecord::decode(&bytes)?.task.id),
        };
        Ok(Record { key, task, bytes })
    }

    /// Its part in its segment's digest.
    fn digest(&self) -> RecordDigest {
        let mut hasher = Sha256::new();
        hasher.update(self.key.index.to_be_bytes());
        hasher.update(self.key.n.to_be_bytes());
        hasher.update(&self.bytes);
        RecordDigest(hasher.finalize().into())
    }
}

impl RecordKey {
    pub fn is_events(self) -> bool {
        self.n == EVENTS
    }
}

impl EventsRecord {
    pub fn decode(bytes: &[u8]) -> Result<EventsRecord, DecodeError> {
        decode(FORMAT, bytes)
    }
}

impl TaskRecord {
    pub fn decode(bytes: &[u8]) -> Result<TaskRecord, DecodeError> {
        decode(FORMAT, bytes)
    }
}

/// What a segment holds. The open one is still growing; a closed one never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Segment {
    /// The index of the entry that opened it: its name.
    pub first: u64,
    /// Closed: the first index that is not in it any more. Open: where it is cut at the latest.
    pub end: u64,
    pub content: Content,
    /// The least and the greatest id of its tasks; none where it has none.
    pub tasks: Option<(TaskId, TaskId)>,
    /// State time of its first and its last record.
    pub opened: Timestamp,
    pub latest: Timestamp,
}

/// How much it is, and its digest: of the logical records, for no two databases have the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    pub records: u64,
    pub bytes: u64,
    #[serde(with = "serde_bytes")]
    pub digest: [u8; 32],
}

impl Content {
    pub fn add(&mut self, record: &Record) {
        let mut sum = Sum::of_bytes(self.digest);
        sum.add(record.digest());
        self.digest = sum.bytes();
        self.records += 1;
        self.bytes += record.bytes.len() as u64;
    }
}

impl Segment {
    pub(crate) fn opened_at(index: u64, now: Timestamp, retention: &Retention) -> Segment {
        Segment {
            first: index,
            end: retention.cut_after(index),
            content: Content::default(),
            tasks: None,
            opened: now,
            latest: now,
        }
    }

    pub(crate) fn add(&mut self, record: &Record, now: Timestamp) {
        self.content.add(record);
        self.latest = now;
        if let Some(id) = record.task {
            let (least, greatest) = self.tasks.unwrap_or((id, id));
            self.tasks = Some((least.min(id), greatest.max(id)));
        }
    }

    /// Whether a task of this id may be in it.
    pub fn may_hold(&self, id: TaskId) -> bool {
        self.tasks
            .is_some_and(|(least, greatest)| (least..=greatest).contains(&id))
    }
}

/// How much stays in memory, and how much of the rest is kept on disk. In the state, so that all
/// controllers do the same at the same entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// Finished tasks that stay in memory: the newest. They are what people ask for most.
    pub hot_tasks: u64,
    /// A segment is cut at multiples of this index.
    pub segment_entries: u64,
    /// A segment is cut once it has so many bytes.
    pub segment_bytes: u64,
    /// A segment is dropped this long after its last record.
    pub max_age: Millis,
    /// The oldest segments are dropped where all of them are more than this.
    pub max_bytes: u64,
}

impl Default for Retention {
    fn default() -> Retention {
        Retention {
            hot_tasks: limit::HOT_TASKS,
            segment_entries: limit::SEGMENT_ENTRIES,
            segment_bytes: limit::SEGMENT_BYTES,
            max_age: limit::ARCHIVE_AGE,
            max_bytes: limit::ARCHIVE_BYTES,
        }
    }
}

impl Retention {
    /// Where the segment that holds this entry is cut at the latest.
    pub(crate) fn cut_after(&self, index: u64) -> u64 {
        let every = self.segment_entries.max(1);
        (index / every).saturating_add(1).saturating_mul(every)
    }

    pub fn validate(&self) -> Result<(), Rejected> {
        if self.hot_tasks > limit::TASKS_MAX as u64 {
            return Err(Rejected::over("hot tasks", limit::TASKS_MAX, "tasks"));
        }
        let named = [
            ("segment entries", self.segment_entries),
            ("segment bytes", self.segment_bytes),
            ("the archive's age", self.max_age.0),
            ("the archive's bytes", self.max_bytes),
        ];
        match named.iter().find(|(_, value)| *value == 0) {
            Some((name, _)) => Err(Rejected::Invalid(format!("{name} can't be 0"))),
            None => Ok(()),
        }
    }
}

/// What an entry did to the archive.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ArchiveStep {
    /// The segment that its records go to.
    pub segment: u64,
    pub records: Vec<Record>,
    /// The segment that was open before, complete now.
    pub closed: Option<Segment>,
    /// Segments whose time is over.
    pub dropped: Vec<Segment>,
}

impl ArchiveStep {
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.closed.is_none() && self.dropped.is_empty()
    }
}
