//! Looking things up. What waits is looked at before what is on disk: a record moves from there to here, and
//! is there until it is here, so nobody misses it in between.

use std::collections::BTreeMap;
use std::io;
use std::ops::{ControlFlow, Range};

use model::{EventsRecord, Record, State, TaskId, TaskRecord};

use super::{Archive, Engine, absent, newest_first, segment};
use crate::sync::lock;

/// What the archive says of a task.
pub type Archived = Option<Box<TaskRecord>>;

/// The events of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventsAt {
    pub index: u64,
    pub record: EventsRecord,
}

/// Some of the events, in the order of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventsPage {
    pub entries: Vec<EventsAt>,
    /// All entries before this one were looked at.
    pub next: u64,
}

impl Archive {
    /// The record of a task, in one of the segments that this state names. Blocks.
    pub fn task(&self, state: &State, id: TaskId) -> io::Result<Archived> {
        if let Some(record) = lock(&self.waiting).task(id) {
            return decoded(&record.bytes).map(Some);
        }
        for named in newest_first(state).filter(|segment| segment.may_hold(id)) {
            let Some(engine) = self.engine_unless_waiting(named.first)? else {
                continue;
            };
            if let Some(key) = segment::locate(&*engine, id)?
                && let Some(bytes) = segment::record(&*engine, key)?
            {
                return decoded(&bytes).map(Some);
            }
        }
        Ok(None)
    }

    /// The ids of archived tasks older than `before`, the newest first, at most `limit`. Blocks.
    pub fn tasks_below(
        &self,
        state: &State,
        before: TaskId,
        limit: usize,
    ) -> io::Result<Vec<TaskId>> {
        let waiting = lock(&self.waiting)
            .tasks_below(before)
            .take(limit)
            .collect();
        let mut found: Vec<TaskId> = waiting;
        for named in newest_first(state) {
            if named.tasks.is_none_or(|(least, _)| least >= before) {
                continue;
            }
            // What is not here is not listed: a list says what there is, and the segment is on its way.
            if let Some(engine) = self.engine(named.first)? {
                found.extend(segment::tasks_below(&*engine, before, limit)?);
            }
        }
        found.sort_unstable_by(|one, other| other.cmp(one));
        found.dedup();
        found.truncate(limit);
        Ok(found)
    }

    /// Events of entries from `from` on and up to where the state stands, at most `limit` entries with
    /// events. `None` where some of them are not kept any more. Blocks.
    pub fn events(&self, state: &State, from: u64, limit: usize) -> io::Result<Option<EventsPage>> {
        let read = self.read_events(state, from, limit);
        // Looked at afterwards: a segment may be dropped while it is read.
        match lock(&self.waiting).kept_from() > from {
            true => Ok(None),
            false => read.map(Some),
        }
    }

    fn read_events(&self, state: &State, from: u64, limit: usize) -> io::Result<EventsPage> {
        let end = state.last_applied() + 1;
        // Copied before the disk is read: what is written meanwhile is in both, and counts once.
        let mut found = self.waiting_events(from..end, limit)?;
        let mut on_disk = 0;
        for named in state.all_segments().filter(|it| it.end > from) {
            let Some(engine) = self.engine_unless_waiting(named.first)? else {
                continue;
            };
            let range = from.max(named.first)..end.min(named.end);
            segment::scan(&*engine, range, &mut |key, bytes| {
                if key.is_events() {
                    on_disk += 1;
                    found.insert(key.index, events_of(&bytes)?);
                }
                Ok(match on_disk < limit {
                    true => ControlFlow::Continue(()),
                    false => ControlFlow::Break(()),
                })
            })?;
            if on_disk >= limit {
                break;
            }
        }
        let full = found.len() >= limit;
        let entries = found.into_iter().take(limit);
        let entries: Vec<_> = entries
            .map(|(index, record)| EventsAt { index, record })
            .collect();
        let last = entries.last().map_or(from, |last| last.index + 1);
        let next = if full { last } else { end.max(from) };
        Ok(EventsPage { entries, next })
    }

    fn waiting_events(
        &self,
        indexes: Range<u64>,
        limit: usize,
    ) -> io::Result<BTreeMap<u64, EventsRecord>> {
        let records: Vec<Record> = {
            let waiting = lock(&self.waiting);
            let records = waiting.from(indexes.start..);
            let records = records.take_while(|record| record.key.index < indexes.end);
            let events = records.filter(|record| record.key.is_events());
            events.take(limit).cloned().collect()
        };
        let events = records.iter().map(|record| {
            let events = events_of(&record.bytes)?;
            Ok((record.key.index, events))
        });
        events.collect()
    }

    /// The database of a segment; none where nothing of it was written yet. Where it waited at the first
    /// look, its records are in what was looked at before.
    fn engine_unless_waiting(&self, first: u64) -> io::Result<Option<Engine>> {
        let waits = {
            let waiting = lock(&self.waiting);
            let mut from = waiting.from(first..);
            from.next().is_some_and(|record| record.key.index == first)
        };
        match self.engine(first)? {
            Some(engine) => Ok(Some(engine)),
            None if waits => Ok(None),
            None => Err(absent(first)),
        }
    }
}

fn events_of(bytes: &[u8]) -> io::Result<EventsRecord> {
    EventsRecord::decode(bytes).map_err(unreadable)
}

fn decoded(bytes: &[u8]) -> io::Result<Box<TaskRecord>> {
    TaskRecord::decode(bytes).map(Box::new).map_err(unreadable)
}

fn unreadable(error: model::DecodeError) -> io::Error {
    let text = format!("a record of the archive can't be read: {error}");
    io::Error::new(io::ErrorKind::InvalidData, text)
}
