//! Reading again what nobody reads, so that a change on this disk is found while another one still has the bytes.

use std::ops::Bound;

use model::{BlobDigest, BlobRef};

use super::{Blobs, files};
use crate::sync::lock;

impl Blobs {
    /// Reads the next blob after this one, in the order of their digests, and says which that was; none after the last.
    /// One that has changed counts as missing from now on. A look keeps nothing from being deleted.
    pub fn scrub_after(&self, last: Option<BlobDigest>) -> Option<BlobRef> {
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        let known = lock(&self.known);
        let (digest, here) = known.here.range((from, Bound::Unbounded)).next()?;
        let (digest, size) = (*digest, here.size);
        drop(known);
        let blob = BlobRef { digest, size };
        let turn = self.turn(blob.digest);
        // It is neither deleted nor replaced meanwhile.
        let one_writer = lock(&turn);
        let is_here = lock(&self.known).here.contains_key(&blob.digest);
        let seen = match is_here {
            true => files::verify_on_disk(&self.dir, &blob),
            false => Ok(()),
        };
        drop(one_writer);
        match seen {
            Ok(()) => {}
            Err(error) if files::is_damage(&error) => self.lost(&blob, &error),
            // It says nothing of the others.
            Err(error) => tracing::warn!(%blob, %error, "a blob could not be read again"),
        }
        Some(blob)
    }
}
