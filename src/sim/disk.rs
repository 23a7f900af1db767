//! A controller's disk. What the log's writer was told to write and has not written is lost in a crash; what was
//! acknowledged stays. The engine below the log is a map here; snapshots and the archive are real files, as a killed
//! process leaves them.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use raft::LogIdentity;
use raft::parts::{Batch, LogEngine, MemoryEngine, Visit};
use tempfile::TempDir;

use crate::trace::lock;

/// What the disk does with the next writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mood {
    #[default]
    Well,
    /// Writes fail; whether they are there afterwards, nobody knows.
    Broken,
    /// Writes fail, and are not there.
    Full,
}

pub struct Disk {
    pub identity: LogIdentity,
    dir: TempDir,
    engine: MemoryEngine,
    mood: Mutex<Mood>,
    /// Microseconds that a write takes.
    latency: Mutex<Range<u64>>,
    /// Writes that failed because of a mood.
    failed: Mutex<BTreeMap<&'static str, u64>>,
}

/// Nobody needs these files after the run, so no disk has to keep up with it.
fn room() -> PathBuf {
    let memory = Path::new("/dev/shm");
    match memory.is_dir() {
        true => memory.to_owned(),
        false => std::env::temp_dir(),
    }
}

impl Disk {
    pub const QUICK: Range<u64> = 100..1_500;

    pub fn new(number: u64) -> io::Result<Arc<Disk>> {
        let mut identity = [0; 16];
        identity[..8].copy_from_slice(&number.to_be_bytes());
        Ok(Arc::new(Disk {
            identity: LogIdentity(identity),
            dir: tempfile::Builder::new()
                .prefix("quorate-sim-")
                .tempdir_in(room())?,
            engine: MemoryEngine::default(),
            mood: Mutex::default(),
            latency: Mutex::new(Disk::QUICK),
            failed: Mutex::default(),
        }))
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn set_mood(&self, mood: Mood) {
        *lock(&self.mood) = mood;
    }

    pub fn mood(&self) -> Mood {
        *lock(&self.mood)
    }

    pub fn set_latency(&self, latency: Range<u64>) {
        *lock(&self.latency) = latency;
    }

    pub fn latency(&self) -> Range<u64> {
        lock(&self.latency).clone()
    }

    /// How many writes failed, by what was wrong.
    pub fn failed(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.failed).clone()
    }

    fn fail(&self, why: &'static str, kind: io::ErrorKind) -> io::Error {
        *lock(&self.failed).entry(why).or_default() += 1;
        io::Error::new(kind, why)
    }
}

/// The disk in the hands of one process. Once that is gone nothing it does gets through.
pub struct Handle {
    pub disk: Arc<Disk>,
    pub alive: Arc<AtomicBool>,
}

impl LogEngine for Handle {
    fn commit(&self, batch: Batch) -> io::Result<()> {
        if !self.alive.load(Ordering::Relaxed) {
            return Err(io::Error::new(
                io::ErrorKind::BrokenPipe,
                "the process is gone",
            ));
        }
        match self.disk.mood() {
            Mood::Well => self.disk.engine.commit(batch),
            Mood::Broken => {
                // Every other time it is there all the same.
                if batch.len().is_multiple_of(2) {
                    self.disk.engine.commit(batch)?;
                }
                Err(self.disk.fail("input/output error", io::ErrorKind::Other))
            }
            Mood::Full => Err(self
                .disk
                .fail("no space left on device", io::ErrorKind::StorageFull)),
        }
    }

    fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.disk.engine.get(key)
    }

    fn scan(&self, range: Range<Vec<u8>>, visit: &mut Visit<'_>) -> io::Result<()> {
        self.disk.engine.scan(range, visit)
    }

    fn size_on_disk(&self) -> io::Result<u64> {
        self.disk.engine.size_on_disk()
    }
}
