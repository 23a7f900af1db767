//! `/metrics`: what is counted as it happens, and what is looked up when it is asked for.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use model::{AgentState, StateName};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, EncodeMetric, LabelSetEncoder, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use crate::controller::Controller;

/// All metrics of a controller.
pub struct Scrape(Registry);

impl Scrape {
    pub fn new(controller: Arc<Controller>) -> Scrape {
        let mut registry = Registry::default();
        controller.metrics.register(&mut registry);
        register(&mut registry, controller.cluster.timings());
        registry.register_collector(Box::new(Now(controller)));
        Scrape(registry)
    }

    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.0)?;
        Ok(text)
    }
}

fn register(registry: &mut Registry, timings: raft::Timings) {
    registry.register_with_unit(
        "quorate_raft_apply",
        "From committed entries at hand to a state that holds them",
        Unit::Seconds,
        timings.apply,
    );
    registry.register_with_unit(
        "quorate_store_write",
        "From a write to the log to its being on disk",
        Unit::Seconds,
        timings.log_write,
    );
}

/// What is true at the moment of the question.
#[derive(Debug)]
struct Now(Arc<Controller>);

impl Collector for Now {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut sheet = Sheet(encoder);
        self.work(&mut sheet)?;
        self.blobs(&mut sheet)?;
        self.disk(&mut sheet)?;
        self.agents(&mut sheet)?;
        self.shell(&mut sheet)?;
        self.clocks(&mut sheet)?;
        let metrics = self.0.cluster.metrics();
        raft(&mut sheet, &metrics)?;
        store(&mut sheet, &metrics.store)
    }
}

impl Now {
    fn work(&self, sheet: &mut Sheet<'_>) -> fmt::Result {
        let state = self.0.cluster.view();
        let tasks =
            StateName::ALL.map(|name| (("state", name.as_str().to_owned()), state.count(name)));
        sheet.gauges(
            "quorate_tasks",
            "Task records by state, as the log has them",
            &tasks,
        )?;
        sheet.gauge(
            "quorate_queue_length",
            "Tasks that wait to be assigned",
            state.count(StateName::Queued),
        )?;
        sheet.gauge(
            "quorate_running",
            "Attempts that agents say run",
            self.0.hub.running() as u64,
        )
    }

    fn blobs(&self, sheet: &mut Sheet<'_>) -> fmt::Result {
        let stats = self.0.cluster.blob_stats();
        sheet.gauge(
            "quorate_blobs",
            "Blobs on this controller's disk",
            stats.blobs,
        )?;
        sheet.gauge("quorate_blob_bytes", "Bytes of these", stats.bytes)?;
        sheet.gauge(
            "quorate_blobs_missing",
            "Blobs that tasks refer to and that are not here (yet)",
            stats.missing,
        )?;
        sheet.counter(
            "quorate_blobs_damaged_total",
            "Blobs found changed or gone on this controller's disk",
            stats.damaged,
        )
    }

    fn disk(&self, sheet: &mut Sheet<'_>) -> fmt::Result {
        let Some(disk) = self.0.disks.of(self.0.id) else {
            return Ok(());
        };
        sheet.gauge(
            "quorate_disk_free_bytes",
            "What is left of the disk of this controller's data directory",
            disk.free,
        )?;
        sheet.gauge(
            "quorate_disk_kept_bytes",
            "With less than that left it has no room for new work",
            disk.kept,
        )
    }

    fn agents(&self, sheet: &mut Sheet<'_>) -> fmt::Result {
        let state = self.0.cluster.view();
        let count = |wanted: fn(&model::Agent) -> bool| {
            state.agents().filter(|agent| wanted(agent)).count() as u64
        };
        let agents = [
            (
                "ready",
                count(|agent| agent.state == AgentState::Ready && agent.cordon.is_none()),
            ),
            (
                "cordoned",
                count(|agent| agent.state == AgentState::Ready && agent.cordon.is_some()),
            ),
            ("lost", count(|agent| agent.state == AgentState::Lost)),
        ];
        let agents = agents.map(|(state, count)| (("state", state.to_owned()), count));
        sheet.gauges(
            "quorate_agents",
            "Registered agents by state, as the log has them",
            &agents,
        )?;
        let sessions = self.0.sessions.len() as u64;
        sheet.gauge("quorate_sessions", "Agents with a session here", sessions)
    }

    fn shell(&self, sheet: &mut Sheet<'_>) -> fmt::Result {
        let waiting = self.0.inputs.waiting() as u64;
        sheet.gauge(
            "quorate_dispatch_inputs",
            "Inputs that wait for the dispatcher",
            waiting,
        )?;
        let waited_for = self.0.hub.waiting() as u64;
        sheet.gauge(
            "quorate_waited_tasks",
            "Tasks whose end or change somebody waits for here",
            waited_for,
        )
    }

