//! Judges a history of submits against the tasks that the cluster has at the end.
//!
//! What it holds a cluster to: no acknowledged submit is lost; a request id is one task, however often it
//! was sent; a task has one result, and a result that was once seen stays; epochs rise; nothing ran
//! twice under one epoch, and at-most-once tasks not twice at all. Operations whose outcome is unknown
//! may have happened or not, but not by halves.
//!
//! It looks at whole values only and needs no order between clients, so it is linear in the history. It
//! does not prove linearizability.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What became of a submit, as its client saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Accepted, as this task.
    Acknowledged { task: u64 },
    /// Refused for good: it must not have happened.
    Refused,
    /// No answer: it may have happened.
    Unknown,
}

/// One submit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub request_id: String,
    pub outcome: Outcome,
    /// The result as its client saw it, where it waited for one.
    pub result: Option<String>,
}

/// A task at the end, as one controller's state has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Final {
    pub task: u64,
    pub request_id: String,
    pub submit_index: u64,
    pub last_index: u64,
    pub attempts: u32,
    /// Of the latest attempt; 0 if there was none.
    pub epoch: u64,
    /// State and result, comparable; `None` while it is not terminal.
    pub result: Option<String>,
    pub at_most_once: bool,
}

/// A start of a process, as the process itself wrote it down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Execution {
    pub task: u64,
    pub epoch: u64,
}

/// Everything about one run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    pub records: Vec<Record>,
    /// By controller.
    pub finals: BTreeMap<String, Vec<Final>>,
    /// In the order in which they were written.
    pub executions: Vec<Execution>,
}

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    Lost {
        request_id: String,
        task: u64,
        controller: String,
    },
    OtherTask {
        request_id: String,
        promised: u64,
        found: u64,
    },
    Doubled {
        request_id: String,
        tasks: (u64, u64),
    },
    RefusedButDone {
        request_id: String,
        task: u64,
    },
    NotEnded {
        task: u64,
        controller: String,
    },
    ResultChanged {
        task: u64,
        one: String,
        other: String,
    },
    EpochTooLow {
        task: u64,
        epoch: u64,
        submit_index: u64,
    },
    EpochFell {
        task: u64,
        from: u64,
        to: u64,
    },
    RanTwice {
        task: u64,
        epoch: u64,
    },
    RanAgain {
        task: u64,
        epochs: (u64, u64),
    },
    RanUnasked {
        task: u64,
        epoch: u64,
    },
    HashesDiffer {
        index: u64,
        one: String,
        other: String,
    },
}

/// All that the history breaks. Empty is good, if the history is not.
pub fn check(history: &History) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (controller, finals) in &history.finals {
        check_records(&history.records, controller, finals, &mut violations);
        for task in finals {
            check_final(task, controller, &mut violations);
        }
    }
    check_results(history, &mut violations);
    check_executions(history, &mut violations);
    violations
}

fn check_records(
    records: &[Record],
    controller: &str,
    finals: &[Final],
    violations: &mut Vec<Violation>,
) {
    let mut by_request: BTreeMap<&str, u64> = BTreeMap::new();
    for task in finals.iter().filter(|task| !task.request_id.is_empty()) {
        if let Some(other) = by_request.insert(&task.request_id, task.task) {
            let request_id = task.request_id.clone();
            violations.push(Violation::Doubled {
                request_id,
                tasks: (other, task.task),
            });
        }
    }
    for record in records {
        let request_id = || record.request_id.clone();
        match (&record.outcome, by_request.get(record.request_id.as_str())) {
            (Outcome::Acknowledged { task }, None) => violations.push(Violation::Lost {
                request_id: request_id(),
                task: *task,
                controller: controller.to_owned(),
            }),
            (Outcome::Acknowledged { task: promised }, Some(found)) if promised != found => {
                violations.push(Violation::OtherTask {
                    request_id: request_id(),
                    promised: *promised,
                    found: *found,
                });
            }
            (Outcome::Refused, Some(task)) => violations.push(Violation::RefusedButDone {
                request_id: request_id(),
                task: *task,
            }),
            (Outcome::Acknowledged { .. } | Outcome::Unknown, _) | (Outcome::Refused, None) => {}
        }
    }
}

