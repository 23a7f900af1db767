//! A stopped controller's data directory, or a copy of one, looked at without changing anything in it.
//!
//! ```text
//!  DIR/LOCK ── held, shared: a controller that starts meanwhile is refused, and so is this while one runs
//!  DIR/log, log.mark ── copied ──► opened as a controller does, which checks every entry
//!  DIR/snapshots, archive, blobs ──► read where they are
//! ```
//!
//! The log is opened in a copy because sled writes to what it opens, and what the write-ahead files hold has to be
//! brought to it. The copy is private, and goes when the value does.
//!
//! Left out: mending anything.

mod check;
mod log;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use durable::at;
use nix::fcntl::{Flock, FlockArg};

pub use self::check::{Checked, Damaged, Part, Reached};
pub use self::log::{LogRecord, LogSummary, OfflineLog, RecordKind};

use crate::error::Error;
use crate::node_file::NodeFile;
use crate::snapshot::{Handle, Shelf};

/// A directory that no controller works on while this is held.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    node: NodeFile,
    _lock: Option<Flock<File>>,
}

/// What the current snapshot says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotSummary {
    pub index: u64,
    pub term: u64,
    /// Of the encoded state.
    pub bytes: u64,
    /// Hexadecimal.
    pub state_hash: String,
    /// Segments of the archive that belong to it.
    pub segments: usize,
}

/// Bytes of files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    pub log: u64,
    pub snapshots: u64,
    pub archive: u64,
    pub blobs: u64,
}

impl DataDir {
    pub fn open(path: &Path) -> Result<Self, Error> {
        let lock = take_lock(path)?;
        let Some(node) = NodeFile::read(path)? else {
            return Err(Error::Rejected(format!(
                "{} has no node.json: it is not the data directory of a controller",
                path.display()
            )));
        };
        Ok(Self {
            path: path.to_owned(),
            node,
            _lock: lock,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn node(&self) -> &NodeFile {
        &self.node
    }

    /// The log, with every entry of it checked. Takes as much room as it has in the directory for temporary files.
    pub fn log(&self) -> Result<OfflineLog, Error> {
        Ok(OfflineLog::open(&self.path)?)
    }

    /// `None` where there never was one. Only what it says of itself is read.
    pub fn snapshot(&self) -> Result<Option<SnapshotSummary>, Error> {
        let handle = Shelf::look(&self.path)?;
        Ok(handle.as_ref().map(summary))
    }

    pub fn sizes(&self) -> Result<Sizes, Error> {
        let of = |name: &str| bytes_below(&self.path.join(name));
        Ok(Sizes {
            log: of("log")?,
            snapshots: of("snapshots")?,
            archive: of("archive")?,
            blobs: of("blobs")?,
        })
    }

    /// Reads all that a controller would rely on.
    pub fn check(&self) -> Checked {
        check::check(self)
    }
}

fn summary(handle: &Handle) -> SnapshotSummary {
    let manifest = &handle.manifest;
    SnapshotSummary {
        index: manifest.last_log.map_or(0, |place| place.index),
        term: manifest.last_log.map_or(0, |place| place.term),
        bytes: manifest.bytes,
        state_hash: manifest.state_hash.clone(),
        segments: manifest.segments.len(),
    }
}

/// Shared, on a file that is only read: several may look at once. A copy may have none.
fn take_lock(data: &Path) -> Result<Option<Flock<File>>, Error> {
    let path = data.join("LOCK");
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at(&path)(error).into()),
    };
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, errno)) => Err(Error::Rejected(format!(
            "{} is in use by another process ({errno}); stop that controller first, or look at a copy",
            data.display()
        ))),
    }
}

/// Of a directory and all below it; 0 where there is none.
fn bytes_below(dir: &Path) -> io::Result<u64> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(at(dir)(error)),
    };
    let mut bytes = 0;
    for entry in entries {
        let entry = entry.map_err(at(dir))?;
        let found = entry.metadata().map_err(at(&entry.path()))?;
        bytes += match found.is_dir() {
            true => bytes_below(&entry.path())?,
            false => found.len(),
        };
    }
    Ok(bytes)
}
