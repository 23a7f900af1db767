//! Quantiles of many samples, and the median and spread of a few rounds.

use std::fmt;
use std::time::Duration;

use super::{grouped, span};

/// Latencies of one round. Each is kept: there are at most some millions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Samples(Vec<Duration>);

impl Samples {
    pub fn new(mut samples: Vec<Duration>) -> Samples {
        samples.sort_unstable();
        Samples(samples)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The smallest sample that at least `percent` of all do not exceed; zero if there are none.
    pub fn percentile(&self, percent: u32) -> Duration {
        let rank = (self.0.len() * percent as usize).div_ceil(100).max(1);
        self.0.get(rank - 1).copied().unwrap_or_default()
    }

    /// Zero if there are none.
    pub fn mean(&self) -> Duration {
        let sum: Duration = self.0.iter().sum();
        sum.checked_div(u32::try_from(self.0.len()).unwrap_or(u32::MAX))
            .unwrap_or_default()
    }

    pub fn longest(&self) -> Duration {
        self.0.last().copied().unwrap_or_default()
    }

    pub fn shortest(&self) -> Duration {
        self.0.first().copied().unwrap_or_default()
    }

    pub fn add(&mut self, more: &Samples) {
        self.0.extend(&more.0);
        self.0.sort_unstable();
    }
}

/// `p50 106 ms, p99 210 ms, longest 333 ms, of 15`, with their number: of few samples the 99th percentile is the longest.
impl fmt::Display for Samples {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (half, most) = (self.percentile(50), self.percentile(99));
        write!(
            out,
            "p50 {}, p99 {}, longest {}, of {}",
            span(half),
            span(most),
            span(self.longest()),
            grouped(self.len() as u64)
        )
    }
}

/// One figure over several rounds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub lowest: f64,
    pub highest: f64,
}

impl Spread {
    /// `None` for no rounds.
    pub fn of(rounds: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut sorted: Vec<f64> = rounds.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (lowest, highest) = (*sorted.first()?, *sorted.last()?);
        let half = sorted.len() / 2;
        let median = match sorted.len() % 2 {
            0 => f64::midpoint(sorted[half - 1], sorted[half]),
            _ => sorted[half],
        };
        Some(Spread {
            median,
            lowest,
            highest,
        })
    }

    /// How far the rounds lie apart, in hundredths of the median.
    pub fn percent(&self) -> f64 {
        match self.median {
            0.0 => 0.0,
            median => (self.highest - self.lowest) / median * 100.0,
        }
    }
}
