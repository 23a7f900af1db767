//! The archive: finished tasks and events, in segments on disk.
//!
//! ```text
//!  apply ──► waiting (memory) ──flush──► segment databases ──► retention drops whole ones
//!               └────── looked at first ──────┴──► reads, and other controllers that lack a segment
//! ```
//!
//! What goes where is decided by the log (`model::ArchiveStep`); here it is kept. Records wait in memory,
//! where readers find them, until there are enough of them for one write, or until a snapshot is
//! about to replace the entries that they follow from: until then the log can tell them again, so no
//! record needs a sync of its own. A record that is written twice is the same record.
//!
//! A closed segment is verified against the digest that the state has for it, and then marked; one that is
//! not marked, or not there, is fetched from another controller (`network::segments`).

pub mod engines;
pub mod need;
mod read;
pub mod segment;
mod waiting;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use model::{ArchiveStep, Record, Segment, State};

use self::engines::SegmentEngines;
use self::need::Need;
use self::waiting::Waiting;
use crate::store::engine::LogEngine;
use crate::sync::lock;

pub use self::read::{EventsAt, EventsPage};

/// Bytes of records after which they are written: large enough that a sync for them is rare.
pub const FLUSH_BYTES: usize = 4 << 20;

/// Bytes of records that may wait while the disk is slow, before apply waits for it.
pub const WAITING_BYTES: usize = 64 << 20;

/// Bytes of records in one write.
pub const WRITE_BYTES: usize = 4 << 20;

type Engine = Arc<dyn LogEngine>;

pub struct Archive {
    engines: Box<dyn SegmentEngines>,
    waiting: Mutex<Waiting>,
    /// Opened when they are first asked for.
    opened: Mutex<BTreeMap<u64, Engine>>,
    /// One writes at a time.
    writing: Mutex<()>,
}

/// Whether there is reason to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    None,
    /// Enough waits for one write.
    Flush,
    /// More must not wait.
    Full,
}

impl Archive {
    pub fn new(engines: Box<dyn SegmentEngines>) -> Arc<Self> {
        Arc::new(Self {
            engines,
            waiting: Mutex::default(),
            opened: Mutex::default(),
            writing: Mutex::default(),
        })
    }

    /// What an entry did. Does not block: called before the entry's view is published.
    pub fn take(&self, step: ArchiveStep) -> Pressure {
        let mut waiting = lock(&self.waiting);
        waiting.take(step);
        waiting.pressure()
    }

    /// Whether somebody writes just now.
    pub fn is_being_flushed(&self) -> bool {
        self.writing.try_lock().is_err()
    }

    /// Writes what waits. When it returns, all that was taken before the call survives a power cut. Blocks.
    pub fn flush(&self) -> io::Result<()> {
        let _one_at_a_time = lock(&self.writing);
        let work = lock(&self.waiting).work();
        // First, because it makes room.
        for first in &work.dropped {
            self.remove(*first)?;
        }
        let kept = work.records.iter();
        for (first, records) in kept.filter(|(first, _)| !work.dropped.contains(first)) {
            let engine = self.engine_for_writing(*first)?;
            segment::write(&*engine, records)?;
        }
        for closed in &work.closed {
            self.seal(&Need::closed(closed))?;
        }
        lock(&self.waiting).done(&work);
        Ok(())
    }

    /// The state was replaced by another one: what waits is in segments that are here already, and
    /// segments that it does not name are over. Blocks.
    pub fn replace(&self, state: &State) -> io::Result<()> {
        let _one_at_a_time = lock(&self.writing);
        *lock(&self.waiting) = Waiting::of(state.archived_from());
        let named: Vec<u64> = state.all_segments().map(|it| it.first).collect();
        for first in self.engines.list()? {
            if !named.contains(&first) {
                self.remove(first)?;
            }
        }
        Ok(())
    }

    /// Those of a state's segments that are not here as they should be. Blocks.
    pub fn missing(&self, needs: &[Need]) -> io::Result<Vec<Need>> {
        let mut missing = Vec::new();
        for need in needs {
            if !self.holds(need)? {
                missing.push(need.clone());
            }
        }
        Ok(missing)
    }

    fn holds(&self, need: &Need) -> io::Result<bool> {
        let Some(engine) = self.engine(need.first)? else {
            return Ok(false);
        };
        if need.closed && segment::sealed(&*engine)?.is_some_and(|mark| mark == need.digest) {
            return Ok(true);
        }
        let whole = segment::content(&*engine, need.range())? == need.content();
        if whole && need.closed {
            segment::seal(&*engine, &need.digest)?;
        }
        Ok(whole)
    }

    /// Verifies a closed segment and marks it.
    fn seal(&self, need: &Need) -> io::Result<()> {
        match self.holds(need)? {
            true => Ok(()),
            false => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "segment {} of the archive is not what the log says; stop this controller, remove \
                     archive/{:020} from its data directory, and it is fetched from another one",
                    need.first, need.first
                ),
            )),
        }
    }

    /// Puts records that came from another controller. Blocks.
    pub fn put(&self, first: u64, records: &[Record]) -> io::Result<()> {
        let _one_at_a_time = lock(&self.writing);
        let engine = self.engine_for_writing(first)?;
        segment::write(&*engine, records)
    }

    /// Forgets a segment that turned out to hold something else. Blocks.
    pub fn discard(&self, first: u64) -> io::Result<()> {
        let _one_at_a_time = lock(&self.writing);
        self.remove(first)
    }

    /// Calls `visit` with the records of a segment, in order, as another controller asked. Blocks.
    pub fn visit(
        &self,
        first: u64,
        indexes: std::ops::Range<u64>,
        visit: &mut segment::Visit<'_>,
    ) -> io::Result<()> {
        self.flush()?;
        match self.engine(first)? {
            Some(engine) => segment::scan(&*engine, indexes, visit),
            None => Err(absent(first)),
        }
    }

    fn remove(&self, first: u64) -> io::Result<()> {
        lock(&self.opened).remove(&first);
        self.engines.remove(first)
    }

    fn engine(&self, first: u64) -> io::Result<Option<Engine>> {
        let mut opened = lock(&self.opened);
        self.open(first, &mut opened)
    }

    /// Made under the same lock as it is opened, or a reader would open it a second time meanwhile, and
    /// be refused: a database has one owner.
    fn engine_for_writing(&self, first: u64) -> io::Result<Engine> {
        let mut opened = lock(&self.opened);
        if let Some(engine) = self.open(first, &mut opened)? {
            return Ok(engine);
        }
        let engine = self.engines.create(first)?;
        opened.insert(first, engine.clone());
        Ok(engine)
    }

    fn open(&self, first: u64, opened: &mut BTreeMap<u64, Engine>) -> io::Result<Option<Engine>> {
        if let Some(engine) = opened.get(&first) {
            return Ok(Some(engine.clone()));
        }
        let engine = self.engines.open(first)?;
        if let Some(engine) = &engine {
            opened.insert(first, engine.clone());
        }
        Ok(engine)
    }
}

/// A segment that the state names and this controller does not have: it is on its way, or was lost.
fn absent(first: u64) -> io::Error {
    let text = format!("segment {first} of the archive is not here yet");
    io::Error::new(io::ErrorKind::NotFound, text)
}

/// The segments of a state in which a record may be, the newest first.
fn newest_first(state: &State) -> impl Iterator<Item = &Segment> {
    state.all_segments().rev()
}
