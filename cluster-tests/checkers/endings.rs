//! The second half of I13: all queued work ends.

use super::evidence::Evidence;
use super::finding::Finding;
use super::violation::{Kind, Violation};

pub fn check(evidence: &Evidence, finding: &mut Finding) {
    for (controller, finals) in &evidence.finals {
        for task in finals {
            finding.saw(1);
            if !task.task.state.is_terminal() {
                let (id, state) = (task.task.id, task.task.state.as_str());
                let seen = format!("t{id} never ended: {controller} has it as {state}");
                let violation = Violation::new(Kind::NotEnded, seen);
                finding
                    .violations
                    .push(violation.entry(task.task.last_index));
            }
        }
    }
}
