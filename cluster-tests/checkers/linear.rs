//! I5: the API behaves as if each operation took effect at one moment of its time.
//!
//! Three ways to see it. With the log each answer is compared with the state at the index that it names, and the indexes
//! must rise with time: an operation that was asked for after another one was answered stands behind it. Without the log
//! an order is searched for that explains all answers about a task. And at the end a request id is one task.

use std::collections::BTreeMap;

use super::evidence::Case;
use super::finding::{Checker, Finding};
use super::violation::{Invariant, Kind, Violation};
use super::writes;
use crate::history::{Action, History, Moment, Operation, Outcome};
use crate::model::search::{Timed, Verdict, search};
use crate::model::task::{self, Answer, Call, OneTask};

/// How much is searched. The replay is complete; this is a second opinion on samples.
#[derive(Debug, Clone, Copy)]
pub struct Linearizability {
    /// Tasks, those with most operations first.
    pub tasks: usize,
    /// Steps for each.
    pub steps: u64,
}

impl Default for Linearizability {
    fn default() -> Linearizability {
        Linearizability {
            tasks: 20_000,
            steps: 100_000,
        }
    }
}

impl Checker for Linearizability {
    fn invariant(&self) -> Invariant {
        Invariant::I5
    }

    fn sentence(&self) -> &'static str {
        "each answer is the state at the index that it names, and indexes rise with time; without the log, for a sample of \
         tasks, some order of the operations explains all answers; a request id is one task"
    }

    fn check(&self, case: &Case<'_>) -> Finding {
        let evidence = case.evidence;
        let mut finding = Finding::of(self);
        case.replay.report_to(&mut finding);
        let history = &evidence.history;
        in_time(history, &mut finding);
        writes::requests(evidence, &mut finding);
        let undecided = self.search(history, &mut finding);
        // Where the log was replayed, it has decided all of it.
        if !case.replay.gaps.is_empty() {
            finding.gaps.extend(undecided);
        }
        finding
    }
}

/// What had been answered last when something was asked for, by where it stands in the log.
#[derive(Debug, Clone, Copy, Default)]
struct Floor<'h> {
    index: u64,
    by: Option<&'h Operation>,
}

fn in_time(history: &History, finding: &mut Finding) {
    let exists_since = submit_indexes(history);
    let mut answered: Vec<(Moment, &Operation)> = history
        .operations
        .iter()
        .filter_map(|it| Some((it.answered?, it)))
        .filter(|(_, it)| it.index().is_some())
        .collect();
    answered.sort_by_key(|(at, it)| (*at, it.id));
    let mut invoked: Vec<&Operation> = history.operations.iter().collect();
    invoked.sort_by_key(|it| (it.invoked, it.id));
    let mut floor = Floor::default();
    let mut ended = answered.into_iter().peekable();
    for operation in invoked {
        while let Some((_, before)) = ended.next_if(|(at, _)| *at < operation.invoked) {
            if before.index() > Some(floor.index) {
                floor.index = before.index().unwrap_or_default();
                floor.by = Some(before);
            }
        }
        finding.saw(1);
        let broken =
            backwards(operation, floor).or_else(|| denied(operation, floor, &exists_since));
        finding.violations.extend(broken);
    }
}

fn backwards(operation: &Operation, floor: Floor<'_>) -> Option<Violation> {
    let index = operation.index()?;
    let (before, action) = (floor.by?, &operation.action);
    let least = match action {
        // It needs no quorum: an end does not change, however old the state is that shows it.
        Action::Wait { .. } => 0,
        Action::Submit { .. } | Action::Order { .. } => floor.index + 1,
        // One that was cancelled before is answered without an entry.
        Action::Cancel { .. }
        | Action::Get { .. }
        | Action::List { .. }
        | Action::GetAgent { .. }
        | Action::ListAgents => floor.index,
    };
    (index < least).then(|| {
        let seen = format!(
            "`{action}` was asked for at {:.3} s and answered from index {index}; `{}` had been answered from index {} at \
             {:.3} s, so it saw an older state than somebody had seen before it was asked for",
            operation.invoked.seconds(),
            before.action,
            floor.index,
            before.answered.unwrap_or_default().seconds(),
        );
        let violation = Violation::new(Kind::Backwards, seen);
        let violation = violation.operation(operation).operation(before);
        violation.entry(index).entry(floor.index)
    })
}

