//! What the log asks of an ordered key-value engine. Small, so that it can be replaced: sled is one
//! answer, a map in memory (tests, simulation) another.
//!
//! All calls block. One thread writes; any thread may read.

use std::collections::BTreeMap;
use std::io;
use std::ops::{ControlFlow, Range};

pub type Key = Vec<u8>;
pub type Value = Vec<u8>;

/// One atomic change: `Some` puts a value, `None` removes a key.
pub type Batch = BTreeMap<Key, Option<Value>>;

/// Looks at one pair; may end the scan.
pub type Visit<'v> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'v;

pub trait LogEngine: Send + Sync + 'static {
    /// Applies the batch as a whole, and returns only once it survives a power cut. After an error
    /// the engine may hold anything: the caller never writes to it again.
    fn commit(&self, batch: Batch) -> io::Result<()>;

    fn get(&self, key: &[u8]) -> io::Result<Option<Value>>;

    /// Visits the pairs of a range in order until `visit` breaks.
    fn scan(&self, range: Range<Key>, visit: &mut Visit<'_>) -> io::Result<()>;

    /// Bytes that it takes on disk.
    fn size_on_disk(&self) -> io::Result<u64>;
}
