//! Numbers about the writer, for metrics: how often it syncs, for how long, and how much rides along.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use prometheus_client::metrics::histogram::Histogram;

use crate::sync::lock;
use crate::timings;

/// Syncs that the percentiles look back on: some seconds under load.
const WINDOW: usize = 1024;

#[derive(Clone, Debug, Default)]
pub struct StoreStats {
    /// Group commits, each of them one fdatasync.
    pub syncs: u64,
    pub entries: u64,
    pub bytes: u64,
    pub sync_p50: Duration,
    pub sync_p99: Duration,
    pub last_batch_entries: u64,
    /// On disk, as of the last look.
    pub disk_bytes: u64,
    pub live_bytes: u64,
    pub rotations: u64,
}

pub struct StatsRecorder {
    recorded: Mutex<Recorded>,
    writes: Histogram,
}

impl Default for StatsRecorder {
    fn default() -> Self {
        Self {
            recorded: Mutex::default(),
            writes: timings::histogram(),
        }
    }
}

#[derive(Default)]
struct Recorded {
    stats: StoreStats,
    recent: VecDeque<Duration>,
}

impl StatsRecorder {
    pub fn record_commit(&self, took: Duration, entries: u64, bytes: u64, live_bytes: u64) {
        self.writes.observe(took.as_secs_f64());
        let mut recorded = lock(&self.recorded);
        recorded.stats.syncs += 1;
        recorded.stats.entries += entries;
        recorded.stats.bytes += bytes;
        recorded.stats.last_batch_entries = entries;
        recorded.stats.live_bytes = live_bytes;
        if recorded.recent.len() == WINDOW {
            recorded.recent.pop_front();
        }
        recorded.recent.push_back(took);
    }

    /// How long each took, in seconds.
    pub fn writes(&self) -> Histogram {
        self.writes.clone()
    }

    pub fn live_bytes(&self) -> u64 {
        lock(&self.recorded).stats.live_bytes
    }

    pub fn record_size(&self, disk_bytes: u64) {
        lock(&self.recorded).stats.disk_bytes = disk_bytes;
    }

    pub fn record_rotation(&self) {
        lock(&self.recorded).stats.rotations += 1;
    }

    pub fn read(&self) -> StoreStats {
        let recorded = lock(&self.recorded);
        let mut sorted: Vec<_> = recorded.recent.iter().copied().collect();
        sorted.sort_unstable();
        let percentile = |percent: usize| {
            let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
            sorted.get(at).copied().unwrap_or_default()
        };
        StoreStats {
            sync_p50: percentile(50),
            sync_p99: percentile(99),
            ..recorded.stats.clone()
        }
    }
}
