//! Each answer at its place in the log: a write in its entry, a read in the state after it.
//!
//! A write's reply shows the task as it was a moment later. Which version that is says its `last_index`, so it is looked
//! at when the replay comes to that entry. What an answer says of things that no log knows (whether a task
//! runs already, what an agent reports of itself) is left alone.

use std::collections::{BTreeMap, BTreeSet};

use model::{AgentId, Command, Op, Rejected, Reply, State, StateName, TaskId, TaskRecord};

use super::Step;
use super::book::Book;
use super::shown;
use crate::checkers::violation::{Invariant, Kind, Violation};
use crate::history::{
    Action, AgentSeen, History, Operation, Order, Outcome, TaskSeen, TaskState, Value,
};

/// Tasks that one list is held against: keeps the replay linear.
const LIST_MAX: u64 = 10_000;

#[derive(Debug)]
pub struct Answers<'h> {
    due: BTreeMap<u64, Vec<Due<'h>>>,
    /// Refused submits, and those under the same request ids that were not.
    refused: BTreeMap<&'h str, &'h Operation>,
    /// Tasks that answers show, and that may have left memory by then.
    wanted: BTreeSet<u64>,
    gone: BTreeMap<u64, (StateName, Option<Box<TaskSeen>>)>,
}

#[derive(Debug, Clone, Copy)]
struct Due<'h> {
    operation: &'h Operation,
    what: What<'h>,
}

#[derive(Debug, Clone, Copy)]
enum What<'h> {
    Answer,
    /// That this task was just so after the entry that changed it last.
    Version(&'h TaskSeen),
}

