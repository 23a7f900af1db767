//! What clients did and saw, what was broken meanwhile, and who led: everything of a run that is judged later.
//!
//! ```text
//!  clients ──► Recorder ──► History ──► a file of JSON lines ──► History ──► checkers, report
//!  faults  ──►
//!  leaders ──►
//! ```
//!
//! All times are of the harness's monotonic clock, counted from the recorder's start, so that two clients' times can be
//! compared. An operation that was answered took effect between the two times of its record; one whose outcome is
//! unknown may take effect at any time after its first, or never.
//!
//! Left out: who makes the operations (`traffic`), who breaks things (`faults`), and any judgement (`checkers`).

mod file;
mod operation;
mod recorder;
mod timeline;
mod value;

pub use operation::{Action, Answer, Operation, Outcome, Position, SpecSeen, Value};
pub use recorder::{OpenFault, Pending, Recorder};
pub use timeline::{Effect, Fault, Gauge, Heard, Reign};
pub use value::{AgentSeen, Order, ResultSeen, SeenEvent, TaskSeen, TaskState};

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// Microseconds since the recorder's start.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Moment(pub u64);

impl Moment {
    pub fn of(since_start: std::time::Duration) -> Moment {
        Moment(u64::try_from(since_start.as_micros()).unwrap_or(u64::MAX))
    }

    pub fn seconds(self) -> f64 {
        self.0 as f64 / 1_000_000.0
    }

    pub fn since(self, earlier: Moment) -> std::time::Duration {
        std::time::Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// One run, as far as it was seen from outside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// In the order in which they were invoked.
    pub operations: Vec<Operation>,
    /// What streams of events told, in the order in which it came.
    pub heard: Vec<Heard>,
    pub faults: Vec<Fault>,
    pub reigns: Vec<Reign>,
    /// In the order of their moments.
    pub gauges: Vec<Gauge>,
}

/// Indexes in their order, each with when an answer that names it or a later one came first.
#[derive(Debug, Clone)]
pub struct Shown(Vec<(u64, Moment)>);

impl Shown {
    /// When the first answer came that knows of an entry.
    pub fn at(&self, index: u64) -> Option<Moment> {
        let from = self.0.partition_point(|(told, _)| *told < index);
        self.0.get(from).map(|(_, at)| *at)
    }
}

impl History {
    /// When the entries of the log showed first.
    pub fn shown(&self) -> Shown {
        let told = |it: &Operation| Some((it.index()?, it.answered?));
        let mut told: Vec<(u64, Moment)> = self.operations.iter().filter_map(told).collect();
        told.sort_unstable();
        let mut soonest = Moment(u64::MAX);
        for (_, at) in told.iter_mut().rev() {
            soonest = soonest.min(*at);
            *at = soonest;
        }
        Shown(told)
    }

    /// Operations that were acknowledged, refused, and whose outcome is unknown.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for operation in &self.operations {
            match operation.outcome {
                Outcome::Ok(_) => counts.ok += 1,
                Outcome::Refused { .. } => counts.refused += 1,
                Outcome::Unknown { .. } => counts.unknown += 1,
            }
        }
        counts
    }

    /// As the streams of events tell it.
    pub fn expiries(&self) -> Expiries {
        let heard = self.heard.iter().flat_map(|message| &message.events);
        let of = |kind: &str| -> BTreeSet<(u64, u32, &str)> {
            let events = heard.clone().filter(|event| event.kind == kind);
            events
                .map(|event| (event.index, event.n, &*event.agent))
                .collect()
        };
        let lost = of("agent_lost");
        let with_them: BTreeSet<(u64, &str)> = lost.iter().map(|it| (it.0, it.2)).collect();
        let ended = of("attempt_ended");
        let attempts = ended.iter().filter(|it| with_them.contains(&(it.0, it.2)));
        Expiries {
            leases: lost.len() as u64,
            attempts: attempts.count() as u64,
        }
    }

    /// The last moment that anything in it names.
    pub fn end(&self) -> Moment {
        let operations = self.operations.iter();
        let operations = operations.map(|it| it.answered.unwrap_or(it.invoked));
        let heard = self.heard.iter().map(|it| it.at);
        let faults = self.faults.iter();
        let faults = faults.flat_map(|it| [Some(it.begun), it.healed].into_iter().flatten());
        let reigns = self.reigns.iter();
        let reigns = reigns.flat_map(|it| [Some(it.from), it.until].into_iter().flatten());
        let all = operations.chain(heard).chain(faults).chain(reigns);
        all.max().unwrap_or_default()
    }
}

/// Leases of agents that ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Expiries {
    pub leases: u64,
    /// Attempts that were lost with them.
    pub attempts: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    pub ok: u64,
    pub refused: u64,
    pub unknown: u64,
}

impl Counts {
    pub fn total(self) -> u64 {
        self.ok + self.refused + self.unknown
    }
}
