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
//! deleted. What nobody reads is looked at again ([`scrub`]), while others still have it. Everything here blocks.
//!
//! Left out: who else has a blob (`held`), and how it travels (`network`).

mod files;
mod incoming;
mod scrub;

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

use crate::space::Space;
use crate::sync::lock;

pub use incoming::Progress;

/// How long a blob stays that nothing refers to (yet): an upload, and the proposal that follows it.
const PINNED: Duration = Duration::from_secs(600);

/// Files that are written at once: their syncs share the file system's own.
const WRITERS: usize = 16;

/// The blobs of one controller.
pub struct Blobs {
    dir: PathBuf,
    pinned: Duration,
    known: Mutex<Known>,
    /// What is missing, for others to see.
    missing: watch::Sender<Arc<BTreeSet<BlobDigest>>>,
    /// One writer for each that is coming in.
    turns: Mutex<BTreeMap<BlobDigest, Arc<Mutex<()>>>>,
}

/// What is here, and what should be.
#[derive(Debug, Default)]
struct Known {
    here: BTreeMap<BlobDigest, Here>,
    /// Referred to, and not here; with the entry that says so.
    missing: BTreeMap<BlobDigest, u64>,
    /// How often one was not what it should be.
    damaged: u64,
    /// Damaged files that are kept until the right one comes, or nobody wants it.
    aside: BTreeSet<BlobDigest>,
}

#[derive(Debug, Clone, Copy)]
struct Here {
    size: u64,
    pinned: Instant,
}

impl Here {
    /// Nobody asked for it for so long.
    fn is_old(&self, pinned: Duration) -> bool {
        self.pinned.elapsed() >= pinned
    }
}

