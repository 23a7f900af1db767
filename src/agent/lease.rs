//! The agent's own half of its lease.
//!
//! A renewal counts from when it was *sent*, because a quorum round that began after it arrived
//! proves leadership at that time and not later. The cluster waits 15 s before it gives the work to
//! somebody else; the agent ends everything 3 s earlier. Times are on the boot clock, so that a
//! machine that was suspended wakes up without a lease.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use model::Millis;
use mutant::Mutant;

/// How long after it was sent an acknowledged renewal holds: the cluster's 15 s less a margin of
/// 3 s for killing and for clocks that run at different speeds.
pub(crate) const HOLDS: Millis = Millis(12_000);
/// How often it is renewed: two tries may be lost before the lease is.
pub(crate) const EVERY: Millis = Millis(5_000);
/// Renewals that wait for an answer; older ones could not extend the lease any more.
const PENDING_MAX: usize = 16;

#[derive(Debug, Default)]
pub(crate) struct Lease {
    /// It holds until then.
    until: Option<Millis>,
    next_nonce: u64,
    /// nonce → when it was sent.
    pending: BTreeMap<u64, Millis>,
}

impl Lease {
    /// The number of a renewal that is sent now.
    pub fn renew(&mut self, now: Millis) -> u64 {
        self.next_nonce += 1;
        self.pending.insert(self.next_nonce, now);
        while self.pending.len() > PENDING_MAX {
            self.pending.pop_first();
        }
        self.next_nonce
    }

    /// A quorum stood behind the renewal. When it was sent; nothing for one that is not known.
    pub fn acknowledged(&mut self, nonce: u64) -> Option<Millis> {
        let sent = self.pending.remove(&nonce)?;
        let holds = match mutant::is(Mutant::LeaseTooLong) {
            true => 2 * HOLDS.0,
            false => HOLDS.0,
        };
        let until = Millis(sent.0.saturating_add(holds));
        self.until = self.until.max(Some(until));
        Some(sent)
    }

    /// Until when it holds; nothing where it was never granted, or is lost.
    pub fn until(&self) -> Option<Millis> {
        self.until
    }

    pub fn holds(&self, now: Millis) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// True once: when it was held and ran out.
    pub fn take_lost(&mut self, now: Millis) -> bool {
        let lost = self.until.is_some_and(|until| now >= until);
        if lost {
            self.until = None;
        }
        lost
    }
}

/// Until when the lease holds, for threads that must know without waiting for the worker.
#[derive(Debug, Clone, Default)]
pub(crate) struct Until(Arc<AtomicU64>);

impl Until {
    pub fn set(&self, until: Millis) {
        self.0.store(until.0, Ordering::Release);
    }

    pub fn holds(&self, now: Millis) -> bool {
        now.0 < self.0.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_from_when_the_renewal_was_sent() {
        let mut lease = Lease::default();
        assert!(!lease.holds(Millis(0)));
        let nonce = lease.renew(Millis(1_000));
        assert!(!lease.holds(Millis(1_000)), "asking is not having");
        assert_eq!(lease.acknowledged(nonce), Some(Millis(1_000)));
        assert!(lease.holds(Millis(12_999)));
        assert!(!lease.holds(Millis(13_000)));
    }

    #[test]
    fn an_older_answer_never_shortens_it_and_an_unknown_one_does_nothing() {
        let mut lease = Lease::default();
        let (first, second) = (lease.renew(Millis(0)), lease.renew(Millis(5_000)));
        lease.acknowledged(second);
        lease.acknowledged(first);
        assert!(lease.holds(Millis(16_999)));
        assert_eq!(lease.acknowledged(second), None);
        assert_eq!(lease.acknowledged(99), None);
    }

    #[test]
    fn its_loss_is_told_once() {
        let mut lease = Lease::default();
        let nonce = lease.renew(Millis(0));
        lease.acknowledged(nonce);
        assert!(!lease.take_lost(Millis(11_999)));
        assert!(lease.take_lost(Millis(12_000)));
        assert!(!lease.take_lost(Millis(12_001)));
        assert!(!lease.holds(Millis(0)));
    }
}
