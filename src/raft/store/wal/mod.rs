//! The log's engine: sled, with write-ahead files in front of it.
//!
//! ```text
//!  commit ──► wal.0 or wal.1 (fdatasync) ──► recent pairs in memory ──► acknowledged
//!                                                   │ a full file's, as one batch
//!                                                   ▼
//!                                      mover: sled, flush, fdatasync
//! ```
//!
//! A write waits for one fdatasync of a file that does not grow, and not for a write to sled, which wakes a pool of
//! threads and makes a file longer. When a file is full, the other takes over, and what is in
//! the full one goes to sled on a thread of its own. It is written over only once sled has it on disk.
//! Reading looks at the recent pairs first, and then at sled.
//!
//! sled keeps the number of the last write that came to it. Opening takes the writes behind that from the
//! files. What a crash leaves of a last one is no record, and nobody was told of it; but a whole record behind a
//! missing one means that an acknowledged write was damaged, and the log is refused.

mod file;
pub mod image;
mod merge;
mod record;

use std::io;
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use self::file::{Content, WalFile};
use super::engine::{Batch, Key, LogEngine, Value, Visit};
use super::key;
use super::rotate::Rotation;
use super::sled::SledEngine;
use crate::error::with_next_step;
use crate::fatal::FatalSignal;
use crate::member::LogIdentity;
use crate::sync::lock;

const NAMES: [&str; 2] = ["wal.0", "wal.1"];

/// Bytes that one batch carries to sled when a log is opened.
const REPLAY_BYTES: usize = 4 << 20;

pub struct Wal {
    files: Mutex<Files>,
    store: Arc<Store>,
    mover: Option<JoinHandle<()>>,
}

struct Files {
    pair: [WalFile; 2],
    /// The one that is written.
    current: usize,
    /// Number of the last write.
    sequence: u64,
    buffer: Vec<u8>,
}

/// What the mover and the readers share with the writer.
struct Store {
    recent: Mutex<Recent>,
    /// Something was handed to the mover, was moved, or is over.
    changed: Condvar,
    sled: Mutex<Arc<SledEngine>>,
}

#[derive(Default)]
struct Recent {
    /// Of the current file.
    active: Batch,
    /// Of the full one, on its way to sled.
    moving: Option<Arc<Batch>>,
    failed: Option<String>,
    closed: bool,
}

/// The two files of a log and what they hold.
pub struct Found {
    dir: PathBuf,
    files: [WalFile; 2],
    writes: Vec<(u64, Batch)>,
    behind: Option<u64>,
}

/// Makes the files of a new log.
pub fn create(dir: &Path, identity: LogIdentity) -> io::Result<Found> {
    let [first, second] = paths(dir);
    let files = [
        WalFile::create(&first, identity)?,
        WalFile::create(&second, identity)?,
    ];
    durable::sync_dir(dir)?;
    Ok(Found {
        dir: dir.to_owned(),
        files,
        writes: Vec::new(),
        behind: None,
    })
}

/// Reads the files of a log, and changes nothing. A log from before there were any gets its first.
pub fn find(dir: &Path, identity: LogIdentity, sled: &SledEngine) -> io::Result<Found> {
    let [first, second] = paths(dir);
    if moved(sled)? == 0 && !first.exists() && !second.exists() {
        return create(dir, identity);
    }
    let (first, from_first) = WalFile::open(&first, identity)?;
    let (second, from_second) = WalFile::open(&second, identity)?;
    let behind = from_first.behind.max(from_second.behind);
    let contents = [from_first, from_second];
    let writes = contents
        .into_iter()
        .flat_map(|Content { writes, .. }| writes)
        .collect();
    Ok(Found {
        dir: dir.to_owned(),
        files: [first, second],
        writes,
        behind,
    })
}

fn paths(dir: &Path) -> [PathBuf; 2] {
    NAMES.map(|name| dir.join(name))
}