fn check_final(task: &Final, controller: &str, violations: &mut Vec<Violation>) {
    if task.result.is_none() {
        violations.push(Violation::NotEnded {
            task: task.task,
            controller: controller.to_owned(),
        });
    }
    // Submitted and assigned in one entry is allowed, so equal is.
    if task.attempts > 0 && task.epoch < task.submit_index {
        violations.push(Violation::EpochTooLow {
            task: task.task,
            epoch: task.epoch,
            submit_index: task.submit_index,
        });
    }
}

/// A task has one result: for each client that saw it, and on each controller.
fn check_results(history: &History, violations: &mut Vec<Violation>) {
    let mut known: BTreeMap<u64, &str> = BTreeMap::new();
    let seen = history
        .records
        .iter()
        .filter_map(|record| match record.outcome {
            Outcome::Acknowledged { task } => Some((task, record.result.as_deref()?)),
            Outcome::Refused | Outcome::Unknown => None,
        });
    let held = history
        .finals
        .values()
        .flatten()
        .filter_map(|task| Some((task.task, task.result.as_deref()?)));
    for (task, result) in seen.chain(held) {
        let first = known.entry(task).or_insert(result);
        if *first != result {
            violations.push(Violation::ResultChanged {
                task,
                one: (*first).to_owned(),
                other: result.to_owned(),
            });
        }
    }
}

fn check_executions(history: &History, violations: &mut Vec<Violation>) {
    let tasks: BTreeMap<u64, &Final> = history
        .finals
        .values()
        .flatten()
        .map(|task| (task.task, task))
        .collect();
    let mut latest: BTreeMap<u64, u64> = BTreeMap::new();
    let mut starts: BTreeSet<Execution> = BTreeSet::new();
    for start in &history.executions {
        let Execution { task, epoch } = *start;
        if !starts.insert(*start) {
            violations.push(Violation::RanTwice { task, epoch });
            continue;
        }
        match tasks.get(&task) {
            // An epoch is an index at which the task was assigned, so it lies within its life.
            Some(known) if epoch >= known.submit_index && epoch <= known.epoch => {
                if let (true, Some(first)) = (known.at_most_once, latest.get(&task)) {
                    violations.push(Violation::RanAgain {
                        task,
                        epochs: (*first, epoch),
                    });
                }
            }
            Some(_) | None => violations.push(Violation::RanUnasked { task, epoch }),
        }
        match latest.insert(task, epoch) {
            Some(before) if before > epoch => {
                violations.push(Violation::EpochFell {
                    task,
                    from: before,
                    to: epoch,
                });
            }
            Some(_) | None => {}
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::Lost {
                request_id,
                task,
                controller,
            } => {
                write!(
                    f,
                    "t{task} (request {request_id}) was acknowledged; {controller} does not have it"
                )
            }
            Violation::OtherTask {
                request_id,
                promised,
                found,
            } => {
                write!(
                    f,
                    "request {request_id} was acknowledged as t{promised} and is t{found}"
                )
            }
            Violation::Doubled {
                request_id,
                tasks: (one, other),
            } => {
                write!(f, "request {request_id} is two tasks: t{one} and t{other}")
            }
            Violation::RefusedButDone { request_id, task } => {
                write!(f, "request {request_id} was refused and is t{task}")
            }
            Violation::NotEnded { task, controller } => {
                write!(f, "t{task} never ended, says {controller}")
            }
            Violation::ResultChanged { task, one, other } => {
                write!(f, "t{task} has two results: {one}, and {other}")
            }
            Violation::EpochTooLow {
                task,
                epoch,
                submit_index,
            } => {
                write!(
                    f,
                    "t{task} has epoch {epoch}, before its submit at {submit_index}"
                )
            }
            Violation::EpochFell { task, from, to } => {
                write!(f, "t{task} started under epoch {from}, then under {to}")
            }
            Violation::RanTwice { task, epoch } => {
                write!(f, "t{task} ran twice under epoch {epoch}")
            }
            Violation::RanAgain {
                task,
                epochs: (one, other),
            } => {
                write!(
                    f,
                    "t{task} is at-most-once and ran under epochs {one} and {other}"
                )
            }
            Violation::RanUnasked { task, epoch } => {
                write!(f, "t{task} ran under epoch {epoch}, which it never had")
            }
            Violation::HashesDiffer { index, one, other } => {
                write!(f, "states differ at index {index}: {one}, {other}")
            }
        }
    }
}