impl<'h> Answers<'h> {
    pub fn new(history: &'h History) -> Answers<'h> {
        let mut due: BTreeMap<u64, Vec<Due<'h>>> = BTreeMap::new();
        let mut wanted = BTreeSet::new();
        for operation in &history.operations {
            wanted.extend(operation.tasks().iter().map(|task| task.id));
            if let Some(index) = operation.index() {
                let what = What::Answer;
                due.entry(index).or_default().push(Due { operation, what });
            }
        }
        Answers {
            due,
            refused: refused(history),
            wanted,
            gone: BTreeMap::new(),
        }
    }

    /// After an entry of operations.
    pub fn take(&mut self, step: &Step<'_>, state: &State, book: &mut Book) {
        let records = step.applied.archive.records.iter();
        for record in records.filter(|record| !record.key.is_events()) {
            if let Ok(record) = TaskRecord::decode(&record.bytes) {
                self.left(&record);
            }
        }
        for (op, reply) in step.ops.iter().zip(&step.applied.replies) {
            self.look_for_refused(op, reply, step.index, book);
        }
        let Some(due) = self.due.remove(&step.index) else {
            return;
        };
        for Due { operation, what } in due {
            match what {
                What::Version(shown) => {
                    self.compare(operation, shown, (state, step.index), book);
                }
                What::Answer if operation.action.is_read() => {
                    self.read(operation, (state, step.index), book);
                }
                What::Answer => self.wrote(operation, (step, state), book),
            }
        }
    }

    /// After an entry without operations.
    pub fn at(&mut self, index: u64, state: &State, book: &mut Book) {
        for Due { operation, what } in self.due.remove(&index).unwrap_or_default() {
            match what {
                What::Version(shown) => self.compare(operation, shown, (state, index), book),
                What::Answer if operation.action.is_read() => {
                    self.read(operation, (state, index), book);
                }
                What::Answer => {
                    if !self.was_cancelled_before(operation) {
                        book.note(wrong_place(operation, index, "which holds no operation"));
                    }
                }
            }
        }
    }

    /// What stands behind the end of the log.
    pub fn end(&mut self, through: u64, book: &mut Book) {
        let left: Vec<_> = std::mem::take(&mut self.due).into_iter().collect();
        for (index, due) in left {
            for Due { operation, .. } in due {
                let kind = match operation.action.is_read() {
                    true => Kind::NeverSo,
                    false => Kind::Lost,
                };
                let action = &operation.action;
                let seen = format!(
                    "`{action}` was answered at index {index}; the log that a majority has ends at {through}"
                );
                book.note(Violation::new(kind, seen).operation(operation));
            }
        }
    }

    fn left(&mut self, record: &TaskRecord) {
        let task = &record.task;
        let held = self.wanted.contains(&task.id.0).then(|| {
            let generation = record.generation.0;
            Box::new(shown::of(task, record.result.as_ref(), generation))
        });
        self.gone.insert(task.id.0, (task.state(), held));
    }

    /// A refused submit that is in the log all the same.
    fn look_for_refused(
        &mut self,
        op: &Op,
        reply: &Result<Reply, Rejected>,
        index: u64,
        book: &mut Book,
    ) {
        if let (Some(id), Ok(Reply::Submitted { task, .. })) = (request_of(op), reply)
            && let Some(operation) = self.refused.remove(id)
        {
            let seen = format!("request {id} was refused, and entry {index} makes it {task}");
            let violation = Violation::new(Kind::RefusedButDone, seen);
            book.note(violation.entry(index).operation(operation));
        }
    }

    fn wrote(
        &mut self,
        operation: &'h Operation,
        (step, state): (&Step<'_>, &State),
        book: &mut Book,
    ) {
        book.saw(Invariant::I1, 1);
        let replies = step.ops.iter().zip(&step.applied.replies);
        let mut replies = replies.filter(|(op, _)| is_of(op, &operation.action));
        let Some((_, reply)) = replies.clone().next() else {
            if !self.was_cancelled_before(operation) {
                book.note(wrong_place(operation, step.index, "which does not hold it"));
            }
            return;
        };
        if !replies.any(|(_, reply)| reply.is_ok()) {
            let why = match reply {
                Err(rejected) => format!("which refuses it: {rejected}"),
                Ok(_) => String::new(),
            };
            book.note(wrong_place(operation, step.index, &why));
            return;
        }
        let position = operation
            .outcome
            .answer()
            .and_then(|answer| answer.position);
        if position.is_some_and(|position| position.term != step.term) {
            let why = format!("which is of term {}", step.term);
            book.note(wrong_place(operation, step.index, &why));
        }
        self.submitted_as(operation, reply, step.index, book);
        // Of an agent an order's reply shows the state of a moment later, which no index names.
        for shown in operation.tasks() {
            match shown.last_index > step.index {
                true => {
                    let what = What::Version(shown);
                    let due = self.due.entry(shown.last_index).or_default();
                    due.push(Due { operation, what });
                }
                false => self.compare(operation, shown, (state, step.index), book),
            }
        }
    }

    fn submitted_as(
        &self,
        operation: &Operation,
        reply: &Result<Reply, Rejected>,
        index: u64,
        book: &mut Book,
    ) {
        let told = operation.submitted();
        if let (Some((id, told)), Ok(Reply::Submitted { task, .. })) = (told, reply)
            && told.id != task.0
        {
            let seen = format!(
                "request {id} was acknowledged as t{}, and entry {index} makes it {task}",
                told.id
            );
            let violation = Violation::new(Kind::OtherTask, seen);
            book.note(violation.entry(index).operation(operation));
        }
    }

    fn read(&self, operation: &Operation, (state, index): (&State, u64), book: &mut Book) {
        let Some(answer) = operation.outcome.answer() else {
            return;
        };
        match &answer.value {
            Value::Task { task } | Value::Submitted { task, .. } => {
                self.compare(operation, task, (state, index), book);
            }
            Value::Tasks { tasks, next } => {
                for task in tasks {
                    self.compare(operation, task, (state, index), book);
                }
                self.nothing_left_out(operation, (tasks, *next), (state, index), book);
            }
            Value::Agent { agent } => {
                let agents = agent.as_slice();
                compare_agents(operation, agents, (state, index), book);
            }
            Value::Agents { agents } => {
                compare_agents(operation, agents, (state, index), book);
                let count = state.agents().count();
                if agents.len() != count {
                    let told = agents.len();
                    let why = format!("{told} agents were listed, and there were {count}");
                    book.note(never_so(operation, index, &why));
                }
            }
        }
    }

    fn compare(
        &self,
        operation: &Operation,
        shown: &TaskSeen,
        (state, index): (&State, u64),
        book: &mut Book,
    ) {
        book.saw(Invariant::I5, 1);
        let held = shown::held(state, TaskId(shown.id));
        let gone = self.gone.get(&shown.id);
        let gone = gone.and_then(|(_, held)| held.as_deref());
        let Some(held) = held.as_ref().or(gone) else {
            let why = format!("t{} was shown, and did not exist", shown.id);
            book.note(never_so(operation, index, &why));
            return;
        };
        if let Some(difference) = shown::difference(held, shown) {
            let why = format!("t{} was shown with {difference}", shown.id);
            let violation = never_so(operation, index, &why);
            book.note(violation.entry(held.last_index));
        }
    }

    /// A page holds all that its filter asks for, between where it begins and where it ends.
    fn nothing_left_out(
        &self,
        operation: &Operation,
        (tasks, next): (&[TaskSeen], u64),
        (state, index): (&State, u64),
        book: &mut Book,
    ) {
        let Action::List { states, page, .. } = &operation.action else {
            return;
        };
        let last = state.tasks_newest_first(None).next().map(|task| task.id.0);
        let last = last.max(self.gone.keys().next_back().copied()).unwrap_or(0);
        let upper = if *page == 0 {
            last + 1
        } else {
            (*page).min(last + 1)
        };
        let lower = next.max(upper.saturating_sub(LIST_MAX)).max(1);
        let shown: BTreeSet<u64> = tasks.iter().map(|task| task.id).collect();
        for id in (lower..upper).filter(|id| !shown.contains(id)) {
            let in_memory = state.task(TaskId(id)).map(model::Task::state);
            let gone = self.gone.get(&id).map(|(state, _)| *state);
            let Some(is) = in_memory.or(gone) else {
                continue;
            };
            if admits(states, is.into()) {
                let why = format!("t{id} was left out, and it was {}", is.as_str());
                book.note(never_so(operation, index, &why));
                return;
            }
        }
    }

    /// One that had left memory was answered without an entry.
    fn was_cancelled_before(&self, operation: &Operation) -> bool {
        let Action::Cancel { task } = operation.action else {
            return false;
        };
        let gone = self.gone.get(&task).map(|(state, _)| *state);
        gone == Some(StateName::Cancelled)
    }
}

/// Whether a list by these states has a task in this one. Running is not known to the log.
fn admits(states: &[TaskState], is: TaskState) -> bool {
    match is {
        TaskState::Assigned => {
            let both = [TaskState::Assigned, TaskState::Running];
            states.is_empty() || both.iter().all(|state| states.contains(state))
        }
        is => states.is_empty() || states.contains(&is),
    }
}

/// By request id, where each that used it was refused for good.
fn refused(history: &History) -> BTreeMap<&str, &Operation> {
    let mut refused = BTreeMap::new();
    let mut other = BTreeSet::new();
    for operation in &history.operations {
        let Action::Submit { request_id, .. } = &operation.action else {
            continue;
        };
        match &operation.outcome {
            Outcome::Refused { .. } => drop(refused.insert(request_id.as_str(), operation)),
            Outcome::Ok(_) | Outcome::Unknown { .. } => drop(other.insert(request_id.as_str())),
        }
    }
    refused.retain(|id, _| !other.contains(id));
    refused
}

fn request_of(op: &Op) -> Option<&str> {
    match op {
        Op::Client {
            command: Command::SubmitTask(submit),
            ..
        } => submit.request_id.as_ref().map(|id| id.0.as_str()),
        Op::Client { .. } | Op::System(_) => None,
    }
}

fn is_of(op: &Op, action: &Action) -> bool {
    let Op::Client { command, .. } = op else {
        return false;
    };
    match (command, action) {
        (Command::SubmitTask(submit), Action::Submit { request_id, spec }) => {
            let id = submit.request_id.as_ref();
            let same =
                spec.identity.is_empty() || hex::encode(submit.spec.identity()) == spec.identity;
            id.is_some_and(|id| id.0 == *request_id) && same
        }
        (Command::CancelTask { task, .. }, Action::Cancel { task: asked }) => task.0 == *asked,
        (command, Action::Order { agent, order }) => {
            let of: Option<(&AgentId, Order)> = match command {
                Command::CordonAgent { agent, .. } => Some((agent, Order::Cordon)),
                Command::UncordonAgent { agent } => Some((agent, Order::Uncordon)),
                Command::DrainAgent(drain) => Some((&drain.agent, Order::Drain)),
                Command::RemoveAgent { agent } => Some((agent, Order::Remove)),
                _ => None,
            };
            of.is_some_and(|(of, is)| of.as_str() == agent && is == *order)
        }
        _ => false,
    }
}

fn compare_agents(
    operation: &Operation,
    agents: &[AgentSeen],
    (state, index): (&State, u64),
    book: &mut Book,
) {
    for told in agents {
        book.saw(Invariant::I5, 1);
        let id = AgentId::new(&told.id).ok();
        let held = id.and_then(|id| state.agent(&id));
        let Some(held) = held else {
            let why = format!("{} was shown, and was not registered", told.id);
            book.note(never_so(operation, index, &why));
            continue;
        };
        let mut is = shown::agent(state, held);
        let mut told = told.clone();
        is.attempts.sort_unstable();
        told.attempts.sort_unstable();
        if let Some(why) = shown::agent_difference(&is, &told) {
            book.note(never_so(operation, index, &why));
        }
    }
}

fn never_so(operation: &Operation, index: u64, why: &str) -> Violation {
    let action = &operation.action;
    let seen = format!("`{action}` was answered at index {index}: {why}");
    let violation = Violation::new(Kind::NeverSo, seen);
    violation.entry(index).operation(operation)
}

fn wrong_place(operation: &Operation, index: u64, why: &str) -> Violation {
    let action = &operation.action;
    let seen = format!("`{action}` was acknowledged with entry {index}, {why}");
    // An entry that is another one has taken the place of the one that was acknowledged.
    let violation = Violation::new(Kind::Lost, seen);
    violation.entry(index).operation(operation)
}
