//! The witness beside the log: the number of the last write that was acknowledged.
//!
//! For a Raft log a tail that is gone would be a vote or an acknowledged entry forgotten. So every write carries a number,
//! and after it is synced, before it is acknowledged, the number is written here. A log that opens
//! with a smaller number than the witness has lost something, and is refused.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use durable::Witness;

pub enum Mark {
    File(Witness<1>),
    /// A simulation keeps it from one process to the next.
    Memory(Arc<AtomicU64>),
}

impl Mark {
    /// Opens the witness; `None` if there is none yet.
    pub fn open(path: &Path) -> io::Result<Option<(Self, u64)>> {
        let found = Witness::open(path)?;
        Ok(found.map(|(witness, [sequence])| (Self::File(witness), sequence)))
    }

    /// Creates it, saying that nothing was acknowledged yet.
    pub fn create(path: &Path) -> io::Result<Self> {
        Witness::create(path, [0]).map(Self::File)
    }

    pub fn raise(&self, sequence: u64) -> io::Result<()> {
        match self {
            Self::File(witness) => witness.raise(sequence, [sequence]),
            Self::Memory(number) => {
                number.store(sequence, Ordering::Relaxed);
                Ok(())
            }
        }
    }
}
