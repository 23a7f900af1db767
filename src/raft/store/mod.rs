//! The log store: votes and entries on disk, in memory, and on their way between the two.
//!
//! From the bottom: `engine` is what we ask of an ordered key-value store; `memory` is one answer, `wal` the other:
//! write-ahead files in front of `sled`, and `rotate` is the watchdog over its size. `codec` and `key` say what its
//! pairs hold; `journal` makes one durable write of a group of writes, `writer` is the thread that feeds it, `mark` the
//! witness of what was acknowledged (`wal::image` has those files in memory, for a simulation); `cache` and `log` are
//! what openraft sees; `directory` opens it all. `probe` is the store without consensus, for those who cut its power.

pub mod cache;
pub mod codec;
pub mod directory;
pub mod engine;
pub mod journal;
pub mod key;
pub mod log;
pub mod mark;
pub mod memory;
pub mod probe;
pub mod rotate;
pub mod sled;
pub mod stats;
pub mod wal;
pub mod writer;

#[cfg(test)]
mod tests;
