//! When a certificate is renewed: at two thirds of its life, and after a failure again and again, less and less
//! often but several times before its end. Whoever asks tells the time, does what is to be done, and does the waiting.

use std::time::{Duration, SystemTime};

use crate::credentials::Validity;

const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// However long the life is, a cluster that is back is asked soon.
const PAUSE_LAST: Duration = Duration::from_secs(300);
/// A clock may be set and a machine may sleep, so nobody waits for the whole of a long time.
const LOOK: Duration = Duration::from_secs(600);

/// One certificate's way to the next.
#[derive(Debug, Clone, Copy, Default)]
pub struct Renewals {
    failures: u32,
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    Now,
    /// Look again after this.
    Later(Duration),
}

/// How bad it is that one could not be renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Urgency {
    /// There is time.
    Warning,
    /// Less than a tenth of its life is left.
    Alarm,
}

impl Renewals {
    pub fn due(&self, validity: &Validity, now: SystemTime) -> Due {
        match validity.renewal().duration_since(now) {
            Ok(left) if !left.is_zero() => Due::Later(left.min(LOOK)),
            Ok(_) | Err(_) => Due::Now,
        }
    }

    /// What came of a try, told in the log; how long to wait before the next look. `then`: what happens at the
    /// certificate's end.
    pub fn tried<T>(
        &mut self,
        validity: &Validity,
        now: SystemTime,
        outcome: &Result<T, String>,
        then: &str,
    ) -> Duration {
        let Err(reason) = outcome else {
            tracing::info!("renewed the certificate");
            return self.done();
        };
        let left = validity.not_after.duration_since(now).unwrap_or_default();
        let left = left.as_secs();
        match Renewals::urgency(validity, now) {
            Urgency::Warning => {
                tracing::warn!(seconds_left = left, %reason, "could not renew the certificate, and goes on trying");
            }
            Urgency::Alarm => {
                tracing::error!(seconds_left = left, %reason, "the certificate ends, and then {then}");
            }
        }
        self.failed(validity)
    }

    /// It is renewed. One that is due again at once, for its CA ends soon, is not asked for in a loop.
    fn done(&mut self) -> Duration {
        self.failures = 0;
        PAUSE_FIRST
    }

    /// How long to wait before the next try.
    fn failed(&mut self, validity: &Validity) -> Duration {
        let doubled = PAUSE_FIRST.saturating_mul(2u32.saturating_pow(self.failures));
        self.failures = self.failures.saturating_add(1);
        let most = PAUSE_LAST.min(validity.life() / 20).max(PAUSE_FIRST / 2);
        doubled.min(most)
    }

    fn urgency(validity: &Validity, now: SystemTime) -> Urgency {
        let left = validity.not_after.duration_since(now).unwrap_or_default();
        match left < validity.life() / 10 {
            true => Urgency::Alarm,
            false => Urgency::Warning,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::CLOCK_DIFFERENCE;

    fn of(life: Duration) -> (Validity, SystemTime) {
        let made = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let validity = Validity {
            not_before: made - CLOCK_DIFFERENCE,
            not_after: made + life,
        };
        (validity, made)
    }

    #[test]
    fn it_is_due_at_two_thirds_of_its_life() {
        let hour = Duration::from_secs(3600);
        let (day, made) = of(24 * hour);
        let renewals = Renewals::default();
        assert_eq!(renewals.due(&day, made), Due::Later(LOOK));
        let early = made + 16 * hour - Duration::from_secs(1);
        assert_eq!(
            renewals.due(&day, early),
            Due::Later(Duration::from_secs(1))
        );
        assert_eq!(renewals.due(&day, made + 16 * hour), Due::Now);
        assert_eq!(renewals.due(&day, made + 48 * hour), Due::Now);
    }

    #[test]
    fn there_are_many_tries_before_the_end_however_short_the_life() {
        for seconds in [12, 600, 86_400, 31_536_000] {
            let (validity, made) = of(Duration::from_secs(seconds));
            let mut renewals = Renewals::default();
            let mut now = validity.renewal();
            assert!(now > made);
            let mut tries = 0;
            while now < validity.not_after {
                tries += 1;
                now += renewals.failed(&validity);
            }
            assert!(tries >= 6, "{tries} in a life of {seconds} s");
        }
    }

    #[test]
    fn the_last_tenth_is_an_alarm() {
        let (validity, made) = of(Duration::from_secs(1000));
        let at = |seconds| Renewals::urgency(&validity, made + Duration::from_secs(seconds));
        assert_eq!(
            (at(899), at(901), at(2000)),
            (Urgency::Warning, Urgency::Alarm, Urgency::Alarm)
        );
    }
}
