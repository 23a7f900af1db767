//! What would become of a task that nobody has submitted: `task plan`.
//!
//! The submit is applied to a copy of the state, which costs next to nothing, and a round is planned on that: so all that
//! counts for a real one counts here, refusals too.

use std::collections::BTreeSet;

use model::{
    Command, Entry, Held, Op, Principal, Rejected, Reply, Stamped, State, Task, Timestamp, Victim,
};

use crate::explain::{Explanation, explain, would};
use crate::fleet::Fleet;
use crate::plan::{PATIENCE, ROUND_MAX, Round, plan};

/// A task that is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WhatIf {
    /// As it would be recorded; with the trace of the decision where it would be assigned at once.
    pub task: Task,
    pub explanation: Explanation,
}

/// Submits, and looks what comes of it; the state stays as it is.
///
/// # Errors
///
/// What would be refused.
pub fn what_if(
    state: &State,
    fleet: &Fleet,
    now: Timestamp,
    (principal, command): (Principal, Command),
) -> Result<WhatIf, Rejected> {
    let mut copy = state.clone();
    let held = (!command.blobs().is_empty()).then_some(Held(0));
    let submit = Op::Client {
        principal,
        command,
        placement: None,
        held,
    };
    let applied = copy.apply(Stamped {
        index: state.last_applied() + 1,
        term: state.last_term(),
        membership: 0,
        entry: Entry {
            stamp: now,
            wall: now,
            ops: vec![submit],
        },
    });
    let id = match applied.replies.into_iter().next() {
        Some(Ok(Reply::Submitted { task, .. })) => task,
        Some(Err(rejected)) => return Err(rejected),
        Some(Ok(_)) | None => return Err(not_a_submit()),
    };
    let taken = BTreeSet::new();
    let round = Round {
        now,
        taken: &taken,
        max: ROUND_MAX,
        after: None,
    };
    let mut assigned = plan(&copy, fleet, round).assignments.into_iter();
    let own = assigned.find(|it| it.task == id);
    let preempting = match own {
        Some(_) => None,
        // It waits for a moment before it gets the place of another.
        None => {
            let later = Round {
                now: now.plus(PATIENCE),
                ..round
            };
            let mut preempting = plan(&copy, fleet, later).preemptions.into_iter();
            preempting.find(|it| it.assignment.task == id)
        }
    };
    let victims = preempting.as_ref().map(|it| it.victims.clone());
    let own = own.or(preempting.map(|it| it.assignment));
    let (task, explanation) = (copy.task(id), explain(&copy, fleet, now, id));
    let (Some(task), Some(explanation)) = (task, explanation) else {
        return Err(not_a_submit());
    };
    let task = Task {
        trace: own.map(|own| own.placement.trace),
        ..task.clone()
    };
    let summary = would(&task, &explanation);
    let ended = victims.map(|victims| would_end(&victims));
    let parts = std::iter::once(summary).chain(ended);
    let explanation = Explanation {
        summary: parts.collect::<Vec<_>>().join(" "),
        ..explanation
    };
    Ok(WhatIf { task, explanation })
}

fn would_end(victims: &[Victim]) -> String {
    let ids = victims.iter().map(|victim| victim.task.to_string());
    let ids = ids.collect::<Vec<_>>().join(", ");
    match victims.len() {
        1 => format!("Task {ids} would be preempted for it."),
        _ => format!("Tasks {ids} would be preempted for it."),
    }
}

fn not_a_submit() -> Rejected {
    Rejected::Invalid("only what is submitted can be planned".into())
}
