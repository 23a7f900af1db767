//! Why a task was assigned where it was: the scores of the best three, and the rest as counts.
//!
//! It stands in the `Assign` entry, so it is the same on every controller. It is small, since it is written for every
//! assignment: names of the terms follow from the policy version (crate `scheduler`).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::AgentId;

/// Why an agent was not a candidate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Reason {
    /// Its lease ran out.
    Lost,
    /// The leader has no session with it.
    NotConnected,
    /// A session, but silent for too long.
    Suspect,
    /// All slots are taken.
    NoFreeSlot,
    /// Its labels do not satisfy the task.
    LabelMismatch,
    /// None of its back ends offers the task's model.
    NotOffered,
    /// It was lost under this task before, and others are there.
    LostBefore,
    /// Somebody closed it to new work.
    Cordoned,
    /// Somebody wants it empty.
    Draining,
    /// It said that it would give back whatever it were sent.
    Declining,
    /// Its back ends with the task's model answer as many requests as they may.
    BackendsFull,
    /// It would not fetch what stands beside the task's spec.
    TooOld,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Lost => "it is lost: its lease ran out",
            Reason::NotConnected => "it has no session with the leader",
            Reason::Suspect => "it is suspect: silent for too long",
            Reason::NoFreeSlot => "all its slots are taken",
            Reason::LabelMismatch => "its labels do not satisfy the task's `require`",
            Reason::NotOffered => "none of its back ends offers the task's model",
            Reason::LostBefore => "it was lost under this task before",
            Reason::Cordoned => "it is cordoned",
            Reason::Draining => "it is being drained",
            Reason::Declining => "it takes nothing now: it is stopping, or can't start anything",
            Reason::BackendsFull => "its back ends with the task's model are at their limit",
            Reason::TooOld => "it is of an older release, which can't fetch files: upgrade it",
        })
    }
}

/// One agent's score in a decision; lower is better.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scored {
    pub agent: AgentId,
    /// Weighted sum of the terms, in thousandths.
    pub score: i64,
    /// In the order of the policy version's terms, in thousandths.
    pub terms: Vec<i64>,
}

/// How an assignment was decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trace {
    pub policy_version: u32,
    pub winner: Scored,
    /// At most two.
    pub runners_up: Vec<Scored>,
    /// All other agents.
    pub refusals: Vec<(Reason, u32)>,
}
