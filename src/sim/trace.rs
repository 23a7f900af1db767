//! What happened, line by line, with the virtual time. Two runs of a seed have the same lines, so their digests agree;
//! the last lines, or all of them, are for whoever looks for the cause of something.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use openraft_rt_sim::SimInstant;
use raft::parts::openraft::Instant;
use sha2::{Digest, Sha256};

/// Lines that are kept where not all of them are.
const KEPT: usize = 400;

/// A panic elsewhere in a run is told by its own message, not by a poisoned lock.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub struct Trace {
    began: SimInstant,
    kept: usize,
    lines: Mutex<Lines>,
}

#[derive(Default)]
struct Lines {
    digest: Sha256,
    last: VecDeque<String>,
}

impl Trace {
    /// Must be made inside of the runtime, whose clock it reads.
    pub fn new(all: bool) -> Trace {
        Trace {
            began: SimInstant::now(),
            kept: if all { usize::MAX } else { KEPT },
            lines: Mutex::default(),
        }
    }

    /// Microseconds of virtual time since the beginning.
    pub fn micros(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    pub fn say(&self, what: impl std::fmt::Display) {
        let line = format!("{:>12} {what}", self.micros());
        let mut lines = lock(&self.lines);
        lines.digest.update(line.as_bytes());
        lines.digest.update(b"\n");
        if lines.last.len() >= self.kept {
            lines.last.pop_front();
        }
        lines.last.push_back(line);
    }

    pub fn digest(&self) -> [u8; 32] {
        lock(&self.lines).digest.clone().finalize().into()
    }

    pub fn lines(&self) -> Vec<String> {
        lock(&self.lines).last.iter().cloned().collect()
    }
}
