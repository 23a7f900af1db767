//! Blobs on disk: one file each, named by the digest of its bytes.
//!
//! ```text
//!  upload, peer ──► incoming/DIGEST (grows; may be cut off and gone on with)
//!                       │ whole, its digest right, synced
//!                       ▼
//!                  blobs/DIGEST ──► readers (its digest right, or it counts as lost)
//! ```
//!
//! A file gets its name only when its bytes are synced, so whatever has a name was whole once. What `State` refers to
//! and is not here is *missing*: it comes from another controller. What nothing refers to is *pinned* for ten minutes,
//! counted from when it came, was asked for last, or from the start of the process; after that it may be
//! deleted. Everything here blocks.
//!
//! Left out: who else has a blob (`held`), and how it travels (`network`).

mod files;
mod incoming;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use model::{BlobDigest, BlobRef, State};
use tokio::sync::watch;

use crate::durable;
use crate::sync::lock;

pub use incoming::Progress;

/// How long a blob stays that nothing refers to (yet): an upload, and the proposal that follows it.
const PINNED: Duration = Duration::from_secs(600);

/// Space that blobs leave on the disk, or a twentieth of a small one: the log needs it, and a log that finds none ends
/// the process.
const RESERVE_BYTES: u64 = 1 << 30;
const RESERVE_PART: u64 = 20;

/// Files that are written at once: their syncs share the file system's own.
const WRITERS: usize = 16;

/// The blobs of one controller.
pub struct Blobs {
    dir: PathBuf,
    pinned: Duration,
    here: Mutex<BTreeMap<BlobDigest, Here>>,
    missing: watch::Sender<Arc<BTreeSet<BlobDigest>>>,
    /// One writer for each that is coming in.
    turns: Mutex<BTreeMap<BlobDigest, Arc<Mutex<()>>>>,
}

#[derive(Debug, Clone, Copy)]
struct Here {
    size: u64,
    pinned: Instant,
}

/// How much is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BlobStats {
    pub blobs: u64,
    pub bytes: u64,
    /// Referred to, and not here.
    pub missing: u64,
}

impl Blobs {
    /// Opens what is there.
    pub fn open(data: &Path) -> io::Result<Arc<Blobs>> {
        Self::open_with(data, PINNED)
    }

    fn open_with(data: &Path, pinned: Duration) -> io::Result<Arc<Blobs>> {
        let dir = data.join("blobs");
        durable::create_dir(&dir)?;
        durable::create_dir(&incoming::dir(&dir))?;
        incoming::remove_old(&dir)?;
        let now = Instant::now();
        let found = files::list(&dir)?.into_iter();
        let here = found.map(|blob| {
            let size = blob.size;
            (blob.digest, Here { size, pinned: now })
        });
        Ok(Arc::new(Blobs {
            here: Mutex::new(here.collect()),
            missing: watch::Sender::default(),
            turns: Mutex::default(),
            dir,
            pinned,
        }))
    }

    /// What the state refers to and is not here, from now on.
    pub fn settle(&self, state: &State) {
        let here = lock(&self.here);
        let lacks = state.blobs().filter(|blob| !has(&here, blob));
        let missing: BTreeSet<_> = lacks.map(|blob| blob.digest).collect();
        drop(here);
        self.missing.send_replace(Arc::new(missing));
    }

    /// The state refers to these now, too.
    pub fn expect(&self, blobs: &[BlobRef]) {
        let here = lock(&self.here);
        let lacks = blobs.iter().filter(|blob| !has(&here, blob));
        let lacks: Vec<_> = lacks.map(|blob| blob.digest).collect();
        drop(here);
        if !lacks.is_empty() {
            self.missing
                .send_modify(|missing| Arc::make_mut(missing).extend(lacks));
        }
    }

    /// The state does not refer to these any more.
    pub fn give_up(&self, digests: &[BlobDigest]) {
        self.missing.send_if_modified(|missing| {
            let gone = digests.iter().any(|digest| missing.contains(digest));
            if gone {
                let missing = Arc::make_mut(missing);
                missing.retain(|digest| !digests.contains(digest));
            }
            gone
        });
    }

    /// What the state refers to and is not here, as it changes.
    pub fn missing(&self) -> watch::Receiver<Arc<BTreeSet<BlobDigest>>> {
        self.missing.subscribe()
    }

    /// Keeps a blob for a while, whoever refers to it. Whether it is here.
    pub fn pin(&self, blob: &BlobRef) -> bool {
        let mut here = lock(&self.here);
        match here.get_mut(&blob.digest) {
            Some(known) if known.size == blob.size => {
                known.pinned = Instant::now();
                true
            }
            Some(_) | None => false,
        }
    }

