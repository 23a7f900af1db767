//! A controller's disk. What the log's writer was told to write and has not written is lost in a crash, or is there by
//! half; what was acknowledged stays, unless a bit of it turns. The log is the product's write-ahead files in memory, byte
//! for byte, and each start reads them again; snapshots and the archive are real files, as a killed process leaves them.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use raft::LogIdentity;
use raft::parts::{Batch, Image, LogEngine, Visit};
use tempfile::TempDir;

use crate::dice::Dice;
use crate::trace::lock;
use crate::world::World;

/// What the disk does with the next writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mood {
    #[default]
    Well,
    /// Writes fail; whether they are there afterwards, or by half, nobody knows.
    Broken,
    /// Writes fail, and are not there.
    Full,
    /// The process dies in the middle of the next write.
    Tearing,
}

pub struct Disk {
    pub identity: LogIdentity,
    pub log: Image,
    /// The number of the last write that was acknowledged, as the witness beside the log has it.
    pub acknowledged: Arc<AtomicU64>,
    dir: TempDir,
    dice: Dice,
    mood: Mutex<Mood>,
    /// Microseconds that a write takes.
    latency: Mutex<Range<u64>>,
    /// Writes that failed because of a mood.
    failed: Mutex<BTreeMap<&'static str, u64>>,
    /// Starts that found a torn record and cut it off; starts that were refused because of a bit that had turned.
    pub cut: AtomicU64,
    pub refused: AtomicU64,
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

    pub fn new(number: u64, seed: u64) -> io::Result<Arc<Disk>> {
        let mut identity = [0; 16];
        identity[..8].copy_from_slice(&number.to_be_bytes());
        let identity = LogIdentity(identity);
        Ok(Arc::new(Disk {
            identity,
            log: Image::new(identity),
            acknowledged: Arc::default(),
            dir: tempfile::Builder::new()
                .prefix("quorate-sim-")
                .tempdir_in(room())?,
            dice: Dice::new(seed),
            mood: Mutex::default(),
            latency: Mutex::new(Disk::QUICK),
            failed: Mutex::default(),
            cut: AtomicU64::new(0),
            refused: AtomicU64::new(0),
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

    /// One bit turns, of what the next start reads.
    pub fn flip(&self) {
        self.log.flip(|end| self.dice.below(end));
    }

    fn fail(&self, why: &'static str, kind: io::ErrorKind) -> io::Error {
        *lock(&self.failed).entry(why).or_default() += 1;
        io::Error::new(kind, why)
    }

    /// The first sectors of a record are there, or any of them.
    fn tear(&self, batch: Batch) {
        let (prefix, mut there) = (self.dice.permille(500), true);
        self.log.tear(batch, || {
            there = (there || !prefix) && self.dice.permille(600);
            there
        });
    }
}

/// The disk in the hands of one process. Once that is gone nothing it does gets through.
pub struct Handle {
    pub disk: Arc<Disk>,
    pub alive: Arc<AtomicBool>,
    pub world: Arc<World>,
}

impl LogEngine for Handle {
    fn commit(&self, batch: Batch) -> io::Result<()> {
        let gone = || io::Error::new(io::ErrorKind::BrokenPipe, "the process is gone");
        if !self.alive.load(Ordering::Relaxed) {
            return Err(gone());
        }
        self.world.judge.wrote(&batch);
        match self.disk.mood() {
            Mood::Well => self.disk.log.commit(batch),
            Mood::Broken => {
                match self.disk.dice.below(4) {
                    0 | 1 => self.disk.log.commit(batch)?,
                    2 => self.disk.tear(batch),
                    _ => {}
                }
                Err(self.disk.fail("input/output error", io::ErrorKind::Other))
            }
            Mood::Full => Err(self
                .disk
                .fail("no space left on device", io::ErrorKind::StorageFull)),
            Mood::Tearing => {
                self.disk.tear(batch);
                Err(gone())
            }
        }
    }

    fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.disk.log.get(key)
    }

    fn scan(&self, range: Range<Vec<u8>>, visit: &mut Visit<'_>) -> io::Result<()> {
        self.disk.log.scan(range, visit)
    }

    fn size_on_disk(&self) -> io::Result<u64> {
        self.disk.log.size_on_disk()
    }
}
