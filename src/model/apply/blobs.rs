//! Who refers to what stands beside the log. A blob that nobody refers to any more leaves the state with the entry
//! that took the last mention of it; when its bytes go is each controller's to say.

use std::collections::BTreeSet;
use std::mem;

use crate::blob::{Blob, BlobDigest, BlobRef, Held};
use crate::command::Command;
use crate::event::Applied;
use crate::limit;
use crate::rejected::Rejected;
use crate::spec::TaskSpec;
use crate::state::State;

use super::Step;

/// What an entry did to the blobs, until it is applied.
#[derive(Debug, Clone, Default)]
pub(crate) struct Touched {
    new: Vec<BlobRef>,
    /// Somebody let go of them.
    loose: BTreeSet<BlobDigest>,
}

/// Whether a majority of the voters of this place in the log has what a command names.
pub(super) fn is_held(
    command: &Command,
    held: Option<Held>,
    step: &Step<'_>,
) -> Result<(), Rejected> {
    match command.blobs().is_empty() || held == Some(Held(step.membership)) {
        true => Ok(()),
        false => Err(Rejected::NotHeld),
    }
}

impl State {
    /// One more record in memory names these.
    pub(crate) fn hold_blobs(&mut self, refs: impl Iterator<Item = BlobRef>) {
        for blob in refs {
            let known = self.blobs.get(&blob.digest).cloned();
            if known.is_none() {
                self.touched.new.push(blob);
            }
            let mut row = known.unwrap_or(Blob {
                size: blob.size,
                held: 0,
                segment: None,
            });
            row.held += 1;
            self.put_blob(blob.digest, row);
        }
    }

    /// One record less.
    pub(crate) fn release_blobs(&mut self, refs: impl Iterator<Item = BlobRef>) {
        for blob in refs {
            if let Some(mut row) = self.blobs.get(&blob.digest).cloned() {
                row.held = row.held.saturating_sub(1);
                self.put_blob(blob.digest, row);
                self.touched.loose.insert(blob.digest);
            }
        }
    }

    /// A record in this segment of the archive names these.
    pub(super) fn mention_blobs(&mut self, segment: u64, refs: &[BlobRef]) {
        for blob in refs {
            if let Some(mut row) = self.blobs.get(&blob.digest).cloned() {
                row.segment = Some(segment);
                self.put_blob(blob.digest, row);
            }
        }
    }

    /// A segment is dropped, and what it mentioned with it.
    pub(super) fn forget_mentions(&mut self, segment: u64) {
        let mentioned = self.index.mentioned.get(&segment).cloned();
        for digest in mentioned.unwrap_or_default() {
            if let Some(mut row) = self.blobs.get(&digest).cloned() {
                row.segment = None;
                self.put_blob(digest, row);
                self.touched.loose.insert(digest);
            }
        }
    }

    /// What nobody names any more leaves; what is new is told, so that a controller can see whether it has it.
    pub(super) fn settle_blobs(&mut self, applied: &mut Applied) {
        self.drop_loose_blobs();
        let new = mem::take(&mut self.touched.new);
        let still = |blob: &BlobRef| self.blobs.get(&blob.digest).is_some();
        applied.blobs = new.into_iter().filter(still).collect();
    }

    /// Of those that somebody let go of, those that nobody else names.
    pub(super) fn drop_loose_blobs(&mut self) {
        for digest in mem::take(&mut self.touched.loose) {
            let row = self.blobs.get(&digest);
            if row.is_some_and(|row| row.held == 0 && row.segment.is_none())
                && let Some(row) = self.blobs.remove(&digest)
            {
                self.index.remove_blob(digest, &row);
            }
        }
    }

    /// Whether a spec's blobs have room, and are what they are known as.
    pub(super) fn has_room_for_blobs(&self, spec: &TaskSpec) -> Result<(), Rejected> {
        let mut bytes = self.index.blob_bytes;
        for blob in spec.blob_refs() {
            match self.blobs.get(&blob.digest) {
                None => bytes = bytes.saturating_add(blob.size),
                Some(row) if row.size == blob.size => {}
                Some(row) => {
                    let why = format!("{} has {} bytes, not {}", blob.digest, row.size, blob.size);
                    return Err(Rejected::Invalid(why));
                }
            }
        }
        match bytes > limit::BLOBS_MAX_BYTES && bytes > self.index.blob_bytes {
            true => Err(Rejected::over(
                "the size of all attached files, large specs and outputs",
                usize::try_from(limit::BLOBS_MAX_BYTES).unwrap_or(usize::MAX),
                "bytes",
            )),
            false => Ok(()),
        }
    }

    fn put_blob(&mut self, digest: BlobDigest, row: Blob) {
        if let Some(old) = self.blobs.get(&digest) {
            self.index.remove_blob(digest, old);
        }
        self.index.add_blob(digest, &row);
        self.blobs.put(digest, row);
    }
}
