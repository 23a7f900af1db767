//! The network: every way from one place to another can be cut, and what travels takes time, is lost, or comes twice.
//!
//! Left out: bandwidth. A message is delivered as a whole or not at all, for TLS below would see to that.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Mutex;
use std::time::Duration;

use openraft_rt_sim::SimRuntime;
use raft::parts::openraft::async_runtime::AsyncRuntime;

use crate::dice::Dice;
use crate::trace::lock;

/// A machine: controllers have their own numbers, see [`agent()`] and [`client()`] for the others.
pub type Place = u64;

pub const fn agent(number: u64) -> Place {
    100 + number
}

pub const fn client(number: u64) -> Place {
    200 + number
}

/// How often somebody who waits for a way looks whether it is open.
const LOOK: Duration = Duration::from_millis(50);

/// How messages travel, wherever nothing is cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weather {
    /// Microseconds.
    pub delay: Range<u64>,
    /// Of 1,000 messages.
    pub lost: u32,
    /// Of 1,000 messages.
    pub doubled: u32,
}

impl Weather {
    pub const CALM: Weather = Weather {
        delay: 100..600,
        lost: 0,
        doubled: 0,
    };
}

/// What the network did, for the report: a fault that met nothing is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swallowed {
    pub cut: u64,
    pub lost: u64,
    pub doubled: u64,
    pub travelled: u64,
}

pub struct Network {
    dice: Dice,
    now: Mutex<Now>,
}

struct Now {
    /// For good: a fault that had only begun would break something once all is mended.
    healed: bool,
    weather: Weather,
    /// By direction: how many faults cut it.
    cut: BTreeMap<(Place, Place), u32>,
    /// By direction: the other end, or a firewall before it, says that nobody listens.
    refused: BTreeSet<(Place, Place)>,
    swallowed: Swallowed,
}

impl Network {
    pub fn new(seed: u64) -> Network {
        Network {
            dice: Dice::new(seed),
            now: Mutex::new(Now {
                healed: false,
                weather: Weather::CALM,
                cut: BTreeMap::new(),
                refused: BTreeSet::new(),
                swallowed: Swallowed::default(),
            }),
        }
    }

    pub fn set_weather(&self, weather: Weather) {
        let mut now = lock(&self.now);
        if !now.healed {
            now.weather = weather;
        }
    }

    /// Cuts ways, each in one direction. Cuts add up.
    pub fn cut(&self, ways: &[(Place, Place)]) {
        let mut now = lock(&self.now);
        if now.healed {
            return;
        }
        for way in ways {
            *now.cut.entry(*way).or_default() += 1;
        }
    }

    pub fn mend(&self, ways: &[(Place, Place)]) {
        let mut now = lock(&self.now);
        for way in ways {
            if let Some(count) = now.cut.get_mut(way) {
                *count = count.saturating_sub(1);
            }
        }
    }

    /// Nobody listens there, as seen from here; what is connected is reset.
    pub fn refuse(&self, ways: &[(Place, Place)]) {
        let mut now = lock(&self.now);
        if !now.healed {
            now.refused.extend(ways);
        }
    }

    pub fn accept(&self, ways: &[(Place, Place)]) {
        let mut now = lock(&self.now);
        now.refused.retain(|way| !ways.contains(way));
    }

    pub fn is_refused(&self, from: Place, to: Place) -> bool {
        lock(&self.now).refused.contains(&(from, to))
    }

    /// Nothing is broken here any more, and nothing will be.
    pub fn mend_all(&self) {
        let mut now = lock(&self.now);
        now.healed = true;
        now.cut.clear();
        now.refused.clear();
        now.weather = Weather::CALM;
    }

    pub fn is_open(&self, from: Place, to: Place) -> bool {
        lock(&self.now)
            .cut
            .get(&(from, to))
            .is_none_or(|count| *count == 0)
    }

    pub fn swallowed(&self) -> Swallowed {
        lock(&self.now).swallowed
    }

    /// Comes back when a message has arrived; never, where it is lost.
    pub async fn travel(&self, from: Place, to: Place) {
        let (delay, lost) = {
            let weather = lock(&self.now).weather.clone();
            let delay = self.dice.micros(&weather.delay);
            (delay, self.dice.permille(weather.lost))
        };
        SimRuntime::sleep(delay).await;
        let gone = {
            let open = self.is_open(from, to);
            let mut now = lock(&self.now);
            match (open, lost) {
                (false, _) => now.swallowed.cut += 1,
                (true, true) => now.swallowed.lost += 1,
                (true, false) => now.swallowed.travelled += 1,
            }
            !open || lost
        };
        if gone {
            std::future::pending::<()>().await;
        }
    }

    /// The same on a connection, which sends again what was lost, as long as `limit`. False where it gave up.
    pub async fn carry(&self, from: Place, to: Place, limit: Duration) -> bool {
        let weather = lock(&self.now).weather.clone();
        let mut delay = self.dice.micros(&weather.delay);
        while self.dice.permille(weather.lost) {
            lock(&self.now).swallowed.lost += 1;
            delay += Duration::from_millis(200);
        }
        SimRuntime::sleep(delay).await;
        let mut waited = Duration::ZERO;
        while !self.is_open(from, to) {
            if waited >= limit {
                lock(&self.now).swallowed.cut += 1;
                return false;
            }
            SimRuntime::sleep(LOOK).await;
            waited += LOOK;
        }
        lock(&self.now).swallowed.travelled += 1;
        true
    }

    /// Whether this message comes a second time, and how long after the first.
    pub fn doubled(&self) -> Option<Duration> {
        let weather = lock(&self.now).weather.clone();
        self.dice.permille(weather.doubled).then(|| {
            lock(&self.now).swallowed.doubled += 1;
            self.dice.micros(&weather.delay)
        })
    }
}
