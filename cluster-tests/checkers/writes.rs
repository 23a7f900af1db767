//! I1: what was acknowledged is there, in the log and on every controller.

use std::collections::BTreeMap;

use super::evidence::{Case, Evidence, Final};
use super::finding::{Checker, Finding};
use super::violation::{Invariant, Kind, Violation};
use crate::history::{Action, Operation, Outcome};

pub struct Writes;

impl Checker for Writes {
    fn invariant(&self) -> Invariant {
        Invariant::I1
    }

    fn sentence(&self) -> &'static str {
        "each acknowledged submit, cancel and order is in the entry that its answer names, in the log of a majority, and \
         each acknowledged submit is a task on every controller in the end"
    }

    fn check(&self, case: &Case<'_>) -> Finding {
        let evidence = case.evidence;
        let mut finding = Finding::of(self);
        case.replay.report_to(&mut finding);
        for (controller, finals) in &evidence.finals {
            let by_request = by_request(finals);
            for operation in &evidence.history.operations {
                let Some((id, told)) = operation.submitted() else {
                    continue;
                };
                finding.saw(1);
                let found = by_request.get(id);
                if !found.is_some_and(|found| found.iter().any(|it| it.task.id == told.id)) {
                    let seen = format!(
                        "t{} (request {id}) was acknowledged; {controller} does not have it",
                        told.id
                    );
                    let lost = Violation::new(Kind::Lost, seen).operation(operation);
                    finding.violations.push(lost);
                }
            }
        }
        finding
    }
}

/// A request id and what it became, as the end has it: the part of I5 that needs no log.
pub fn requests(evidence: &Evidence, finding: &mut Finding) {
    let mut unhappened: BTreeMap<&str, &Operation> = BTreeMap::new();
    for operation in &evidence.history.operations {
        if let (Action::Submit { request_id, .. }, Outcome::Refused { .. }) =
            (&operation.action, &operation.outcome)
        {
            unhappened.insert(request_id, operation);
        }
    }
    for operation in &evidence.history.operations {
        if let (Action::Submit { request_id, .. }, Outcome::Ok(_) | Outcome::Unknown { .. }) =
            (&operation.action, &operation.outcome)
        {
            unhappened.remove(request_id.as_str());
        }
    }
    for (controller, finals) in &evidence.finals {
        for (id, found) in by_request(finals) {
            finding.saw(1);
            if let [one, other, ..] = found.as_slice() {
                let (one, other) = (one.task.id, other.task.id);
                let seen =
                    format!("request {id} is two tasks on {controller}: t{one} and t{other}");
                finding.violations.push(Violation::new(Kind::Doubled, seen));
            }
            if let (Some(operation), [task, ..]) = (unhappened.get(id), found.as_slice()) {
                let seen = format!("request {id} was refused and is t{}", task.task.id);
                let violation = Violation::new(Kind::RefusedButDone, seen);
                finding.violations.push(violation.operation(operation));
            }
        }
    }
    other_tasks(evidence, finding);
}

/// A request id that was acknowledged as one task and then as another.
fn other_tasks(evidence: &Evidence, finding: &mut Finding) {
    let mut told: BTreeMap<&str, (u64, &Operation)> = BTreeMap::new();
    for operation in &evidence.history.operations {
        let Some((id, task)) = operation.submitted() else {
            continue;
        };
        finding.saw(1);
        let (first, by) = told.entry(id).or_insert((task.id, operation));
        if *first != task.id {
            let seen = format!(
                "request {id} was acknowledged as t{first} and as t{}",
                task.id
            );
            let violation = Violation::new(Kind::OtherTask, seen);
            let violation = violation.operation(operation).operation(by);
            finding.violations.push(violation);
        }
    }
}

fn by_request(finals: &[Final]) -> BTreeMap<&str, Vec<&Final>> {
    let mut found: BTreeMap<&str, Vec<&Final>> = BTreeMap::new();
    for task in finals.iter().filter(|it| !it.task.request_id.is_empty()) {
        found.entry(&task.task.request_id).or_default().push(task);
    }
    found
}
