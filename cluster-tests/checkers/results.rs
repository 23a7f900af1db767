//! I2: a task has one result, for everybody and for ever.

use std::collections::BTreeMap;

use super::evidence::Case;
use super::finding::{Checker, Finding};
use super::violation::{Invariant, Kind, Violation};
use crate::history::{Operation, TaskSeen, TaskState};

pub struct Results;

impl Checker for Results {
    fn invariant(&self) -> Invariant {
        Invariant::I2
    }

    fn sentence(&self) -> &'static str {
        "the log accepts one result of an attempt, of the live one only; clients and controllers see the same end of a task"
    }

    fn check(&self, case: &Case<'_>) -> Finding {
        let evidence = case.evidence;
        let mut finding = Finding::of(self);
        case.replay.report_to(&mut finding);
        let mut known: BTreeMap<u64, (&TaskSeen, Option<&Operation>)> = BTreeMap::new();
        let operations = evidence.history.operations.iter();
        let seen = operations.flat_map(|it| it.tasks().iter().map(move |task| (task, Some(it))));
        let held = evidence.finals.values().flatten();
        let held = held.map(|it| (&it.task, None));
        for (task, operation) in seen.chain(held).filter(|(task, _)| is_settled(task)) {
            finding.saw(1);
            let id = task.id;
            let (first, by) = known.entry(id).or_insert((task, operation));
            if !first.ends_like(task) {
                let (one, other) = (first.ending(), task.ending());
                let seen = format!("t{id} has two results: {one}; and {other}");
                let violation = Violation::new(Kind::ResultChanged, seen);
                let both = [*by, operation].into_iter().flatten();
                let violation = both.fold(violation, Violation::operation);
                finding.violations.push(violation);
            } else if !first.shows_output() {
                (*first, *by) = (task, operation);
            }
        }
        finding
    }
}

/// An end that nothing changes any more. A late report may still settle one that nobody saw.
fn is_settled(task: &TaskSeen) -> bool {
    task.state.is_terminal() && task.state != TaskState::Unknown
}
