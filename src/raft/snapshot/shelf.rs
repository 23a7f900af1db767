//! The directory of snapshots: one is current, at most one other is being made.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::chunk::{self, Tally};
use super::manifest::{Manifest, Position};
use crate::durable::{self, at};
use crate::store::codec;
use crate::sync::lock;

const INCOMING: &str = "incoming-";

/// A complete, verified snapshot on disk. While it is not on the shelf yet, dropping the last handle
/// removes it.
#[derive(Clone, Debug)]
pub struct Handle {
    pub manifest: Arc<Manifest>,
    place: Arc<Placed>,
}

#[derive(Debug)]
struct Placed {
    dir: Mutex<PathBuf>,
}

impl Drop for Placed {
    fn drop(&mut self) {
        let dir = lock(&self.dir);
        if is_incoming(&dir)
            && let Err(error) = fs::remove_dir_all(&*dir)
        {
            tracing::warn!(%error, dir = %dir.display(), "can't remove an unused snapshot");
        }
    }
}

impl Handle {
    fn new(dir: PathBuf, manifest: Manifest) -> Self {
        Self {
            manifest: Arc::new(manifest),
            place: Arc::new(Placed {
                dir: Mutex::new(dir),
            }),
        }
    }

    fn dir(&self) -> PathBuf {
        lock(&self.place.dir).clone()
    }

    /// The chunks, in order. An open reader outlives the removal of the snapshot.
    pub fn reader(&self) -> io::Result<chunk::Reader> {
        chunk::Reader::open(&self.dir().join("data"))
    }

    /// The encoded state, checked as a whole.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        chunk::read(&self.dir().join("data"), &self.manifest)
    }
}

pub struct Shelf {
    root: PathBuf,
    current: Mutex<Option<Handle>>,
}

impl Shelf {
    /// Opens the shelf, removes what a crash left half made, and verifies the current snapshot.
    pub fn open(data: &Path) -> io::Result<Self> {
        let root = data.join("snapshots");
        durable::create_dir(&root)?;
        let pointer = durable::read_optional(&root.join("CURRENT"))?;
        let name = pointer.map(|name| String::from_utf8_lossy(&name).trim().to_owned());
        let current = match &name {
            Some(name) => Some(load(root.join(name))?),
            None => None,
        };
        sweep(&root, name.as_deref())?;
        Ok(Self {
            root,
            current: Mutex::new(current),
        })
    }

    pub fn current(&self) -> Option<Handle> {
        lock(&self.current).clone()
    }

    /// Writes a snapshot, reads it back, and makes it current. Blocks.
    pub fn build(&self, position: &Position, state: &[u8], hash: &str) -> io::Result<Handle> {
        let dir = self.incoming_dir()?;
        let content = chunk::write(&dir.join("data"), state)?;
        let manifest = Manifest::new(position, &content, hash.to_owned());
        durable::write_synced(&dir.join("manifest.json"), &manifest.encode())?;
        let handle = load(dir)?;
        handle.read()?;
        self.adopt(&handle)?;
        Ok(handle)
    }

    /// Makes a snapshot current and removes the one before. A snapshot older than the current one
    /// is left alone: it was overtaken while it was made.
    pub fn adopt(&self, handle: &Handle) -> io::Result<()> {
        let mut current = lock(&self.current);
        let place = handle.manifest.last_log;
        if current
            .as_ref()
            .is_some_and(|held| held.manifest.last_log >= place)
        {
            return Ok(());
        }
        {
            let mut dir = lock(&handle.place.dir);
            durable::sync_dir(&dir)?;
            let index = place.map_or(0, |place| place.index);
            let name = format!("{index}-{:08x}", rand::random::<u32>());
            let path = self.root.join(&name);
            fs::rename(&*dir, &path).map_err(at(&path))?;
            durable::sync_dir(&self.root)?;
            durable::replace(&self.root.join("CURRENT"), name.as_bytes())?;
            *dir = path;
        }
        if let Some(old) = current.replace(handle.clone()) {
            let dir = old.dir();
            fs::remove_dir_all(&dir).map_err(at(&dir))?;
        }
        Ok(())
    }

    /// Begins to receive a snapshot whose manifest is known.
    pub fn receive(&self, manifest: Manifest) -> io::Result<Incoming> {
        let dir = self.incoming_dir()?;
        let path = dir.join("data");
        let file = File::create(&path).map_err(at(&path))?;
        let handle = Handle::new(dir, manifest);
        Ok(Incoming {
            handle,
            file,
            tally: Tally::default(),
        })
    }

    fn incoming_dir(&self) -> io::Result<PathBuf> {
        let dir = self
            .root
            .join(format!("{INCOMING}{:016x}", rand::random::<u64>()));
        durable::create_dir(&dir)?;
        Ok(dir)
    }
}

/// A snapshot on its way in; dropped half way, it leaves nothing behind.
pub struct Incoming {
    handle: Handle,
    file: File,
    tally: Tally,
}

impl Incoming {
    /// Adds a sealed chunk. Blocks.
    pub fn add(&mut self, record: &Bytes) -> io::Result<()> {
        let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
        let body = codec::open(record).map_err(|error| invalid(error.to_string()))?;
        self.tally.add(&body);
        if self.tally.bytes() > self.handle.manifest.bytes {
            return Err(invalid("more bytes than the manifest announced".to_owned()));
        }
        self.file.write_all(record).map_err(at(&self.handle.dir()))
    }

    /// Syncs it, reads it back, and compares it with its manifest. Blocks.
    pub fn finish(self) -> io::Result<Handle> {
        let Self {
            handle,
            file,
            tally,
        } = self;
        let dir = handle.dir();
        chunk::compare(&tally.finish(), &handle.manifest)?;
        file.sync_all().map_err(at(&dir))?;
        durable::write_synced(&dir.join("manifest.json"), &handle.manifest.encode())?;
        handle.read()?;
        Ok(handle)
    }
}

fn is_incoming(dir: &Path) -> bool {
    dir.file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| name.starts_with(INCOMING))
}

fn load(dir: PathBuf) -> io::Result<Handle> {
    let path = dir.join("manifest.json");
    let bytes = fs::read(&path).map_err(at(&path))?;
    let manifest = Manifest::decode(&bytes).map_err(|error| {
        let text = format!("{}: {error}", path.display());
        io::Error::new(io::ErrorKind::InvalidData, text)
    })?;
    Ok(Handle::new(dir, manifest))
}

fn sweep(root: &Path, keep: Option<&str>) -> io::Result<()> {
    for entry in fs::read_dir(root).map_err(at(root))? {
        let path = entry.map_err(at(root))?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if path.is_dir() && Some(name) != keep {
            tracing::info!(dir = %path.display(), "removing a snapshot that is not in use");
            fs::remove_dir_all(&path).map_err(at(&path))?;
        }
    }
    Ok(())
}