/// How much is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BlobStats {
    pub blobs: u64,
    pub bytes: u64,
    /// Referred to, and not here.
    pub missing: u64,
    /// Found changed or gone on this disk since the start.
    pub damaged: u64,
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
        let found = files::list(&dir)?;
        let here = found.blobs.into_iter().map(|blob| {
            let size = blob.size;
            (blob.digest, Here { size, pinned: now })
        });
        let known = Known {
            here: here.collect(),
            aside: found.aside,
            ..Known::default()
        };
        Ok(Arc::new(Blobs {
            known: Mutex::new(known),
            missing: watch::Sender::default(),
            turns: Mutex::default(),
            dir,
            pinned,
        }))
    }

    /// What the state refers to and is not here, from now on.
    pub fn settle(&self, state: &State) {
        let mut known = lock(&self.known);
        known.missing.clear();
        known.expect(state.blobs(), state.last_applied());
        self.tell(&known);
    }

    /// The state refers to these now, too: since the entry at `index`.
    pub fn expect(&self, blobs: &[BlobRef], index: u64) {
        if blobs.is_empty() {
            return;
        }
        let mut known = lock(&self.known);
        if known.expect(blobs.iter().copied(), index) {
            self.tell(&known);
        }
    }

    /// What is not missing any more, because this state does not refer to it: of entries that it has not come to
    /// nothing is known yet.
    pub fn give_up(&self, state: &State) {
        let mut known = lock(&self.known);
        let before = known.missing.len();
        let applied = state.last_applied();
        known
            .missing
            .retain(|digest, index| *index > applied || state.has_blob(digest));
        if known.missing.len() != before {
            self.tell(&known);
        }
    }

    /// What the state refers to and is not here, as it changes.
    pub fn missing(&self) -> watch::Receiver<Arc<BTreeSet<BlobDigest>>> {
        self.missing.subscribe()
    }

    /// Keeps a blob for a while, whoever refers to it. Whether it is here.
    pub fn pin(&self, blob: &BlobRef) -> bool {
        let mut known = lock(&self.known);
        let here = known.pin(blob);
        if here && known.missing.remove(&blob.digest).is_some() {
            self.tell(&known);
        }
        here
    }

    /// Keeps these bytes: when it returns they are on disk. What is here already is not written again.
    pub fn put(&self, blobs: &[(BlobRef, &[u8])]) -> io::Result<()> {
        // Equal outputs are one blob.
        let each: BTreeMap<_, _> = blobs.iter().map(|(blob, bytes)| (*blob, *bytes)).collect();
        let new: Vec<_> = each
            .into_iter()
            .filter(|(blob, _)| !self.pin(blob))
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        self.has_room(new.iter().map(|(blob, _)| blob.size).sum())?;
        let part = new.len().div_ceil(WRITERS);
        let written: io::Result<()> = thread::scope(|scope| {
            let parts = new.chunks(part).map(|part| {
                scope.spawn(move || {
                    part.iter().try_for_each(|(blob, bytes)| {
                        let turn = self.turn(blob.digest);
                        let _one_writer = lock(&turn);
                        files::write(&self.dir, blob, bytes)
                    })
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
                self.lost(blob, &error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The same, all at once.
    #[cfg(test)]
    pub fn read_whole(&self, blob: &BlobRef) -> io::Result<Option<Vec<u8>>> {
        let Some(mut file) = self.read(blob)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut file, &mut bytes)?;
        Ok(Some(bytes))
    }

    /// Deletes what was not asked for lately and is not to be kept, and uploads that nobody went on with.
    pub fn collect(&self, keep: impl Fn(&BlobDigest) -> bool) -> io::Result<usize> {
        incoming::remove_old(&self.dir)?;
        let is_old = |it: &Here| it.is_old(self.pinned);
        let mut known = lock(&self.known);
        let old = known.here.iter().filter(|(_, it)| is_old(it));
        let old: Vec<_> = old.map(|(digest, _)| *digest).collect();
        let (kept, unwanted) = known.aside.iter().copied().partition(&keep);
        known.aside = kept;
        drop(known);
        let unwanted: BTreeSet<BlobDigest> = unwanted;
        for digest in &unwanted {
            files::forget_damaged(&self.dir, digest);
        }
        let mut collected = 0;
        for digest in old.into_iter().filter(|digest| !keep(digest)) {
            // Nobody writes it meanwhile; and whoever asks for others does not wait for the disk.
            let turn = self.turn(digest);
            let _one_writer = lock(&turn);
            let mut known = lock(&self.known);
            let still_old = known.here.get(&digest).is_some_and(is_old);
            if still_old {
                known.here.remove(&digest);
            }
            drop(known);
            if still_old {
                durable::remove(&files::path(&self.dir, &digest))?;
                collected += 1;
            }
        }
        Ok(collected)
    }

    /// Whether anything may be collected if nothing refers to it.
    pub fn has_old(&self, refers: impl Fn(&BlobDigest) -> bool) -> bool {
        let known = lock(&self.known);
        let mut here = known.here.iter();
        let mut aside = known.aside.iter();
        here.any(|(digest, it)| it.is_old(self.pinned) && !refers(digest))
            || aside.any(|digest| !refers(digest))
    }

    /// As if so much time had passed since it came, or was asked for last.
    #[cfg(test)]
    pub fn grow_older(&self, blob: &BlobRef, passed: Duration) {
        let mut known = lock(&self.known);
        let here = known.here.get_mut(&blob.digest).expect("it is here");
        let before = here.pinned.checked_sub(passed);
        here.pinned = before.expect("the clock reaches as far back");
    }

    pub fn stats(&self) -> BlobStats {
        let known = lock(&self.known);
        BlobStats {
            blobs: known.here.len() as u64,
            bytes: known.here.values().map(|it| it.size).sum(),
            missing: known.missing.len() as u64,
            damaged: known.damaged,
        }
    }

    fn came(&self, blobs: impl Iterator<Item = BlobRef>) {
        let pinned = Instant::now();
        let mut known = lock(&self.known);
        let before = known.missing.len();
        let mut replaced = Vec::new();
        for blob in blobs {
            let size = blob.size;
            known.here.insert(blob.digest, Here { size, pinned });
            known.missing.remove(&blob.digest);
            replaced.extend(known.aside.take(&blob.digest));
        }
        if known.missing.len() != before {
            self.tell(&known);
        }
        drop(known);
        for digest in replaced {
            files::forget_damaged(&self.dir, &digest);
        }
    }

    /// A file that is not what it should be is put aside until the right one comes, in case it is all there is.
    fn lost(&self, blob: &BlobRef, why: &io::Error) {
        let digest = blob.digest;
        let turn = self.turn(digest);
        let _one_writer = lock(&turn);
        // The right one may have come since.
        if files::verified(&self.dir, blob).is_ok() {
            return;
        }
        tracing::error!(%blob, error = %why, "a blob is damaged here; it is fetched from another controller");
        let mut known = lock(&self.known);
        known.damaged += u64::from(known.here.remove(&digest).is_some());
        // Whether the state refers to it is seen by whoever fetches.
        known.missing.insert(digest, 0);
        match files::put_aside(&self.dir, &digest) {
            Ok(()) => drop(known.aside.insert(digest)),
            // Then the right one is written over it.
            Err(error) => tracing::warn!(%error, "a damaged file can't be put aside"),
        }
        self.tell(&known);
    }

    fn turn(&self, digest: BlobDigest) -> Arc<Mutex<()>> {
        let mut turns = lock(&self.turns);
        // Nobody waits for the others.
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(turns.entry(digest).or_default())
    }

    fn tell(&self, known: &Known) {
        let missing = known.missing.keys().copied().collect();
        self.missing.send_replace(Arc::new(missing));
    }

    /// What is left of the disk, which the log is on as well.
    pub fn space(&self) -> io::Result<Space> {
        Space::of(&self.dir)
    }

    /// Whether so many bytes leave enough to what must not run out of space.
    fn has_room(&self, bytes: u64) -> io::Result<()> {
        let space = self.space()?;
        let (free, reserve) = (space.free, space.kept_from_blobs());
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

/// The files of a directory that are named as blobs are, without changing anything.
pub fn look(dir: &Path) -> io::Result<BTreeSet<BlobRef>> {
    files::look(dir)
}

/// Whether a directory has just these bytes.
pub fn verify(dir: &Path, blob: &BlobRef) -> Result<(), (PathBuf, io::Error)> {
    let verified = files::verify_on_disk(dir, blob);
    verified.map_err(|error| (files::path(dir, &blob.digest), error))
}

impl Known {
    /// Whether one is here; then it stays for a while.
    fn pin(&mut self, blob: &BlobRef) -> bool {
        match self.here.get_mut(&blob.digest) {
            Some(here) if here.size == blob.size => {
                here.pinned = Instant::now();
                true
            }
            Some(_) | None => false,
        }
    }

    /// Whether any of these is missing. What is here stays until whoever looks has come to this entry.
    fn expect(&mut self, blobs: impl Iterator<Item = BlobRef>, index: u64) -> bool {
        let mut lacks = false;
        for blob in blobs {
            if !self.pin(&blob) {
                self.missing.insert(blob.digest, index);
                lacks = true;
            }
        }
        lacks
    }
}
