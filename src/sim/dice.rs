//! Chance, from the seed alone. Whoever draws does so on the one thread, so the order of draws is the same in each
//! run of a seed.

use std::ops::Range;
use std::sync::Mutex;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::trace::lock;

pub struct Dice(Mutex<SmallRng>);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(Mutex::new(SmallRng::seed_from_u64(seed)))
    }

    /// True in so many of 1,000 cases.
    pub fn permille(&self, share: u32) -> bool {
        share > 0 && lock(&self.0).random_range(0..1_000) < share
    }

    pub fn below(&self, end: u64) -> u64 {
        lock(&self.0).random_range(0..end.max(1))
    }

    pub fn within(&self, range: Range<u64>) -> u64 {
        match range.is_empty() {
            true => range.start,
            false => lock(&self.0).random_range(range),
        }
    }

    pub fn micros(&self, range: &Range<u64>) -> Duration {
        Duration::from_micros(self.within(range.clone()))
    }

    pub fn millis(&self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.within(range))
    }

    pub fn pick<'a, T>(&self, from: &'a [T]) -> Option<&'a T> {
        from.choose(&mut lock(&self.0))
    }

    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        lock(&self.0).fill(&mut bytes[..]);
        bytes
    }
}
