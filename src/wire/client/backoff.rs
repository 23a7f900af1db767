//! Longer and longer pauses between rounds over all controllers.

use std::time::Duration;

use rand::Rng;

/// After the first round: about how long an election takes to begin.
const FIRST: Duration = Duration::from_millis(50);
/// A person who waits wants to notice within a second that the cluster is back.
const LONGEST: Duration = Duration::from_secs(1);

pub(super) struct Backoff {
    ceiling: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { ceiling: FIRST }
    }
}

impl Backoff {
    /// Many rounds were in vain.
    pub(super) fn is_long(&self) -> bool {
        self.ceiling == LONGEST
    }

    /// Between half of the present length and all of it; the next one is twice as long.
    pub(super) fn next(&mut self) -> Duration {
        let ceiling = self.ceiling;
        self.ceiling = (ceiling * 2).min(LONGEST);
        rand::rng().random_range(ceiling / 2..=ceiling)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_second_and_vary_by_half() {
        let mut backoff = Backoff::default();
        for millis in [50_u64, 100, 200, 400, 800, 1000, 1000, 1000] {
            let (pause, ceiling) = (backoff.next(), Duration::from_millis(millis));
            assert!(
                pause >= ceiling / 2 && pause <= ceiling,
                "{pause:?} of {ceiling:?}"
            );
        }
    }
}
