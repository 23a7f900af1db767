//! The directory of snapshots: one is current, at most one other is being made.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use durable::at;
use failpoint::Point;
use sha2::{Digest, Sha256};

use super::chunk::{self, Tally};
use super::manifest::{Manifest, Position};
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

    /// The encoded state, from its beginning.
    pub fn body(&self) -> io::Result<chunk::Body> {
        chunk::Body::open(&self.dir().join("data"), Arc::clone(&self.manifest))
    }

    /// Reads all of it, and compares it with its manifest.
    pub fn verify(&self) -> io::Result<()> {
        self.body()?.finish()
    }
}

pub struct Shelf {
    root: PathBuf,
    /// Held for a moment: consensus asks for it on its own thread.
    current: Mutex<Option<Handle>>,
    /// Held while one is made current, which waits for the disk.
    adopting: Mutex<()>,
}

impl Shelf {
    /// Opens the shelf, removes what a crash left half made, and verifies the current snapshot.
    pub fn open(data: &Path) -> io::Result<Self> {
        let root = data.join("snapshots");
        durable::create_dir(&root)?;
        let pointer = Pointer::read(&root.join("CURRENT"))?;
        let current = match &pointer {
            Some(pointer) => Some(pointer.load(&root)?),
            None => None,
        };
        sweep(&root, pointer.as_ref().map(|pointer| &*pointer.name))?;
        Ok(Self {
            root,
            current: Mutex::new(current),
            adopting: Mutex::default(),
        })
    }

    /// The current snapshot of a data directory, without changing anything there.
    pub fn look(data: &Path) -> io::Result<Option<Handle>> {
        let root = data.join("snapshots");
        let pointer = Pointer::read(&root.join("CURRENT"))?;
        pointer.map(|pointer| pointer.load(&root)).transpose()
    }

    pub fn current(&self) -> Option<Handle> {
        lock(&self.current).clone()
    }

    /// Writes a snapshot, reads it back, and makes it current. Blocks.
    pub fn build(
        &self,
        position: &Position,
        hash: &str,
        write: impl FnOnce(&mut chunk::Writer) -> io::Result<()>,
    ) -> io::Result<Handle> {
        failpoint::at(Point::SnapshotWriteBefore);
        let dir = self.incoming_dir()?;
        let path = dir.join("data");
        let mut file = chunk::Writer::create(&path)?;
        let content = write(&mut file).and_then(|()| file.finish());
        let content = content.map_err(at(&path))?;
        let manifest = Manifest::new(position, &content, hash.to_owned());
        durable::write_synced(&dir.join("manifest.json"), &manifest.encode())?;
        let handle = Handle::new(dir, manifest);
        failpoint::at(Point::SnapshotWriteAfter);
        handle.verify()?;
        self.adopt(&handle)?;
        Ok(handle)
    }

    /// Makes a snapshot current and removes the one before. A snapshot older than the current one
    /// is left alone: it was overtaken while it was made.
    pub fn adopt(&self, handle: &Handle) -> io::Result<()> {
        let _one_at_a_time = lock(&self.adopting);
        let place = handle.manifest.last_log;
        if self
            .current()
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
            failpoint::at(Point::SnapshotRenameBefore);
            fs::rename(&*dir, &path).map_err(at(&path))?;
            durable::sync_dir(&self.root)?;
            failpoint::at(Point::SnapshotRenameAfter);
            let pointer = Pointer::to(name, &handle.manifest.encode());
            durable::replace(&self.root.join("CURRENT"), pointer.encode().as_bytes())?;
            *dir = path;
        }
        let old = lock(&self.current).replace(handle.clone());
        if let Some(old) = old {
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
        handle.verify()?;
        Ok(handle)
    }
}

/// As `adopt` gives them; anything else is damage, and may lead anywhere.
fn is_name(name: &str) -> bool {
    name.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn is_incoming(dir: &Path) -> bool {
    dir.file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| name.starts_with(INCOMING))
}

/// The content of `CURRENT`: the directory in use, and the digest of its manifest, which has no checksum of
/// its own and says up to where the log is replaced.
struct Pointer {
    name: String,
    sha256: String,
}

impl Pointer {
    fn to(name: String, manifest: &[u8]) -> Self {
        let sha256 = hex::encode(Sha256::digest(manifest));
        Self { name, sha256 }
    }

    fn encode(&self) -> String {
        format!("{} {}\n", self.name, self.sha256)
    }

    fn read(path: &Path) -> io::Result<Option<Self>> {
        let Some(content) = durable::read_optional(path)? else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(&content);
        let mut words = text.split_whitespace().map(str::to_owned);
        match (words.next(), words.next(), words.next()) {
            (Some(name), Some(sha256), None) if is_name(&name) => Ok(Some(Self { name, sha256 })),
            _ => Err(damaged(path, "does not hold a name and a digest")),
        }
    }

    fn load(&self, root: &Path) -> io::Result<Handle> {
        let dir = root.join(&self.name);
        let path = dir.join("manifest.json");
        let Some(bytes) = durable::read_optional(&path)? else {
            let what = format!("names {}, which is not there", self.name);
            return Err(damaged(&root.join("CURRENT"), &what));
        };
        if hex::encode(Sha256::digest(&bytes)) != self.sha256 {
            return Err(damaged(&path, "is not the manifest that CURRENT names"));
        }
        // It is as it was written: by another release, then.
        let manifest = Manifest::decode(&bytes).map_err(|error| {
            let text = format!("{}: {error}", path.display());
            io::Error::new(io::ErrorKind::Unsupported, text)
        })?;
        Ok(Handle::new(dir, manifest))
    }
}

fn damaged(path: &Path, what: &str) -> io::Error {
    let text = format!("{}: {what}", path.display());
    io::Error::new(io::ErrorKind::InvalidData, text)
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
