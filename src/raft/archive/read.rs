//! Looking things up in what a state archived. A segment that is not here, or damaged, is an error: nobody is told that
//! something does not exist because it is not here.

use std::io;
use std::ops::ControlFlow;

use model::{EventsRecord, Record, Segment, State, TaskId, TaskRecord};

use super::frame::{self, Scan};
use super::{Archive, frame::damaged};

/// Bytes of records after which a page of events ends: an entry may have thousands of them.
const PAGE_BYTES: usize = 1 << 20;

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
    pub fn task(&self, state: &State, id: TaskId) -> io::Result<Option<Box<TaskRecord>>> {
        self.shared.wait_for(state)?;
        // The one that it left last to is the newest; ids are given in order, so hardly any other may have it.
        let mut lost = None;
        for named in state.all_segments().rev().filter(|it| it.may_hold(id)) {
            match self.task_in(named.first, id) {
                Ok(Some(record)) => return Ok(Some(record)),
                Ok(None) => {}
                Err(error) => lost = Some(error),
            }
        }
        lost.map_or(Ok(None), Err)
    }

    fn task_in(&self, first: u64, id: TaskId) -> io::Result<Option<Box<TaskRecord>>> {
        let opened = self
            .shared
            .open(first, |index| index.tasks.get(&id).copied());
        let (found, offset) = self.sound(first, opened)?;
        let Some(offset) = offset else {
            return Ok(None);
        };
        let read = frame::read_at(&found.file, offset).and_then(|record| task_of(&record));
        let record = self.sound(first, read)?;
        match record.task.id == id {
            true => Ok(Some(record)),
            false => self.sound(first, Err(damaged("its index names another task"))),
        }
    }

    /// The archived tasks older than `before`, the newest first, at most `limit`. Blocks.
    pub fn tasks_below(
        &self,
        state: &State,
        before: TaskId,
        limit: usize,
    ) -> io::Result<Vec<TaskRecord>> {
        self.shared.wait_for(state)?;
        let places = self.places_below(state, before, limit)?;
        let mut records = Vec::with_capacity(places.len());
        let mut opened: Option<(u64, std::fs::File)> = None;
        for Place { first, offset, .. } in places {
            let file = match opened.take().filter(|(of, _)| *of == first) {
                Some((_, file)) => file,
                None => self.sound(first, self.shared.open(first, |_| ()))?.0.file,
            };
            let read = frame::read_at(&file, offset).and_then(|record| task_of(&record));
            records.push(*self.sound(first, read)?);
            opened = Some((first, file));
        }
        Ok(records)
    }

    /// Where the newest of them stand. Segments overlap little in the ids of their tasks, so few are looked at.
    fn places_below(&self, state: &State, before: TaskId, limit: usize) -> io::Result<Vec<Place>> {
        let mut segments: Vec<_> = state
            .all_segments()
            .filter_map(|it| Some((it.tasks?, it.first)))
            .filter(|((least, _), _)| *least < before)
            .collect();
        segments.sort_unstable_by_key(|((_, greatest), _)| std::cmp::Reverse(*greatest));
        let mut places: Vec<Place> = Vec::new();
        for ((_, greatest), first) in segments {
            let enough = places.len() >= limit && places.last().is_some_and(|it| it.id > greatest);
            if enough {
                break;
            }
            let opened = self.shared.open(first, |index| {
                let below = index.tasks.range(..before).rev().take(limit);
                below.map(|(id, offset)| (*id, *offset)).collect::<Vec<_>>()
            });
            let (_, below) = self.sound(first, opened)?;
            let below = below.into_iter();
            places.extend(below.map(|(id, offset)| Place { id, first, offset }));
            places.sort_unstable_by_key(|place| std::cmp::Reverse(place.id));
            places.truncate(limit);
        }
        Ok(places)
    }

    /// Events of entries from `from` on and up to where the state stands, at most `limit` entries with
    /// events. `None` where some of them are not kept any more. Blocks.
    pub fn events(&self, state: &State, from: u64, limit: usize) -> io::Result<Option<EventsPage>> {
        self.shared.wait_for(state)?;
        let read = self.read_events(state, from, limit);
        // Looked at afterwards: a segment may be dropped while it is read.
        match self.shared.look(|catalog| catalog.kept_from > from) {
            true => Ok(None),
            false => read.map(Some),
        }
    }

    fn read_events(&self, state: &State, from: u64, limit: usize) -> io::Result<EventsPage> {
        let end = state.last_applied() + 1;
        let (mut entries, mut bytes) = (Vec::new(), 0);
        let full = |entries: &Vec<_>, bytes| entries.len() >= limit || bytes >= PAGE_BYTES;
        for Segment { first, .. } in state.all_segments().filter(|it| it.end > from) {
            let (found, begin) = {
                let opened = self.shared.open(*first, |index| index.begin(from));
                self.sound(*first, opened)?
            };
            let scan = Scan::new(found.file, begin, found.end)?;
            self.scan(*first, scan, end, &mut |record| {
                if record.key.is_events() && record.key.index >= from {
                    bytes += record.bytes.len();
                    entries.push(events_at(&record)?);
                }
                Ok(match full(&entries, bytes) {
                    false => ControlFlow::Continue(()),
                    true => ControlFlow::Break(()),
                })
            })?;
            if let Some(last) = entries.last().filter(|_| full(&entries, bytes)) {
                let next = last.index + 1;
                return Ok(EventsPage { entries, next });
            }
        }
        let next = end.max(from);
        Ok(EventsPage { entries, next })
    }
}

struct Place {
    id: TaskId,
    first: u64,
    offset: u64,
}

fn events_at(record: &Record) -> io::Result<EventsAt> {
    Ok(EventsAt {
        index: record.key.index,
        record: EventsRecord::decode(&record.bytes).map_err(unreadable)?,
    })
}

fn task_of(record: &Record) -> io::Result<Box<TaskRecord>> {
    TaskRecord::decode(&record.bytes)
        .map(Box::new)
        .map_err(unreadable)
}

fn unreadable(error: model::DecodeError) -> io::Error {
    let text = format!("a record can't be read: {error}");
    io::Error::new(io::ErrorKind::InvalidData, text)
}
