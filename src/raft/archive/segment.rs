//! One segment in an ordered key-value engine.
//!
//! ```text
//!  'r' index n part   a part of a record: at most 4 KiB, for larger values become files that nothing syncs
//!  't' !task          where the record of a task stands: the newest task first
//!  'z'                the digest, once the segment was found complete
//! ```
//!
//! Numbers are big endian, so that the order of keys is theirs. A record is sealed as a record of the log
//! is: with a format, a checksum and its length.

use std::io;
use std::ops::{ControlFlow, Range};

use bytes::{Bytes, BytesMut};
use model::{Content, Record, RecordKey, TaskId};

use super::WRITE_BYTES;
use crate::store::codec::{self, PART_BYTES};
use crate::store::engine::{Batch, Key, LogEngine};

const RECORDS: u8 = b'r';
const TASKS: u8 = b't';
const MARK: &[u8] = b"z";

/// Looks at one record; may end the scan.
pub type Visit<'v> = dyn FnMut(RecordKey, Bytes) -> io::Result<ControlFlow<()>> + 'v;

/// Writes records; they survive a power cut when it returns.
pub fn write(engine: &dyn LogEngine, records: &[Record]) -> io::Result<()> {
    let (mut batch, mut bytes) = (Batch::new(), 0);
    for record in records {
        let sealed = codec::seal(&record.bytes);
        bytes += sealed.len();
        for (part, value) in (0_u32..).zip(sealed.chunks(PART_BYTES)) {
            batch.insert(part_key(record.key, part), Some(value.to_vec()));
        }
        if let Some(task) = record.task {
            batch.insert(task_key(task), Some(place(record.key)));
        }
        if bytes >= WRITE_BYTES {
            bytes = 0;
            engine.commit(std::mem::take(&mut batch))?;
        }
    }
    match batch.is_empty() {
        true => Ok(()),
        false => engine.commit(batch),
    }
}

pub fn record(engine: &dyn LogEngine, key: RecordKey) -> io::Result<Option<Bytes>> {
    let mut sealed = BytesMut::new();
    let next = RecordKey {
        n: key.n + 1,
        ..key
    };
    engine.scan(part_key(key, 0)..part_key(next, 0), &mut |_, value| {
        sealed.extend_from_slice(value);
        ControlFlow::Continue(())
    })?;
    match sealed.is_empty() {
        true => Ok(None),
        false => open(sealed).map(Some),
    }
}

/// Where the record of a task stands.
pub fn locate(engine: &dyn LogEngine, task: TaskId) -> io::Result<Option<RecordKey>> {
    let found = engine.get(&task_key(task))?;
    found.map(|place| key_at(&place)).transpose()
}

/// The ids of tasks older than `before`, the newest first, at most `limit`.
pub fn tasks_below(
    engine: &dyn LogEngine,
    before: TaskId,
    limit: usize,
) -> io::Result<Vec<TaskId>> {
    let mut found = Vec::new();
    let start = TaskId(before.0.saturating_sub(1));
    engine.scan(task_key(start)..vec![TASKS + 1], &mut |key, _| {
        if let Some(id) = task_of(key) {
            found.push(id);
        }
        match found.len() < limit {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    })?;
    Ok(found)
}

/// Visits the records of entries in a range, in order.
pub fn scan(engine: &dyn LogEngine, indexes: Range<u64>, visit: &mut Visit<'_>) -> io::Result<()> {
    let at = |index| part_key(RecordKey { index, n: 0 }, 0);
    let mut current: Option<(RecordKey, BytesMut)> = None;
    let mut outcome = Ok(ControlFlow::Continue(()));
    engine.scan(at(indexes.start)..at(indexes.end), &mut |key, value| {
        let key = match key_at(&key[1..]) {
            Ok(key) => key,
            Err(error) => {
                outcome = Err(error);
                return ControlFlow::Break(());
            }
        };
        match &mut current {
            Some((open, sealed)) if *open == key => sealed.extend_from_slice(value),
            Some(_) | None => {
                let before = current.replace((key, BytesMut::from(value)));
                outcome = hand_over(before, visit);
            }
        }
        match &outcome {
            Ok(ControlFlow::Continue(())) => ControlFlow::Continue(()),
            Ok(ControlFlow::Break(())) | Err(_) => ControlFlow::Break(()),
        }
    })?;
    match outcome? {
        ControlFlow::Continue(()) => hand_over(current, visit).map(|_| ()),
        ControlFlow::Break(()) => Ok(()),
    }
}

fn hand_over(
    record: Option<(RecordKey, BytesMut)>,
    visit: &mut Visit<'_>,
) -> io::Result<ControlFlow<()>> {
    match record {
        Some((key, sealed)) => visit(key, open(sealed)?),
        None => Ok(ControlFlow::Continue(())),
    }
}

/// What the records of a range add up to.
pub fn content(engine: &dyn LogEngine, indexes: Range<u64>) -> io::Result<Content> {
    let mut content = Content::default();
    scan(engine, indexes, &mut |key, bytes| {
        content.add(&Record {
            key,
            task: None,
            bytes: bytes.as_ref().into(),
        });
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(content)
}

/// The digest that the segment was found to have when it was complete.
pub fn sealed(engine: &dyn LogEngine) -> io::Result<Option<Vec<u8>>> {
    engine.get(MARK)
}

pub fn seal(engine: &dyn LogEngine, digest: &[u8; 32]) -> io::Result<()> {
    engine.put_in_order(vec![(MARK.to_vec(), digest.to_vec())])
}

fn open(sealed: BytesMut) -> io::Result<Bytes> {
    codec::open(&sealed.freeze()).map_err(damaged)
}

fn damaged(what: impl std::fmt::Display) -> io::Error {
    let text = format!("a record of the archive is damaged: {what}");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn place(key: RecordKey) -> Vec<u8> {
    let mut place = key.index.to_be_bytes().to_vec();
    place.extend(key.n.to_be_bytes());
    place
}

fn part_key(key: RecordKey, part: u32) -> Key {
    let mut bytes = vec![RECORDS];
    bytes.extend(place(key));
    bytes.extend(part.to_be_bytes());
    bytes
}

fn task_key(task: TaskId) -> Key {
    let mut bytes = vec![TASKS];
    bytes.extend((!task.0).to_be_bytes());
    bytes
}

fn task_of(key: &[u8]) -> Option<TaskId> {
    let digits = key.get(1..)?.try_into().ok()?;
    Some(TaskId(!u64::from_be_bytes(digits)))
}

fn key_at(place: &[u8]) -> io::Result<RecordKey> {
    let parts = place.first_chunk::<8>().zip(place.get(8..12));
    let (index, n) = parts.ok_or_else(|| damaged("a key is too short"))?;
    let n: [u8; 4] = n.try_into().map_err(damaged)?;
    Ok(RecordKey {
        index: u64::from_be_bytes(*index),
        n: u32::from_be_bytes(n),
    })
}
