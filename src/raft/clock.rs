//! State time: the clock of the log (see `docs/adr/0005`).
//!
//! A leader stamps each entry with the last stamp plus what has passed on its monotonic clock since,
//! slewed towards its wall clock by at most 1 %. So a wall clock that jumps an hour changes state time by
//! 36 s an hour at most, and never backwards: leases and deadlines neither stop nor all fire at once.
//!
//! A new leader starts from the last stamp that it applied. Its first stamp may rise by at most 5 s over
//! that one, however long there was no leader: time in which nothing could be decided hardly counts.
//! Only the very first stamp of a cluster is taken from the wall clock as it is.
//!
//! Pure: readings are passed in.

use model::{Millis, Timestamp};
use mutant::Mutant;

/// How far state time may move towards the wall clock per unit of elapsed time: 1/100.
const SLEW_DIVISOR: u64 = 100;

/// How far the first stamp of a leader may rise over the last one of its predecessor.
pub const MAX_ELECTION_RISE: Millis = Millis(5_000);

const MICROS: u64 = 1_000;

/// What the machine's clocks say at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// Microseconds on a clock that only goes forward.
    pub monotonic_micros: u64,
    pub wall: Timestamp,
}

/// State time at one moment, and the monotonic clock that went with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    pub state: Timestamp,
    pub monotonic: Millis,
}

/// The clock of one leader in one term.
#[derive(Clone, Debug)]
pub struct StateClock {
    state_micros: u64,
    monotonic_micros: u64,
}

impl StateClock {
    /// Starts after the last stamp that was applied.
    pub fn lead(last: Timestamp, clocks: Clocks) -> Self {
        let state = match last {
            Timestamp(0) => clocks.wall,
            _ if mutant::is(Mutant::StampFromWallClock) => clocks.wall,
            last => clocks.wall.clamp(last, last.plus(MAX_ELECTION_RISE)),
        };
        Self {
            state_micros: state.0.saturating_mul(MICROS),
            monotonic_micros: clocks.monotonic_micros,
        }
    }

    /// Moves on to this moment. Never goes back.
    pub fn advance(&mut self, clocks: Clocks) -> Timestamp {
        let elapsed = clocks
            .monotonic_micros
            .saturating_sub(self.monotonic_micros);
        let steady = self.state_micros.saturating_add(elapsed);
        let wall = clocks.wall.0.saturating_mul(MICROS);
        let slew = wall.abs_diff(steady).min(elapsed / SLEW_DIVISOR);
        self.state_micros = match wall >= steady {
            true => steady.saturating_add(slew),
            false => steady - slew,
        };
        self.monotonic_micros = self.monotonic_micros.max(clocks.monotonic_micros);
        Timestamp(self.state_micros / MICROS)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000;
    const HOUR_MS: u64 = 3_600_000;
    const START: Timestamp = Timestamp(1_800_000_000_000);

    fn clocks(monotonic_micros: u64, wall: u64) -> Clocks {
        Clocks {
            monotonic_micros,
            wall: Timestamp(wall),
        }
    }

    #[test]
    fn a_cluster_begins_with_the_wall_clock() {
        let clock = StateClock::lead(Timestamp(0), clocks(7, START.0)).advance(clocks(7, START.0));
        assert_eq!(clock, START);
    }

    #[test]
    fn a_new_leader_rises_at_most_five_seconds_however_long_nobody_led() {
        let day = 24 * HOUR_MS;
        let mut clock = StateClock::lead(START, clocks(0, START.0 + day));
        assert_eq!(
            clock.advance(clocks(0, START.0 + day)),
            START.plus(MAX_ELECTION_RISE)
        );
    }

    #[test]
    fn a_new_leader_whose_wall_clock_is_behind_starts_at_the_last_stamp() {
        let mut clock = StateClock::lead(START, clocks(0, START.0 - HOUR_MS));
        assert_eq!(clock.advance(clocks(0, START.0 - HOUR_MS)), START);
    }

    #[test]
    fn an_hour_forward_on_the_wall_moves_state_time_by_one_percent() {
        let mut clock = StateClock::lead(START, clocks(0, START.0));
        let after = clock.advance(clocks(10 * SECOND, START.0 + HOUR_MS));
        assert_eq!(after, START.plus(Millis(10_100)));
    }

    #[test]
    fn an_hour_back_on_the_wall_slows_state_time_by_one_percent() {
        let mut clock = StateClock::lead(START, clocks(0, START.0));
        let after = clock.advance(clocks(10 * SECOND, START.0 - HOUR_MS));
        assert_eq!(after, START.plus(Millis(9_900)));
    }

    #[test]
    fn a_steady_wall_clock_is_met_and_then_followed() {
        let mut clock = StateClock::lead(START, clocks(0, START.0 + 5));
        let mut last = START;
        for second in 1..=10 {
            last = clock.advance(clocks(second * SECOND, START.0 + 5 + second * 1_000));
        }
        assert_eq!(last, START.plus(Millis(10_005)));
    }

    #[test]
    fn a_monotonic_clock_that_stands_still_stops_state_time() {
        let mut clock = StateClock::lead(START, clocks(SECOND, START.0));
        assert_eq!(clock.advance(clocks(SECOND, START.0 + HOUR_MS)), START);
        assert_eq!(clock.advance(clocks(0, START.0 + HOUR_MS)), START);
    }

    proptest! {
        // A failing case is printed; a file of it would land beside the crates.
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn state_time_passes_within_one_percent_of_the_monotonic_clock(
            steps in prop::collection::vec((0u64..5 * SECOND, -2 * HOUR_MS as i64..2 * HOUR_MS as i64), 1..200)
        ) {
            let mut clock = StateClock::lead(START, clocks(0, START.0));
            let (mut monotonic, mut last) = (0, START);
            for (elapsed, jump) in steps {
                monotonic += elapsed;
                let wall = START.0.saturating_add_signed(jump);
                let now = clock.advance(clocks(monotonic, wall));
                let passed = now.since(last).0;
                prop_assert!(now >= last, "state time went back");
                prop_assert!(passed <= elapsed / 1_000 + elapsed / 100_000 + 2);
                prop_assert!(passed + 2 >= elapsed / 1_000 - elapsed / 100_000);
                last = now;
            }
        }
    }
}