impl Found {
    /// Brings to sled what it lacks. Gives the number of the last write.
    fn replay(&mut self, sled: &SledEngine) -> io::Result<u64> {
        let moved = moved(sled)?;
        let damaged = |reason: String| {
            let (database, files) = (sled.file(), NAMES.join(" or "));
            let dir = self.dir.display();
            let text = format!("{} or {files} in {dir}: {reason}", database.display());
            io::Error::new(io::ErrorKind::InvalidData, text)
        };
        let writes = std::mem::take(&mut self.writes);
        let (writes, last) = lacking(writes, self.behind, moved).map_err(damaged)?;
        let (mut batch, mut bytes) = (Batch::new(), 0);
        for (sequence, write) in writes {
            bytes += write.values().flatten().map(Vec::len).sum::<usize>();
            batch.extend(write);
            if bytes >= REPLAY_BYTES || sequence == last {
                bytes = 0;
                batch.insert(key::MOVED.to_vec(), Some(sequence.to_be_bytes().to_vec()));
                sled.commit(std::mem::take(&mut batch))?;
            }
        }
        Ok(last)
    }
}

/// Those of the writes that a database lacks to which so many came, and the number of the last one that there is. The
/// reason of a refusal is for a person.
fn lacking(
    mut writes: Vec<(u64, Batch)>,
    behind: Option<u64>,
    moved: u64,
) -> Result<(Vec<(u64, Batch)>, u64), String> {
    writes.retain(|(sequence, _)| *sequence > moved);
    writes.sort_unstable_by_key(|(sequence, _)| *sequence);
    let mut last = moved;
    for (sequence, _) in &writes {
        if *sequence != last + 1 {
            return Err(format!("write {} is missing", last + 1));
        }
        last = *sequence;
    }
    match behind.filter(|behind| *behind > last) {
        Some(behind) => Err(format!(
            "write {} is damaged, and {behind} came after it",
            last + 1
        )),
        None => Ok((writes, last)),
    }
}

/// Number of the last write that came to the database; 0 before the first.
fn moved(sled: &dyn LogEngine) -> io::Result<u64> {
    let Some(value) = sled.get(key::MOVED)? else {
        return Ok(0);
    };
    let number = value.as_slice().try_into().map(u64::from_be_bytes);
    number.map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "the number of the last write is damaged",
        )
    })
}

impl Wal {
    /// Puts the files before the database that they belong to.
    pub fn start(
        mut found: Found,
        sled: SledEngine,
        rotation: Rotation,
        fatal: FatalSignal,
    ) -> io::Result<Self> {
        let sequence = found.replay(&sled)?;
        let store = Arc::new(Store {
            recent: Mutex::default(),
            changed: Condvar::new(),
            sled: Mutex::new(Arc::new(sled)),
        });
        let mover = Mover {
            store: store.clone(),
            rotation,
            fatal,
        };
        let thread = thread::Builder::new().name("quorate-mover".to_owned());
        Ok(Self {
            files: Mutex::new(Files {
                pair: found.files,
                current: 0,
                sequence,
                buffer: Vec::new(),
            }),
            store,
            mover: Some(thread.spawn(move || mover.run())?),
        })
    }

    /// Lets the other file take over. Waits until sled has what is in that one, which is a disk that can't follow.
    fn turn(&self, files: &mut Files) -> io::Result<()> {
        let mut recent = self.store.wait_while(|recent| recent.moving.is_some())?;
        let mut full = std::mem::take(&mut recent.active);
        let sequence = files.sequence.to_be_bytes().to_vec();
        full.insert(key::MOVED.to_vec(), Some(sequence));
        recent.moving = Some(Arc::new(full));
        drop(recent);
        self.store.changed.notify_all();
        files.current = 1 - files.current;
        files.pair[files.current].begin_again();
        Ok(())
    }
}