    /// Keeps these bytes: when it returns they are on disk. What is here already is not written again.
    pub fn put(&self, blobs: &[(BlobRef, &[u8])]) -> io::Result<()> {
        let new = blobs.iter().filter(|(blob, _)| !self.pin(blob));
        let new: Vec<_> = new.collect();
        if new.is_empty() {
            return Ok(());
        }
        self.has_room(new.iter().map(|(blob, _)| blob.size).sum())?;
        let each = new.len().div_ceil(WRITERS);
        let written: io::Result<()> = thread::scope(|scope| {
            let parts = new.chunks(each).map(|part| {
                scope.spawn(move || {
                    part.iter()
                        .try_for_each(|(blob, bytes)| files::write(&self.dir, blob, bytes))
                })
            });
            let parts: Vec<_> = parts.collect();
            parts.into_iter().try_for_each(|part| {
                let ended = part.join();
                ended.unwrap_or_else(|_| Err(io::Error::other("a writer of blobs panicked")))
            })
        });
        written?;
        durable::sync_dir(&self.dir)?;
        self.came(new.iter().map(|(blob, _)| *blob));
        Ok(())
    }

    /// The bytes, which are what they should be. None where they are not here; one that is damaged is not, any more.
    pub fn read(&self, blob: &BlobRef) -> io::Result<Option<File>> {
        if !self.pin(blob) {
            return Ok(None);
        }
        match files::verified(&self.dir, blob) {
            Ok(file) => Ok(Some(file)),
            Err(error) if files::is_damage(&error) => {
                tracing::error!(%blob, %error, "a blob is damaged here; another controller has it");
                self.lost(blob.digest)?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The same, all at once.
    pub fn read_whole(&self, blob: &BlobRef) -> io::Result<Option<Vec<u8>>> {
        let Some(mut file) = self.read(blob)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut file, &mut bytes)?;
        Ok(Some(bytes))
    }

    /// Deletes what was not asked for lately and is not to be kept. `keep` is asked with everything held back, so that
    /// nothing comes back meanwhile.
    pub fn collect(&self, keep: impl Fn(&BlobDigest) -> bool) -> io::Result<usize> {
        let mut here = lock(&self.here);
        let old = here
            .iter()
            .filter(|(_, it)| it.pinned.elapsed() >= self.pinned);
        let old: Vec<_> = old.map(|(digest, _)| *digest).collect();
        let mut collected = 0;
        for digest in old.into_iter().filter(|digest| !keep(digest)) {
            files::remove(&self.dir, &digest)?;
            here.remove(&digest);
            collected += 1;
        }
        Ok(collected)
    }

    /// Whether anything may be collected if nothing refers to it.
    pub fn has_old(&self, refers: impl Fn(&BlobDigest) -> bool) -> bool {
        let here = lock(&self.here);
        here.iter()
            .any(|(digest, it)| it.pinned.elapsed() >= self.pinned && !refers(digest))
    }

    pub fn stats(&self) -> BlobStats {
        let here = lock(&self.here);
        BlobStats {
            blobs: here.len() as u64,
            bytes: here.values().map(|it| it.size).sum(),
            missing: self.missing.borrow().len() as u64,
        }
    }

    fn came(&self, blobs: impl Iterator<Item = BlobRef>) {
        let pinned = Instant::now();
        let mut digests = Vec::new();
        let mut here = lock(&self.here);
        for blob in blobs {
            let size = blob.size;
            here.insert(blob.digest, Here { size, pinned });
            digests.push(blob.digest);
        }
        drop(here);
        self.give_up(&digests);
    }

    /// A file that is not what it should be is put aside, in case it is all there is.
    fn lost(&self, digest: BlobDigest) -> io::Result<()> {
        let mut here = lock(&self.here);
        if here.remove(&digest).is_some() {
            files::put_aside(&self.dir, &digest)?;
        }
        drop(here);
        self.missing
            .send_modify(|missing| Arc::make_mut(missing).extend([digest]));
        Ok(())
    }

    /// Whether so many bytes leave enough to what must not run out of space.
    fn has_room(&self, bytes: u64) -> io::Result<()> {
        let space = files::space(&self.dir)?;
        let (free, reserve) = (space.free, RESERVE_BYTES.min(space.all / RESERVE_PART));
        match free.saturating_sub(bytes) >= reserve {
            true => Ok(()),
            false => Err(io::Error::new(
                io::ErrorKind::StorageFull,
                format!(
                    "{}: {free} bytes are free, and {reserve} of them are kept for the log",
                    self.dir.display()
                ),
            )),
        }
    }
}

fn has(here: &BTreeMap<BlobDigest, Here>, blob: &BlobRef) -> bool {
    here.get(&blob.digest)
        .is_some_and(|known| known.size == blob.size)
}
