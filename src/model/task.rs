//! A task's record: where it is in its life, and what happened to it so far.
//!
//! The spec and the result stand in tables of their own, written once each, so that a step of a
//! task's life rewrites (and hashes) only this small record.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thin_vec::ThinVec;

use crate::class::{Class, Precedence};
use crate::id::{AgentId, Epoch, Incarnation, TaskId};
use crate::resource::Gpus;
use crate::share::Tenant;
use crate::spec::{Kind, TaskSpec};
use crate::time::{Millis, Timestamp};
use crate::trace::TraceRecord;
use crate::trailing::{Unset, positional};

/// One try of a task on one agent.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Attempt {
    pub agent: AgentId,
    pub incarnation: Incarnation,
    pub epoch: Epoch,
    /// State time of its assignment; 0 where the state was too old to say, and nobody is charged for it.
    #[serde(default)]
    pub since: Timestamp,
    /// What its tenant was charged for it then, in slot-milliseconds.
    #[serde(default)]
    pub reserved: u64,
    /// Which of its agent's GPUs it has, where it asked for any.
    #[serde(default)]
    pub gpus: Gpus,
    /// When the task was expected to start, if it waited for long enough to be asked about.
    #[serde(default)]
    pub estimate: Option<Estimate>,
    /// The task that has got its place. Its agent was told to end it; until that has happened its task goes nowhere else,
    /// and the other one does not begin.
    #[serde(default)]
    pub preempted_by: Option<TaskId>,
}

positional!(Attempt { agent, incarnation, epoch } later { since, reserved, gpus, estimate, preempted_by });

/// When a task that waited was expected to start, in state time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Estimate {
    pub made: Timestamp,
    pub start: Timestamp,
}

impl Attempt {
    /// How long it was expected to wait from then on, and how long it did.
    pub fn waits(&self) -> Option<(Millis, Millis)> {
        let estimate = self.estimate.filter(|_| self.since.0 > 0)?;
        let (expected, real) = (estimate.start, self.since);
        Some((expected.since(estimate.made), real.since(estimate.made)))
    }
}

/// Somebody asked for the end of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancellation {
    pub by: String,
    pub reason: String,
}

/// Where a task is in its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    Queued {
        /// Not before this state time (a retry's backoff).
        not_before: Option<Timestamp>,
        /// Why it came back; empty for a new task.
        reason: String,
    },
    /// Decided. Whether it runs already is soft state: its agent says so.
    Assigned {
        attempt: Arc<Attempt>,
        /// The agent was told; the slot is free once it reports the end.
        cancel: Option<Box<Cancellation>>,
    },
    Succeeded,
    Failed {
        reason: String,
    },
    Cancelled(Box<Cancellation>),
    /// At most once, and it was not seen to its end. The late result under that epoch may still
    /// settle it.
    Unknown {
        attempt: Box<Attempt>,
        /// Why nobody saw its end.
        reason: String,
    },
    DeadLetter {
        reason: String,
    },
}

/// The name of a state, as every interface shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum StateName {
    Queued,
    Assigned,
    Succeeded,
    Failed,
    Cancelled,
    Unknown,
    DeadLetter,
}

impl StateName {
    pub const ALL: [StateName; 7] = [
        StateName::Queued,
        StateName::Assigned,
        StateName::Succeeded,
        StateName::Failed,
        StateName::Cancelled,
        StateName::Unknown,
        StateName::DeadLetter,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            StateName::Queued => "queued",
            StateName::Assigned => "assigned",
            StateName::Succeeded => "succeeded",
            StateName::Failed => "failed",
            StateName::Cancelled => "cancelled",
            StateName::Unknown => "unknown",
            StateName::DeadLetter => "dead_letter",
        }
    }

    pub fn is_terminal(self) -> bool {
        !matches!(self, StateName::Queued | StateName::Assigned)
    }
}

impl Phase {
    pub fn name(&self) -> StateName {
        match self {
            Phase::Queued { .. } => StateName::Queued,
            Phase::Assigned { .. } => StateName::Assigned,
            Phase::Succeeded => StateName::Succeeded,
            Phase::Failed { .. } => StateName::Failed,
            Phase::Cancelled(_) => StateName::Cancelled,
            Phase::Unknown { .. } => StateName::Unknown,
            Phase::DeadLetter { .. } => StateName::DeadLetter,
        }
    }
}