impl LogEngine for Wal {
    fn commit(&self, batch: Batch) -> io::Result<()> {
        let mut files = lock(&self.files);
        let Files {
            pair,
            current,
            sequence,
            buffer,
        } = &mut *files;
        pair[*current].append(buffer, *sequence + 1, &batch)?;
        *sequence += 1;
        let mut recent = lock(&self.store.recent);
        if let Some(reason) = &recent.failed {
            return Err(io::Error::other(reason.clone()));
        }
        recent.active.extend(batch);
        drop(recent);
        match pair[*current].is_full() {
            true => self.turn(&mut files),
            false => Ok(()),
        }
    }

    fn get(&self, key: &[u8]) -> io::Result<Option<Value>> {
        let recent = lock(&self.store.recent);
        let layers = [Some(&recent.active), recent.moving.as_deref()];
        let found = layers
            .into_iter()
            .flatten()
            .find_map(|layer| layer.get(key));
        if let Some(value) = found {
            return Ok(value.clone());
        }
        drop(recent);
        self.store.sled().get(key)
    }

    fn scan(&self, range: Range<Key>, visit: &mut Visit<'_>) -> io::Result<()> {
        // In this order: what is moved in between is then seen twice, and not missed.
        let recent = self.store.recent_in(&range);
        let sled = self.store.sled();
        merge::scan(recent, &*sled, range, visit)
    }

    fn size_on_disk(&self) -> io::Result<u64> {
        self.store.sled().size_on_disk()
    }
}

impl Drop for Wal {
    /// What is not in sled yet is in the files: the next start takes it from there.
    fn drop(&mut self) {
        lock(&self.store.recent).closed = true;
        self.store.changed.notify_all();
        if let Some(mover) = self.mover.take()
            && mover.join().is_err()
        {
            tracing::error!("the log's mover panicked");
        }
    }
}

impl Store {
    fn sled(&self) -> Arc<SledEngine> {
        lock(&self.sled).clone()
    }

    /// The recent pairs of a range. At most two files' worth; most ranges lie in sled alone.
    fn recent_in(&self, range: &Range<Key>) -> Batch {
        let recent = lock(&self.recent);
        let layers = [recent.moving.as_deref(), Some(&recent.active)];
        let pairs = layers
            .into_iter()
            .flatten()
            .flat_map(|layer| layer.range(range.clone()));
        pairs
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }

    fn wait_while(&self, goes_on: impl Fn(&Recent) -> bool) -> io::Result<MutexGuard<'_, Recent>> {
        let recent = self
            .changed
            .wait_while(lock(&self.recent), |recent| {
                recent.failed.is_none() && goes_on(recent)
            })
            .unwrap_or_else(PoisonError::into_inner);
        match &recent.failed {
            None => Ok(recent),
            Some(reason) => Err(io::Error::other(reason.clone())),
        }
    }
}

/// Brings full files to sled, and replaces its database when it has grown too large.
struct Mover {
    store: Arc<Store>,
    rotation: Rotation,
    fatal: FatalSignal,
}

impl Mover {
    fn run(mut self) {
        let moved = panic::catch_unwind(AssertUnwindSafe(|| self.move_until_closed()));
        let reason = match moved {
            Ok(Ok(())) => return,
            Ok(Err(error)) => format!(
                "the log database can't be written: {}",
                with_next_step(&error)
            ),
            Err(_) => "the log's mover panicked; this is a defect".to_owned(),
        };
        self.fatal.raise(&reason);
        lock(&self.store.recent).failed = Some(reason);
        self.store.changed.notify_all();
    }

    fn move_until_closed(&mut self) -> io::Result<()> {
        loop {
            let recent = self
                .store
                .wait_while(|recent| recent.moving.is_none() && !recent.closed)?;
            let Some(moving) = recent.moving.clone() else {
                return Ok(());
            };
            drop(recent);
            let sled = self.store.sled();
            sled.put(&moving)?;
            lock(&self.store.recent).moving = None;
            self.store.changed.notify_all();
            if let Some(fresh) = self.rotation.run_if_due(&sled)? {
                *lock(&self.store.sled) = Arc::new(fresh);
            }
        }
    }
}

#[cfg(test)]
mod tests;
