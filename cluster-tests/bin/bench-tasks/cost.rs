//! What a round cost the controllers: commits and fsyncs from their metrics, processor time from `/proc`.

use std::time::Instant;

use cluster_tests::Error;
use cluster_tests::cluster::{Cluster, Metrics};
use cluster_tests::faults::process::Process;

/// Ticks of processor time in a second, as Linux shows them to programs on every machine.
pub const TICKS_PER_SECOND: f64 = 100.0;

const APPLIED: &str = "quorate_raft_applied_index";
const FSYNCS: &str = "quorate_store_syncs_total";
const ENTRIES: &str = "quorate_store_entries_total";

/// The counters at one moment.
pub struct Reading {
    at: Instant,
    leader: Metrics,
    processor_ticks: u64,
}

/// What happened between two readings.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// Entries committed a second.
    pub commits: f64,
    /// Of the leader, a second.
    pub fsyncs: f64,
    /// Of the leader.
    pub entries_per_fsync: f64,
    /// Cores busy in all controllers together.
    pub cores: f64,
}

impl Reading {
    pub async fn take(cluster: &Cluster) -> Result<Reading, Error> {
        let leader = cluster.leader().await?;
        let layout = cluster.layout()?;
        let metrics = cluster.metrics(&leader).await?;
        let processes = layout
            .controllers
            .iter()
            .filter_map(|controller| controller.pid);
        let processor_ticks = processes
            .filter_map(Process::look)
            .map(|found| found.processor_ticks)
            .sum();
        Ok(Reading {
            at: Instant::now(),
            leader: metrics,
            processor_ticks,
        })
    }

    /// From `self` until `later`.
    pub fn until(&self, later: &Reading) -> Result<Cost, Error> {
        let seconds = later.at.duration_since(self.at).as_secs_f64();
        let rise = |name: &str| {
            let missing = || Error::Invalid(format!("the leader's metrics have no {name}"));
            later.leader.since(&self.leader, name).ok_or_else(missing)
        };
        let (fsyncs, entries) = (rise(FSYNCS)?, rise(ENTRIES)?);
        let ticks = later.processor_ticks.saturating_sub(self.processor_ticks);
        Ok(Cost {
            commits: rise(APPLIED)? / seconds,
            fsyncs: fsyncs / seconds,
            entries_per_fsync: if fsyncs > 0.0 { entries / fsyncs } else { 0.0 },
            cores: ticks as f64 / TICKS_PER_SECOND / seconds,
        })
    }
}
