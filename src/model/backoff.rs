//! How long a retry waits: 1 s, doubling to 60 s, with 20 % jitter taken from a hash of the task
//! and its attempt, so that it is the same on every controller and not the same for two tasks.

use sha2::{Digest, Sha256};

use crate::id::TaskId;
use crate::time::Millis;

const FIRST: u64 = 1_000;
const LONGEST: u64 = 60_000;
const JITTER_PERCENT: u64 = 20;

/// The wait before the next attempt, after `failures` failed ones (from 1).
pub fn backoff(task: TaskId, failures: u32) -> Millis {
    let doublings = failures.saturating_sub(1).min(16);
    let base = (FIRST << doublings).min(LONGEST);
    let mut hasher = Sha256::new();
    hasher.update(task.0.to_be_bytes());
    hasher.update(failures.to_be_bytes());
    let digest: [u8; 32] = hasher.finalize().into();
    let draw = u64::from(u16::from_be_bytes([digest[0], digest[1]]));
    // Uniform in base × [1 − 20 %, 1 + 20 %].
    let span = base * 2 * JITTER_PERCENT / 100;
    Millis(base - base * JITTER_PERCENT / 100 + span * draw / u64::from(u16::MAX))
}
