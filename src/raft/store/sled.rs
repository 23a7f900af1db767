//! sled as the log's engine, with the durability that it does not give by itself.
//!
//! `flush()` of sled 0.34 ends in `sync_file_range`, which does not survive a power cut. So every
//! write is flushed, and then made durable by `fdatasync` on a descriptor of our own of sled's `db`
//! file. Pages of sled that outgrow a quarter of a segment become files in `blobs/` that nothing
//! syncs; our values are too small for that, and should one appear after all, nothing is acknowledged.
//!
//! A damaged file can make sled panic, at open and later. Every call runs inside `catch_unwind`, and a
//! panic becomes an error that names the directory; the panic's own message goes to the log instead of
//! standard error.

use std::cell::Cell;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use durable::at;

use super::engine::{Batch, Key, LogEngine, Value, Visit};
use crate::sync::lock;

/// sled takes about twice what it is told. Recent entries are cached above it, so it needs little.
const CACHE_BYTES: u64 = 16 << 20;

/// Dropping a database does not wait for its file lock: somebody who reopens may find it taken.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const LOCK_RETRY: Duration = Duration::from_millis(50);

/// Longer than a tick of any clock that a file system stamps changes with.
const CLOCK_TICK: Duration = Duration::from_secs(1);

/// Pairs read between two looks whether reading wrote something: some fifteen pages.
const SETTLE_EVERY: usize = 256;

pub struct SledEngine {
    db: sled::Db,
    /// Our own descriptor of `<dir>/db`, for fdatasync.
    file: File,
    dir: PathBuf,
    blobs: PathBuf,
    /// When `blobs` had last changed as it was found empty.
    found_empty: Mutex<Option<SystemTime>>,
}

impl SledEngine {
    /// Creates a database in `dir`, which must not hold one.
    pub fn create(dir: &Path) -> io::Result<Self> {
        durable::create_dir(dir)?;
        let engine = Self::open_files(dir)?;
        engine.flush()?;
        engine.file.sync_all().map_err(at(dir))?;
        // sled writes its settings and leaves them to the kernel.
        let conf = dir.join("conf");
        File::open(&conf)
            .and_then(|conf| conf.sync_all())
            .map_err(at(&conf))?;
        durable::sync_dir(dir)?;
        durable::sync_dir(durable::parent(dir))?;
        Ok(engine)
    }

    /// Opens an existing database. A missing or empty one is an error: sled would create it anew.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let db = dir.join("db");
        let length = fs::metadata(&db).map_err(at(&db))?.len();
        if length == 0 {
            let text = format!("{}: the file is empty", db.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        remove_torn_snapshots(dir)?;
        // sled frees and shortens by what it reads, which a killed process may have left in memory only.
        File::open(&db)
            .and_then(|db| db.sync_data())
            .map_err(at(&db))?;
        Self::open_files(dir)
    }

    fn open_files(dir: &Path) -> io::Result<Self> {
        let config = sled::Config::new()
            .path(dir)
            .cache_capacity(CACHE_BYTES)
            // Our writer decides when to flush.
            .flush_every_ms(None);
        let deadline = Instant::now() + LOCK_PATIENCE;
        let db = loop {
            match guarded(dir, || config.open().map_err(io_error)) {
                Err(error) if is_locked(&error) && Instant::now() < deadline => {
                    thread::sleep(LOCK_RETRY);
                }
                result => break result?,
            }
        };
        let path = dir.join("db");
        let file = File::open(&path);
        Ok(Self {
            db,
            file: file.map_err(at(&path))?,
            dir: dir.to_owned(),
            blobs: dir.join("blobs"),
            found_empty: Mutex::default(),
        })
    }

    pub fn file(&self) -> PathBuf {
        self.dir.join("db")
    }

    /// `commit` for a batch that others read meanwhile.
    pub fn put(&self, batch: &Batch) -> io::Result<()> {
        guarded(&self.dir, || {
            let mut changes = sled::Batch::default();
            for (key, value) in batch {
                match value {
                    Some(value) => changes.insert(key.as_slice(), value.as_slice()),
                    None => changes.remove(key.as_slice()),
                }
            }
            self.db.apply_batch(changes).map_err(io_error)
        })?;
        self.sync()
    }

    fn sync(&self) -> io::Result<()> {
        self.flush()?;
        self.refuse_blobs()?;
        self.file.sync_data().map_err(at(&self.dir))
    }

    /// Reading writes, too: sled merges and splits the pages that it passes. What that changed is made durable
    /// here, and not left beside the next batch.
    /// Called inside `guarded`, which says where an error happened.
    fn settle(&self) -> io::Result<()> {
        match self.db.flush().map_err(io_error)? {
            0 => Ok(()),
            _ => self.file.sync_data(),
        }
    }

    fn flush(&self) -> io::Result<()> {
        guarded(&self.dir, || self.db.flush().map_err(io_error))?;
        Ok(())
    }

    /// The directory is read only where its time of change says that something happened in it: this is
    /// done for every commit, and reading an empty directory takes longer than all the rest of it.
    fn refuse_blobs(&self) -> io::Result<()> {
        let changed = match fs::metadata(&self.blobs).and_then(|found| found.modified()) {
            Ok(changed) => changed,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(at(&self.blobs)(error)),
        };
        let mut found_empty = lock(&self.found_empty);
        if *found_empty == Some(changed) {
            return Ok(());
        }
        let mut files = fs::read_dir(&self.blobs).map_err(at(&self.blobs))?;
        if files.next().is_some() {
            return Err(io::Error::other(format!(
                "{}: sled moved a page into a file that is never synced; nothing more is acknowledged",
                self.blobs.display()
            )));
        }
        // Two changes within a tick of the file system's clock have the same time.
        if changed.elapsed().is_ok_and(|ago| ago > CLOCK_TICK) {
            *found_empty = Some(changed);
        }
        Ok(())
    }
}

impl LogEngine for SledEngine {
    fn commit(&self, batch: Batch) -> io::Result<()> {
        self.put(&batch)
    }

