//! What this controller counts by itself. The rest of `/metrics` is read when it is asked for.

use std::time::Duration;

use model::{Class, Millis};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

type ByClass = Family<[(&'static str, &'static str); 1], Histogram, fn() -> Histogram>;

/// Counters and histograms, cheap to touch.
#[derive(Debug)]
pub struct Metrics {
    pub submits: Counter,
    pub rejections: Counter,
    proposals: Counter,
    failed_proposals: Counter,
    batch: Histogram,
    latency: Histogram,
    queued: ByClass,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics {
            submits: Counter::default(),
            rejections: Counter::default(),
            proposals: Counter::default(),
            failed_proposals: Counter::default(),
            // 1 to 4,096 operations.
            batch: Histogram::new(exponential_buckets(1.0, 2.0, 13)),
            // Half a millisecond to 16 s.
            latency: Histogram::new(exponential_buckets(0.000_5, 2.0, 16)),
            // A millisecond to four and a half hours.
            queued: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.001, 4.0, 13))
            }),
        }
    }
}

impl Metrics {
    pub fn dispatched(&self, operations: usize) {
        self.proposals.inc();
        // Far below the 2^52 that a float holds exactly.
        self.batch
            .observe(u32::try_from(operations).unwrap_or(u32::MAX).into());
    }

    pub fn proposed(&self, took: Duration, committed: bool) {
        self.latency.observe(took.as_secs_f64());
        if !committed {
            self.failed_proposals.inc();
        }
    }

    /// A task of this class was assigned for the first time, after so long.
    pub fn left_the_queue(&self, class: Class, waited: Millis) {
        let waited = Duration::from_millis(waited.0).as_secs_f64();
        let queued = self.queued.get_or_create(&[("class", class.as_str())]);
        queued.observe(waited);
    }

    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "quorate_submits",
            "Submits that arrived here, repeated and refused ones too",
            self.submits.clone(),
        );
        registry.register(
            "quorate_rejections",
            "Writes that were refused when they were applied",
            self.rejections.clone(),
        );
        registry.register(
            "quorate_proposals",
            "Entries that this controller proposed as leader",
            self.proposals.clone(),
        );
        registry.register(
            "quorate_proposal_failures",
            "Proposals without a reply: no leader, no quorum, or the outcome unknown",
            self.failed_proposals.clone(),
        );
        registry.register(
            "quorate_dispatch_batch_operations",
            "Operations in one proposed entry",
            self.batch.clone(),
        );
        registry.register_with_unit(
            "quorate_proposal",
            "From proposing an entry to its being applied",
            Unit::Seconds,
            self.latency.clone(),
        );
        registry.register_with_unit(
            "quorate_queue",
            "From a submit to the first assignment, in state time",
            Unit::Seconds,
            self.queued.clone(),
        );
    }
}
