//! Records that are not on disk yet, where readers look first.

use std::collections::BTreeMap;
use std::ops::RangeFrom;

use model::{ArchiveStep, Record, RecordKey, Segment, TaskId};

use super::{FLUSH_BYTES, Pressure, WAITING_BYTES};

#[derive(Default)]
pub struct Waiting {
    /// With the segment that each goes to.
    records: BTreeMap<RecordKey, (u64, Record)>,
    tasks: BTreeMap<TaskId, RecordKey>,
    bytes: usize,
    closed: Vec<Segment>,
    dropped: Vec<u64>,
    /// Records of entries before this one are gone, or about to go.
    kept_from: u64,
}

/// What there is to write.
#[derive(Default)]
pub struct Work {
    pub records: BTreeMap<u64, Vec<Record>>,
    pub closed: Vec<Segment>,
    pub dropped: Vec<u64>,
}

impl Waiting {
    pub fn of(kept_from: u64) -> Self {
        Self {
            kept_from,
            ..Self::default()
        }
    }

    pub fn kept_from(&self) -> u64 {
        self.kept_from
    }

    pub fn take(&mut self, step: ArchiveStep) {
        self.closed.extend(step.closed);
        for record in step.records {
            self.bytes += record.bytes.len();
            if let Some(task) = record.task {
                self.tasks.insert(task, record.key);
            }
            self.records.insert(record.key, (step.segment, record));
        }
        for Segment { first, end, .. } in step.dropped {
            self.closed.retain(|segment| segment.first != first);
            self.forget(|segment, _| segment == first);
            self.dropped.push(first);
            self.kept_from = self.kept_from.max(end);
        }
    }

    pub fn pressure(&self) -> Pressure {
        match self.bytes {
            WAITING_BYTES.. => Pressure::Full,
            FLUSH_BYTES.. => Pressure::Flush,
            // A segment is verified, or its room given back, soon: not only when there is much to write.
            _ if !self.closed.is_empty() || !self.dropped.is_empty() => Pressure::Flush,
            _ => Pressure::None,
        }
    }

    pub fn work(&self) -> Work {
        let mut work = Work {
            closed: self.closed.clone(),
            dropped: self.dropped.clone(),
            ..Work::default()
        };
        for (segment, record) in self.records.values() {
            let of_segment = work.records.entry(*segment).or_default();
            of_segment.push(record.clone());
        }
        work
    }

    pub fn done(&mut self, work: &Work) {
        let written = |segment: u64, key: RecordKey| {
            let of_segment = work.records.get(&segment);
            of_segment.is_some_and(|all| all.binary_search_by_key(&key, |it| it.key).is_ok())
        };
        self.forget(written);
        self.closed.retain(|it| !work.closed.contains(it));
        self.dropped.retain(|it| !work.dropped.contains(it));
    }

    fn forget(&mut self, gone: impl Fn(u64, RecordKey) -> bool) {
        let (tasks, bytes) = (&mut self.tasks, &mut self.bytes);
        self.records.retain(|key, (segment, record)| {
            let goes = gone(*segment, *key);
            if goes {
                *bytes -= record.bytes.len();
                if let Some(task) = record.task {
                    tasks.remove(&task);
                }
            }
            !goes
        });
    }

    pub fn task(&self, id: TaskId) -> Option<Record> {
        let key = self.tasks.get(&id)?;
        self.records.get(key).map(|(_, record)| record.clone())
    }

    /// Tasks older than `before`, the newest first.
    pub fn tasks_below(&self, before: TaskId) -> impl Iterator<Item = TaskId> {
        self.tasks.range(..before).rev().map(|(id, _)| *id)
    }

    pub fn from(&self, index: RangeFrom<u64>) -> impl Iterator<Item = &Record> {
        let start = RecordKey {
            index: index.start,
            n: 0,
        };
        self.records.range(start..).map(|(_, (_, record))| record)
    }
}
