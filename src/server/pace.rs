//! How often one address may try to join: a secret can't be guessed, but each try costs a signature check and a
//! read of a quorum.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;
use wire::status::{Code, Failure};

use crate::limit;

/// A bucket for each address: full at first, and filled again at a steady pace.
#[derive(Debug, Default)]
pub struct Pace {
    buckets: Mutex<HashMap<IpAddr, Bucket>>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    fn filled(self, now: Instant) -> Bucket {
        let most = f64::from(limit::ENROLMENTS_PER_SECOND);
        let gained = now.duration_since(self.at).as_secs_f64() * most;
        Bucket {
            left: (self.left + gained).min(most),
            at: now,
        }
    }

    fn is_full(self, now: Instant) -> bool {
        self.filled(now).left >= f64::from(limit::ENROLMENTS_PER_SECOND)
    }
}

impl Pace {
    pub fn take(&self, address: IpAddr) -> Result<(), Failure> {
        self.take_at(address, Instant::now())
    }

    fn take_at(&self, address: IpAddr, now: Instant) -> Result<(), Failure> {
        let most = limit::ENROLMENTS_PER_SECOND;
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= limit::ENROLMENT_ADDRESSES {
            buckets.retain(|_, bucket| !bucket.is_full(now));
        }
        if buckets.len() >= limit::ENROLMENT_ADDRESSES {
            // So many at once are no machines of one's own.
            return Err(Failure::new(Code::Busy, "too many addresses try to join"));
        }
        let fresh = Bucket {
            left: f64::from(most),
            at: now,
        };
        let bucket = buckets.entry(address).or_insert(fresh);
        *bucket = bucket.filled(now);
        if bucket.left < 1.0 {
            let why = format!("{address} tries to join more than {most} times a second");
            return Err(Failure::new(Code::OverLimit, why).with_hint("try again in a second"));
        }
        bucket.left -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_address_has_five_tries_a_second_and_its_neighbour_has_its_own() {
        let pace = Pace::default();
        let (one, other) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let start = Instant::now();
        for _ in 0..limit::ENROLMENTS_PER_SECOND {
            pace.take_at(one, start).unwrap();
        }
        assert_eq!(pace.take_at(one, start).unwrap_err().code, Code::OverLimit);
        pace.take_at(other, start).unwrap();
        let later = start + Duration::from_millis(250);
        pace.take_at(one, later).unwrap();
        pace.take_at(one, later).unwrap_err();
        let much_later = start + Duration::from_secs(60);
        for _ in 0..limit::ENROLMENTS_PER_SECOND {
            pace.take_at(one, much_later).unwrap();
        }
        pace.take_at(one, much_later).unwrap_err();
    }

    #[test]
    fn addresses_that_are_quiet_again_are_forgotten() {
        let pace = Pace::default();
        let start = Instant::now();
        for number in 0..u32::try_from(limit::ENROLMENT_ADDRESSES).unwrap() {
            pace.take_at(IpAddr::from(number.to_be_bytes()), start)
                .unwrap();
        }
        let newcomer = "fd00::1".parse().unwrap();
        assert_eq!(pace.take_at(newcomer, start).unwrap_err().code, Code::Busy);
        pace.take_at(newcomer, start + Duration::from_secs(2))
            .unwrap();
    }
}