    fn clocks(&self, sheet: &mut Sheet<'_>) -> fmt::Result {
        let known = self.0.clocks.known();
        let skews: Vec<_> = known
            .iter()
            .map(|(id, skew)| (("member", id.to_string()), skew.seconds()))
            .collect();
        sheet.gauges(
            "quorate_clock_skew_seconds",
            "By how much a member's wall clock is ahead of this one's",
            &skews,
        )
    }
}

fn raft(sheet: &mut Sheet<'_>, metrics: &raft::Metrics) -> fmt::Result {
    sheet.gauge(
        "quorate_raft_leader",
        "1 where this controller leads",
        metrics.is_leader.into(),
    )?;
    sheet.gauge("quorate_raft_term", "The term as seen here", metrics.term)?;
    sheet.gauge(
        "quorate_raft_applied_index",
        "The last entry applied here",
        metrics.applied,
    )?;
    sheet.gauge(
        "quorate_raft_committed_index",
        "The last entry known to be committed",
        metrics.committed,
    )?;
    sheet.gauge(
        "quorate_raft_last_log_index",
        "The last entry in the log here",
        metrics.last_log,
    )?;
    sheet.gauge(
        "quorate_raft_snapshot_index",
        "The last entry in the latest snapshot",
        metrics.snapshot,
    )?;
    sheet.gauge(
        "quorate_raft_purged_index",
        "The last entry dropped from the log",
        metrics.purged,
    )?;
    sheet.counter(
        "quorate_raft_term_changes",
        "How often the term changed",
        metrics.term_changes,
    )?;
    sheet.counter(
        "quorate_raft_leader_changes",
        "How often the leader changed",
        metrics.leader_changes,
    )?;
    sheet.counter(
        "quorate_raft_quick_elections",
        "Elections held because the leader's process was found dead",
        metrics.quick_elections,
    )?;
    if let Some(ago) = metrics.last_quorum_ack {
        sheet.seconds(
            "quorate_raft_quorum_ack_age_seconds",
            "Since a quorum last answered this leader",
            ago,
        )?;
    }
    let lag: Vec<_> = metrics
        .lag
        .iter()
        .map(|(id, lag)| (("member", id.to_string()), *lag))
        .collect();
    sheet.gauges(
        "quorate_raft_lag_entries",
        "Entries that a member lacks, as this leader sees it",
        &lag,
    )
}

fn store(sheet: &mut Sheet<'_>, stats: &raft::StoreStats) -> fmt::Result {
    sheet.counter(
        "quorate_store_syncs",
        "Group commits, each of them one fdatasync",
        stats.syncs,
    )?;
    sheet.counter(
        "quorate_store_entries",
        "Entries written to the log",
        stats.entries,
    )?;
    sheet.counter(
        "quorate_store_bytes",
        "Bytes of entries written to the log",
        stats.bytes,
    )?;
    sheet.seconds(
        "quorate_store_sync_p50_seconds",
        "Median time of recent syncs",
        stats.sync_p50,
    )?;
    sheet.seconds(
        "quorate_store_sync_p99_seconds",
        "99th percentile of recent syncs",
        stats.sync_p99,
    )?;
    sheet.gauge(
        "quorate_store_batch_entries",
        "Entries in the last group commit",
        stats.last_batch_entries,
    )?;
    sheet.gauge(
        "quorate_store_disk_bytes",
        "What the log takes on disk",
        stats.disk_bytes,
    )?;
    sheet.gauge(
        "quorate_store_live_bytes",
        "What of it is still needed",
        stats.live_bytes,
    )?;
    sheet.counter(
        "quorate_store_rotations",
        "How often the log moved to a new database",
        stats.rotations,
    )
}

type Label = (&'static str, String);

/// Writes one metric after the other.
struct Sheet<'e>(DescriptorEncoder<'e>);

impl Sheet<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.one(name, help, &ConstGauge::new(value))
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.one(name, help, &ConstCounter::new(value))
    }

    fn seconds(&mut self, name: &str, help: &str, value: Duration) -> fmt::Result {
        self.one(name, help, &ConstGauge::new(value.as_secs_f64()))
    }

    fn one(&mut self, name: &str, help: &str, metric: &impl EncodeMetric) -> fmt::Result {
        let encoder = self
            .0
            .encode_descriptor(name, help, None, metric.metric_type())?;
        metric.encode(encoder)
    }

    fn gauges<V: EncodeGaugeValue + Copy>(
        &mut self,
        name: &str,
        help: &str,
        values: &[(Label, V)],
    ) -> fmt::Result {
        let mut encoder = self
            .0
            .encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (label, value) in values {
            ConstGauge::new(*value).encode(encoder.encode_family(&Labels(label))?)?;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Labels<'l>(&'l Label);

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let (key, value) = self.0;
        [(*key, value.as_str())].encode(encoder)
    }
}
