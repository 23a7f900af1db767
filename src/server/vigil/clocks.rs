//! How far the other members' wall clocks are from ours, and when that is an alarm.
//!
//! Nothing that the cluster decides hangs on a wall clock. But credentials do, and the times that people
//! are shown, and state time drifts towards the leader's: so somebody should know.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use model::{ControllerId, Timestamp};

use crate::limit;

/// By how many milliseconds another's wall clock is ahead of ours; below zero, behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skew(pub i64);

impl Skew {
    /// From what the other's clock showed when it answered, and ours when the answer came. It was given
    /// at some time of the round trip, say in the middle: that is wrong by half of it at most, and too
    /// much to be of use where the round trip was long.
    pub fn measured(theirs: Timestamp, ours: Timestamp, round_trip: Duration) -> Option<Skew> {
        if round_trip > limit::CLOCK_ROUND_TRIP {
            return None;
        }
        let under_way = i128::try_from(round_trip.as_millis() / 2).ok()?;
        let ahead = i128::from(theirs.0) + under_way - i128::from(ours.0);
        i64::try_from(ahead).ok().map(Skew)
    }

    pub fn seconds(self) -> f64 {
        let size = self.size().as_secs_f64();
        if self.0 < 0 { -size } else { size }
    }

    fn size(self) -> Duration {
        Duration::from_millis(self.0.unsigned_abs())
    }
}

/// What a round made of one member's alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Raised(Skew),
    Ended(Skew),
    /// The alarm ends for want of an answer.
    Lost,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    skew: Skew,
    at: Instant,
    alarm: Alarm,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Alarm {
    Off,
    On,
}

impl Alarm {
    /// What it is after this measurement. Near the limit it stays what it was: every measurement
    /// differs a little from the one before.
    fn after(self, skew: Skew) -> Alarm {
        let easy = limit::CLOCK_SKEW_MAX - limit::CLOCK_SKEW_SLACK;
        match skew.size() {
            size if size > limit::CLOCK_SKEW_MAX => Alarm::On,
            size if size <= easy => Alarm::Off,
            _ => self,
        }
    }
}

/// The clocks of the others as last measured.
#[derive(Debug, Default)]
pub struct Clocks(Mutex<BTreeMap<ControllerId, Seen>>);

impl Clocks {
    /// Takes in a round. What is too old after it is forgotten.
    pub fn measured(
        &self,
        skews: BTreeMap<ControllerId, Skew>,
        now: Instant,
    ) -> Vec<(ControllerId, Change)> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changes = Vec::new();
        for (id, skew) in skews {
            let before = seen.get(&id).map_or(Alarm::Off, |seen| seen.alarm);
            let alarm = before.after(skew);
            match (before, alarm) {
                (Alarm::Off, Alarm::On) => changes.push((id, Change::Raised(skew))),
                (Alarm::On, Alarm::Off) => changes.push((id, Change::Ended(skew))),
                (Alarm::Off, Alarm::Off) | (Alarm::On, Alarm::On) => {}
            }
            let at = now;
            seen.insert(id, Seen { skew, at, alarm });
        }
        seen.retain(|id, seen| {
            let kept = now.duration_since(seen.at) < limit::CLOCK_FRESH;
            if !kept && seen.alarm == Alarm::On {
                changes.push((*id, Change::Lost));
            }
            kept
        });
        changes
    }

    pub fn known(&self) -> Vec<(ControllerId, Skew)> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().map(|(id, seen)| (*id, seen.skew)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const C2: ControllerId = ControllerId(2);

    fn measured(theirs: u64, ours: u64, round_trip: u64) -> Option<Skew> {
        let round_trip = Duration::from_millis(round_trip);
        Skew::measured(Timestamp(theirs), Timestamp(ours), round_trip)
    }

    #[test]
    fn half_of_the_round_trip_is_no_skew() {
        assert_eq!(measured(10_000, 10_200, 400), Some(Skew(0)));
        assert_eq!(measured(13_000, 10_200, 400), Some(Skew(3_000)));
        assert_eq!(measured(7_000, 10_000, 0), Some(Skew(-3_000)));
        assert_eq!(measured(7_000, 10_000, 0).unwrap().seconds(), -3.0);
    }

    #[test]
    fn an_answer_that_took_long_tells_nothing_about_a_clock() {
        assert!(measured(10_000, 10_000, 500).is_some());
        assert_eq!(measured(10_000, 10_000, 501), None);
        // Nor does one from the end of time.
        assert_eq!(measured(u64::MAX, 0, 0), None);
    }

    #[test]
    fn an_alarm_begins_above_two_seconds_and_ends_well_below() {
        let (clocks, now) = (Clocks::default(), Instant::now());
        let round = |skew| clocks.measured(BTreeMap::from([(C2, Skew(skew))]), now);
        for quiet in [0, 2_000, -2_000] {
            assert_eq!(round(quiet), []);
        }
        assert_eq!(round(-2_001), [(C2, Change::Raised(Skew(-2_001)))]);
        for still in [-2_001, -1_999, 1_501, 9_000] {
            assert_eq!(round(still), []);
        }
        assert_eq!(round(1_500), [(C2, Change::Ended(Skew(1_500)))]);
        assert_eq!(round(1_999), []);
        assert_eq!(clocks.known(), [(C2, Skew(1_999))]);
    }

    #[test]
    fn a_clock_that_was_not_seen_for_long_is_not_known_and_its_alarm_ends() {
        let (clocks, begun) = (Clocks::default(), Instant::now());
        clocks.measured(BTreeMap::from([(C2, Skew(5_000))]), begun);
        let nothing = BTreeMap::new;
        let late = begun + limit::CLOCK_FRESH;
        assert_eq!(
            clocks.measured(nothing(), late - Duration::from_millis(1)),
            []
        );
        assert_eq!(clocks.known(), [(C2, Skew(5_000))]);
        assert_eq!(clocks.measured(nothing(), late), [(C2, Change::Lost)]);
        assert_eq!(clocks.known(), []);
    }
}
