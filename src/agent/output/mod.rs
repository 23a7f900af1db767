//! What attempts write to stdout and stderr: the newest part on disk, the last bytes in memory.
//!
//! The executor writes into an [`AttemptLog`], and one thread, the [`writer`], takes it from there to
//! the disk: nothing that reads can hold up an attempt, and no disk its supervision. Each stream is
//! kept in segments named by the offset at which they begin, and the oldest segment goes when a
//! stream has more than its share, so that offsets stay true however much was written. The last
//! 64 KiB of each stream stay in memory too: they become the tails of the verdict, and serve
//! whoever follows without touching the disk.
//!
//! A file is made at the first byte, so attempts without output cost nothing; and a log that fits
//! wholly into the verdict's tails is removed once the cluster has that verdict.

mod attempt;
mod kept;
mod logs;
mod segments;
mod sweep;
mod writer;

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::{hang, recover};
#[cfg(test)]
pub(crate) use writer::Writer;

use std::path::PathBuf;
use std::time::Duration;

pub use attempt::Captured;
pub(crate) use attempt::{AttemptLog, Chunk};
pub use logs::Fate;
pub(crate) use logs::{Logs, Source};
pub(crate) use sweep::remove_old;

/// One of the two streams of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    pub const ALL: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

    pub fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }

    fn index(self) -> usize {
        match self {
            Stream::Stdout => 0,
            Stream::Stderr => 1,
        }
    }
}

/// Bytes in one chunk that is read: what one frame carries.
pub(crate) const CHUNK_BYTES: usize = 64 * 1024;

/// How much is kept, where, and for how long.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    pub dir: PathBuf,
    /// Bytes of one attempt, both streams together.
    pub per_attempt: u64,
    /// Bytes of all finished attempts.
    pub total: u64,
    pub retention: Duration,
}
