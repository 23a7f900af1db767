//! Snapshots: the whole state at one index, in a directory that is written once.
//!
//! ```text
//! <data>/snapshots/CURRENT                 name of the directory in use, sha256 of its manifest
//! <data>/snapshots/<index>-<random>/       manifest.json and data (sealed chunks)
//! <data>/snapshots/incoming-<random>/      being written or received; swept at start
//! ```
//!
//! A snapshot is written and synced, opened again and verified against its manifest, renamed, and only
//! then made current; so the log that it replaces is purged only after it is known to be readable.
//! Chunks are plain files rather than a database: they are written once, read in order, and checked by
//! a checksum each and a digest over all, which is all that they need.

pub mod chunk;
pub mod manifest;
pub mod shelf;

#[cfg(test)]
mod tests;

pub use shelf::{Handle, Shelf};
