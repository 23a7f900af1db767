//! All that is known of a run, in one place.

use std::collections::BTreeMap;

use super::replay::Replay;
use crate::cluster::Status;
use crate::history::{History, TaskSeen};
use crate::journal::Begun;
use crate::log::Log;

/// A start of a process, as the process itself wrote it down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Execution {
    pub task: u64,
    pub epoch: u64,
}

/// That a process still lived, as the process itself wrote it down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sign {
    pub of: Execution,
    /// How many starts had been written by then, of all tasks.
    pub starts: usize,
}

/// A task at the end, as one controller's state has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Final {
    pub task: TaskSeen,
    pub at_most_once: bool,
}

/// What one run left. What was not collected is empty, and checkers that need it say so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evidence {
    pub history: History,
    /// By controller.
    pub logs: BTreeMap<String, Log>,
    /// Why no log was read, where that was not asked for: then only what was seen from outside is judged.
    pub unlogged: Option<String>,
    /// How many controllers vote.
    pub voters: usize,
    /// By controller: its own list of tasks, once nothing was submitted any more.
    pub finals: BTreeMap<String, Vec<Final>>,
    /// In the order in which they were written.
    pub executions: Vec<Execution>,
    /// In the order in which they were written, too.
    pub signs: Vec<Sign>,
    /// By agent: what it had on its disk before it started anything. Of all agents, or of none.
    pub journals: BTreeMap<String, Vec<Begun>>,
    /// Samples, in any order.
    pub statuses: Vec<Status>,
}

/// The evidence, with what all checkers would do with it first.
#[derive(Debug)]
pub struct Case<'e> {
    pub evidence: &'e Evidence,
    /// The log beside all that was answered.
    pub replay: Replay,
}

impl<'e> Case<'e> {
    pub fn of(evidence: &'e Evidence) -> Case<'e> {
        Case {
            evidence,
            replay: Replay::of(evidence),
        }
    }
}
