//! Where segments are kept: one database each, made once and removed whole. Small, so that it can be
//! replaced: sled is one answer, maps in memory (tests, simulation) another.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::Engine;
use crate::durable::{self, at};
use crate::store::memory::MemoryEngine;
use crate::store::sled::SledEngine;
use crate::sync::lock;

/// A segment is read seldom, and many are open: sled takes about twice as much.
const CACHE_BYTES: u64 = 4 << 20;

/// All calls block.
pub trait SegmentEngines: Send + Sync + 'static {
    /// The segments that are there, also such as were never completed.
    fn list(&self) -> io::Result<Vec<u64>>;

    /// `None` where there is none, or one that was not even begun when the process ended.
    fn open(&self, first: u64) -> io::Result<Option<Engine>>;

    /// Makes an empty one, in the place of whatever is there.
    fn create(&self, first: u64) -> io::Result<Engine>;

    /// Removes one; fine if it is not there.
    fn remove(&self, first: u64) -> io::Result<()>;
}

/// `<data>/archive/<first index>/`.
pub struct SledSegments {
    root: PathBuf,
}

impl SledSegments {
    pub fn open(data: &Path) -> io::Result<Self> {
        let root = data.join("archive");
        durable::create_dir(&root)?;
        Ok(Self { root })
    }

    fn path(&self, first: u64) -> PathBuf {
        self.root.join(format!("{first:020}"))
    }
}

impl SegmentEngines for SledSegments {
    fn list(&self) -> io::Result<Vec<u64>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(at(&self.root))? {
            let name = entry.map_err(at(&self.root))?.file_name();
            found.extend(name.to_str().and_then(|name| name.parse::<u64>().ok()));
        }
        found.sort_unstable();
        Ok(found)
    }

    fn open(&self, first: u64) -> io::Result<Option<Engine>> {
        let path = self.path(first);
        let begun = fs::metadata(path.join("db")).is_ok_and(|db| db.len() > 0);
        match begun {
            true => Ok(Some(Arc::new(SledEngine::open(&path, CACHE_BYTES)?))),
            false => Ok(None),
        }
    }

    fn create(&self, first: u64) -> io::Result<Engine> {
        self.remove(first)?;
        let engine = SledEngine::create(&self.path(first), CACHE_BYTES)?;
        Ok(Arc::new(engine))
    }

    fn remove(&self, first: u64) -> io::Result<()> {
        let path = self.path(first);
        match fs::remove_dir_all(&path) {
            Ok(()) => durable::sync_dir(&self.root),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(at(&path)(error)),
        }
    }
}

/// Segments in memory.
#[derive(Default)]
pub struct MemorySegments {
    segments: Mutex<BTreeMap<u64, Arc<MemoryEngine>>>,
}

impl SegmentEngines for MemorySegments {
    fn list(&self) -> io::Result<Vec<u64>> {
        Ok(lock(&self.segments).keys().copied().collect())
    }

    fn open(&self, first: u64) -> io::Result<Option<Engine>> {
        let found = lock(&self.segments).get(&first).cloned();
        Ok(found.map(|engine| -> Engine { engine }))
    }

    fn create(&self, first: u64) -> io::Result<Engine> {
        let engine = Arc::new(MemoryEngine::default());
        lock(&self.segments).insert(first, engine.clone());
        Ok(engine)
    }

    fn remove(&self, first: u64) -> io::Result<()> {
        lock(&self.segments).remove(&first);
        Ok(())
    }
}