/// A task's record. Each step of a task's life makes a new one, so what stays the same is shared.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    pub id: TaskId,
    pub kind: Kind,
    pub class: Class,
    /// The name of the principal that submitted it.
    pub user: Arc<str>,
    pub phase: Phase,
    pub submit_index: u64,
    /// The entry that changed it last.
    pub last_index: u64,
    /// Wall time of the leader, for display.
    pub submitted_at: Timestamp,
    /// Wall time, for display: as its agent reported, or when the cluster ended it.
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    /// State time by which it must have been assigned for the first time.
    pub deadline: Option<Timestamp>,
    /// State time of its end; what retention counts from.
    pub ended: Option<Timestamp>,
    /// Attempts begun.
    pub attempts: u32,
    /// Attempts that failed, and so used up a retry.
    pub failures: u32,
    /// The agents that were lost under it, each once, oldest first (at most [`crate::LOST_AGENTS_MAX`]).
    pub lost_agents: ThinVec<AgentId>,
    /// The attempt whose report was accepted last, so that the same report is known again.
    pub settled: Option<Epoch>,
    /// The agent and epoch of the latest attempt, kept after its end.
    pub latest: Option<Arc<Attempt>>,
    /// How the latest attempt was decided.
    pub trace: Option<Arc<TraceRecord>>,
    pub request_id: Option<Arc<str>>,
    /// State time of its submit, from which its wait counts; 0 where the state was too old to say, and it never rises.
    #[serde(default)]
    pub waits_since: Timestamp,
    /// Attempts that gave their place to another task.
    #[serde(default)]
    pub preemptions: u32,
}

positional!(Task {
    id, kind, class, user, phase, submit_index, last_index, submitted_at, started_at, finished_at, deadline, ended,
    attempts, failures, lost_agents, settled, latest, trace, request_id
} later { waits_since, preemptions });

impl Unset for u64 {
    fn is_unset(&self) -> bool {
        *self == 0
    }
}

impl Unset for u32 {
    fn is_unset(&self) -> bool {
        *self == 0
    }
}

impl Unset for Timestamp {
    fn is_unset(&self) -> bool {
        self.0 == 0
    }
}

// There may be millions of them in memory: what most of them lack stands behind a pointer.
const _: () = assert!(size_of::<Task>() <= 240);

impl Task {
    pub fn state(&self) -> StateName {
        self.phase.name()
    }

    pub fn is_terminal(&self) -> bool {
        self.state().is_terminal()
    }

    /// Attempts but one that came back through nothing the task did, and not for another task's sake: they were lost,
    /// declined, or asked back.
    pub fn given_back(&self) -> u32 {
        let accounted = self.failures.saturating_add(self.preemptions);
        self.attempts.saturating_sub(accounted.saturating_add(1))
    }

    /// Whose it is.
    pub fn tenant(&self, spec: &TaskSpec) -> Tenant {
        Tenant {
            namespace: spec.namespace.clone(),
            user: Arc::clone(&self.user),
        }
    }

    /// With which it goes now, if it is the next of its line: starved where that was served for the last time too long ago,
    /// at `served`.
    pub fn precedence(&self, served: Timestamp, now: Timestamp) -> Precedence {
        match self.waits_since {
            Timestamp(0) => Precedence::usual(self.class),
            since => Precedence::after(self.class, now.since(since.max(served))),
        }
    }

    /// The attempt that holds a slot, if any.
    pub fn live(&self) -> Option<&Attempt> {
        match &self.phase {
            Phase::Assigned { attempt, .. } => Some(attempt),
            Phase::Queued { .. }
            | Phase::Succeeded
            | Phase::Failed { .. }
            | Phase::Cancelled(_)
            | Phase::Unknown { .. }
            | Phase::DeadLetter { .. } => None,
        }
    }

    /// Why it is in this state, in words; empty where the state says it all.
    pub fn reason(&self) -> String {
        match &self.phase {
            Phase::Queued { reason, .. }
            | Phase::Failed { reason }
            | Phase::DeadLetter { reason } => reason.clone(),
            Phase::Assigned {
                cancel: Some(cancel),
                ..
            } => {
                format!(
                    "cancel requested by {}, waiting for {} to end it",
                    cancel,
                    self.holder()
                )
            }
            Phase::Assigned {
                cancel: None,
                attempt,
            } => {
                let by = attempt.preempted_by;
                let waits = |by| {
                    format!(
                        "preempted by task {by}, waiting for {} to end it",
                        self.holder()
                    )
                };
                by.map_or_else(String::new, waits)
            }
            Phase::Cancelled(cancel) => format!("cancelled by {cancel}"),
            Phase::Unknown { reason, .. } => {
                format!("{reason}; it may have run, and at-most-once tasks are not tried again")
            }
            Phase::Succeeded => String::new(),
        }
    }

    fn holder(&self) -> &str {
        self.live()
            .map_or("its agent", |attempt| attempt.agent.as_str())
    }
}

impl std::fmt::Display for Cancellation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.by)?;
        if !self.reason.is_empty() {
            write!(f, ": {}", self.reason)?;
        }
        Ok(())
    }
}
