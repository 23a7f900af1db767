//! How long to wait before a controller is dialled again.

use std::time::Duration;

use rand::Rng;

/// A controller that was restarted is back within a second, so the first tries are quick; and even a machine
/// that is off is asked every 2 s.
const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(2);
/// A session that lasted so long is no failure. A shorter one is: a controller that takes each session
/// and closes it would be dialled twenty times a second, for ever.
const STEADY: Duration = Duration::from_secs(5);
/// After a refusal, which trying again does not change by itself.
pub(crate) const AFTER_REFUSAL: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Begins anew after a session that lasted long enough; says whether it did.
    pub fn forgive(&mut self, lasted: Duration) -> bool {
        let steady = lasted >= STEADY;
        if steady {
            self.failures = 0;
        }
        steady
    }

    /// Doubles with each failure; a quarter of it is random, so that a fleet does not knock at
    /// once.
    pub fn next(&mut self) -> Duration {
        let full = FIRST
            .saturating_mul(1 << self.failures.min(10))
            .min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        full.mul_f64(rand::rng().random_range(0.75..1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_up_to_a_cap_and_begins_anew_after_a_session_that_lasted() {
        let mut backoff = Backoff::default();
        let waits: Vec<Duration> = (0..40).map(|_| backoff.next()).collect();
        assert!(waits[0] <= FIRST && waits[0] >= FIRST.mul_f64(0.74));
        assert!(waits.iter().all(|wait| *wait <= LONGEST));
        assert!(waits[39] >= LONGEST.mul_f64(0.74));
        assert!(!backoff.forgive(STEADY - Duration::from_millis(1)));
        assert!(backoff.next() >= LONGEST.mul_f64(0.74));
        assert!(backoff.forgive(STEADY));
        assert!(backoff.next() <= FIRST);
    }
}