    fn get(&self, key: &[u8]) -> io::Result<Option<Value>> {
        guarded(&self.dir, || {
            let value = self.db.get(key).map_err(io_error)?;
            Ok(value.map(|value| value.to_vec()))
        })
    }

    fn scan(&self, range: Range<Key>, visit: &mut Visit<'_>) -> io::Result<()> {
        guarded(&self.dir, || {
            for (number, pair) in (1_usize..).zip(self.db.range(range)) {
                let (key, value) = pair.map_err(io_error)?;
                if visit(&key, &value).is_break() {
                    break;
                }
                if number.is_multiple_of(SETTLE_EVERY) {
                    self.settle()?;
                }
            }
            self.settle()
        })
    }

    fn size_on_disk(&self) -> io::Result<u64> {
        guarded(&self.dir, || self.db.size_on_disk().map_err(io_error))
    }
}

/// A crash while sled opens leaves one behind, after which it refuses to open at all.
fn remove_torn_snapshots(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir).map_err(at(dir))? {
        let path = entry.map_err(at(dir))?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            tracing::warn!(file = %path.display(), "removing a torn snapshot of sled");
            fs::remove_file(&path).map_err(at(&path))?;
        }
    }
    durable::sync_dir(dir)
}

fn is_locked(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

fn io_error(error: sled::Error) -> io::Error {
    match error {
        // sled wraps the kind of a lock conflict into the text of another error.
        sled::Error::Io(error) if error.to_string().contains("WouldBlock") => io::Error::new(
            io::ErrorKind::WouldBlock,
            "the log is in use by another process",
        ),
        sled::Error::Io(error) => in_words(error),
        sled::Error::Corruption { at, .. } => {
            let what = match at {
                Some(at) => format!("`db` is damaged at byte {}", at.lid()),
                None => "`conf`, or another file of sled's, is damaged: what was written there does not read back".to_owned(),
            };
            io::Error::new(io::ErrorKind::InvalidData, what)
        }
        // It says so of a configuration that does not read as its own.
        sled::Error::Unsupported(why) => io::Error::new(
            io::ErrorKind::InvalidData,
            format!("`conf` is damaged, or another release's: {why}"),
        ),
        other => io::Error::new(io::ErrorKind::InvalidData, other.to_string()),
    }
}

/// An error that sled passes on is a copy, whose text is the first one's debug form.
fn in_words(error: io::Error) -> io::Error {
    let text = error.to_string();
    let message = text
        .split_once("message: \"")
        .and_then(|(_, rest)| rest.split_once('"'));
    match message {
        Some((message, _)) => io::Error::new(error.kind(), message),
        None => error,
    }
}

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs a call into sled and turns a panic into an error that names the directory.
fn guarded<T>(dir: &Path, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    quieten_guarded_panics();
    GUARDED.set(true);
    let outcome = panic::catch_unwind(AssertUnwindSafe(call));
    GUARDED.set(false);
    match outcome {
        Ok(result) => result.map_err(|error| match is_locked(&error) {
            true => error,
            false => at(dir)(error),
        }),
        Err(panic) => {
            let reason = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no reason given");
            let text = format!("{}: sled gave up: {reason}", dir.join("db").display());
            Err(io::Error::new(io::ErrorKind::InvalidData, text))
        }
    }
}

/// The default hook prints every panic, also those that are caught. Only for threads inside
/// `guarded` it is left out; everybody else's panics are printed as before.
fn quieten_guarded_panics() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !GUARDED.get() {
                previous(info);
            }
        }));
    });
}
