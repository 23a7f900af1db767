//! The two clocks of an agent. Only the shell reads them: what decides, the worker and the lease, is
//! given the time.
//!
//! Leases are counted on `CLOCK_BOOTTIME`: unlike the monotonic clock it goes on while the machine
//! is suspended, and unlike the wall clock nobody can set it.

use std::time::{SystemTime, UNIX_EPOCH};

use model::{Millis, Timestamp};
use rustix::time::{ClockId, clock_gettime};

/// Time since the machine booted, suspended or not.
pub(crate) fn since_boot() -> Millis {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    Millis(seconds * 1000 + nanos / 1_000_000)
}

/// Wall time, for display only.
pub(crate) fn wall() -> Timestamp {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_time_goes_forward_and_is_shorter_than_wall_time() {
        let first = since_boot();
        assert!(first.0 > 0);
        assert!(since_boot() >= first);
        assert!(wall().0 > first.0);
    }
}