fn denied(
    operation: &Operation,
    floor: Floor<'_>,
    exists_since: &BTreeMap<u64, u64>,
) -> Option<Violation> {
    let (Action::Get { task } | Action::Wait { task } | Action::Cancel { task }) = operation.action
    else {
        return None;
    };
    let Outcome::Refused { code, .. } = &operation.outcome else {
        return None;
    };
    let since = *exists_since.get(&task)?;
    (code == "no_such_task" && since <= floor.index).then(|| {
        let action = &operation.action;
        let seen = format!(
            "`{action}` was answered with `no such task`; t{task} exists since entry {since}, and index {} had been shown \
             before",
            floor.index
        );
        let violation = Violation::new(Kind::Denied, seen).operation(operation);
        let violation = violation.entry(since);
        match floor.by {
            Some(before) => violation.operation(before),
            None => violation,
        }
    })
}

fn submit_indexes(history: &History) -> BTreeMap<u64, u64> {
    let seen = history.operations.iter().flat_map(Operation::tasks);
    seen.map(|task| (task.id, task.submit_index)).collect()
}

impl Linearizability {
    /// What it could not decide, in words.
    fn search(self, history: &History, finding: &mut Finding) -> Option<String> {
        let mut tasks: Vec<_> = by_task(history).into_iter().collect();
        tasks.sort_by_key(|(id, operations)| (std::cmp::Reverse(operations.len()), *id));
        let mut undecided = 0_usize;
        for (id, operations) in tasks.into_iter().take(self.tasks) {
            finding.saw(operations.len());
            let timed: Vec<_> = operations
                .iter()
                .map(|(it, said)| timed(it, said))
                .collect();
            match search(&OneTask, &timed, self.steps) {
                Verdict::Linearizable => {}
                Verdict::TooLong => undecided += 1,
                Verdict::Not { stuck, explained } => {
                    let stuck: Vec<_> = stuck.iter().map(|at| operations[*at].0).collect();
                    let violation = not_linearizable(id, operations.len(), explained, &stuck);
                    finding.violations.push(violation);
                }
            }
        }
        let steps = self.steps;
        (undecided > 0).then(|| {
            format!(
                "the search gave up on {undecided} tasks after {steps} steps each: too many operations at the same time"
            )
        })
    }
}

type Said = (Call, Option<Answer>);

fn by_task(history: &History) -> BTreeMap<u64, Vec<(&Operation, Said)>> {
    let seen = history.operations.iter().flat_map(Operation::tasks);
    let seen = seen.filter(|task| !task.request_id.is_empty());
    let of_request: BTreeMap<&str, u64> = seen
        .map(|task| (task.request_id.as_str(), task.id))
        .collect();
    let mut tasks: BTreeMap<u64, Vec<(&Operation, Said)>> = BTreeMap::new();
    for operation in &history.operations {
        let Some(said) = task::of(operation) else {
            continue;
        };
        let id = match &operation.action {
            Action::Submit { request_id, .. } => of_request.get(request_id.as_str()).copied(),
            Action::Get { task } | Action::Cancel { task } => Some(*task),
            Action::Wait { .. }
            | Action::List { .. }
            | Action::Order { .. }
            | Action::GetAgent { .. }
            | Action::ListAgents => None,
        };
        if let Some(id) = id {
            tasks.entry(id).or_default().push((operation, said));
        }
    }
    // One whose submit nobody recorded can't be judged from its beginning.
    tasks.retain(|_, operations| {
        let submits = operations
            .iter()
            .any(|(_, (call, _))| *call == Call::Submit);
        submits && operations.len() > 1
    });
    tasks
}

fn timed(operation: &Operation, (call, answer): &Said) -> Timed<Call, Answer> {
    Timed {
        invoked: operation.invoked.0,
        answered: operation
            .answered
            .filter(|_| answer.is_some())
            .map(|at| at.0),
        call: call.clone(),
        answer: answer.clone(),
    }
}

fn not_linearizable(
    id: u64,
    operations: usize,
    explained: usize,
    stuck: &[&Operation],
) -> Violation {
    let texts: Vec<String> = stuck.iter().map(|it| told(it)).collect();
    let seen = format!(
        "no order of the {operations} operations on t{id} explains all answers; after {explained} of them none of these \
         can come next: {}",
        texts.join("; ")
    );
    let violation = Violation::new(Kind::NotLinearizable, seen);
    stuck
        .iter()
        .fold(violation, |violation, it| violation.operation(it))
}

fn told(operation: &Operation) -> String {
    let action = &operation.action;
    let by = &operation.client;
    let said = match operation.tasks() {
        [task] => format!("{} at version {}", task.state.as_str(), task.last_index),
        _ => operation.outcome.as_str().to_owned(),
    };
    format!("`{action}` by {by}, answered {said}")
}
