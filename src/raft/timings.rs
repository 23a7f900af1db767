//! How long the two steps take that everything waits for, as histograms for whoever shows metrics.

use prometheus_client::metrics::histogram::Histogram;

/// Upper ends in seconds: from what is usual to what would call an election.
const ENDS: [f64; 11] = [
    0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
];

pub fn histogram() -> Histogram {
    Histogram::new(ENDS)
}

/// In seconds. Clones count together.
#[derive(Clone, Debug)]
pub struct Timings {
    /// Applying committed entries, some 2,048 operations at the most, until readers have a view with them. Entries
    /// that are no longer in memory are read from disk meanwhile.
    pub apply: Histogram,
    /// One write to the log, until it is on disk.
    pub log_write: Histogram,
}
