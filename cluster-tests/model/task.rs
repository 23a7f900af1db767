//! One task as a client may be told of it: it appears by a submit, goes forward by itself, and ends once.
//!
//! Where it is between two looks nobody knows, so the state is what was seen last: any later version explains the next
//! look, an earlier one does not. Versions are told apart by `last_index` alone, which is a number like any other here.

use super::search::Specification;
use crate::history::{Action, Operation, Outcome, TaskState, Value};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Now {
    Absent,
    There {
        id: u64,
        /// The latest version that was seen; 0 before the first.
        version: u64,
        epoch: u64,
        /// Somebody was told that it is cancelled, or will be.
        cancelled: bool,
        /// Somebody was told that it has ended; how, where they were told.
        ended: Option<Option<TaskState>>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    Submit,
    Cancel,
    Look,
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Submitted { id: u64, duplicate: bool },
    Cancelled,
    HasEnded,
    NoSuchTask,
    Seen(Seen),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub id: u64,
    pub state: TaskState,
    pub version: u64,
    pub epoch: u64,
    pub cancelling: bool,
}

pub struct OneTask;

impl Specification for OneTask {
    type State = Now;
    type Call = Call;
    type Answer = Answer;

    fn initial(&self) -> Now {
        Now::Absent
    }

    fn step(&self, now: &Now, call: &Call, answer: Option<&Answer>) -> Option<Now> {
        match (call, answer) {
            (Call::Submit, Some(Answer::Submitted { id, duplicate })) => {
                submitted(now, *id, *duplicate)
            }
            // Which id it got, later answers say.
            (Call::Submit, None) => match now {
                Now::Absent => Some(new(0)),
                Now::There { .. } => Some(now.clone()),
            },
            (Call::Cancel, Some(Answer::Cancelled)) => cancelled(now),
            // Where it can't be cancelled, to take it changes nothing.
            (Call::Cancel, None) => cancelled(now).or_else(|| Some(now.clone())),
            (_, Some(Answer::HasEnded)) => has_ended(now),
            (_, Some(Answer::NoSuchTask)) => (*now == Now::Absent).then_some(Now::Absent),
            (Call::Look, Some(Answer::Seen(seen))) => looked(now, seen),
            (Call::Look, None) => Some(now.clone()),
            (Call::Submit | Call::Cancel | Call::Look, Some(_)) => None,
        }
    }
}

fn new(id: u64) -> Now {
    Now::There {
        id,
        version: 0,
        epoch: 0,
        cancelled: false,
        ended: None,
    }
}

fn submitted(now: &Now, told: u64, duplicate: bool) -> Option<Now> {
    match now {
        // A client that asked several times within one operation may be told that its own first try was before.
        Now::Absent => Some(new(told)),
        Now::There { id, .. } if *id == 0 || *id == told => {
            let mut now = now.clone();
            if let Now::There { id, .. } = &mut now {
                *id = told;
            }
            duplicate.then_some(now)
        }
        Now::There { .. } => None,
    }
}

fn cancelled(now: &Now) -> Option<Now> {
    let mut now = now.clone();
    match &mut now {
        Now::There {
            cancelled,
            ended: None | Some(Some(TaskState::Cancelled)),
            ..
        } => {
            *cancelled = true;
            Some(now)
        }
        // Somebody was told that it has ended, and not how.
        Now::There {
            cancelled,
            ended: ended @ Some(None),
            ..
        } => {
            *cancelled = true;
            *ended = Some(Some(TaskState::Cancelled));
            Some(now)
        }
        Now::There { .. } | Now::Absent => None,
    }
}

fn has_ended(now: &Now) -> Option<Now> {
    let mut now = now.clone();
    match &mut now {
        Now::There { ended, .. } if *ended != Some(Some(TaskState::Cancelled)) => {
            *ended = ended.or(Some(None));
            Some(now)
        }
        Now::There { .. } | Now::Absent => None,
    }
}

fn looked(now: &Now, seen: &Seen) -> Option<Now> {
    let Now::There {
        id,
        version,
        epoch,
        cancelled,
        ended,
    } = now
    else {
        return None;
    };
    let same_task = *id == 0 || *id == seen.id;
    let forward = seen.version >= *version && seen.epoch >= *epoch;
    let as_ended = match ended {
        None => true,
        Some(None) => seen.state.is_terminal(),
        // A late report settles one whose end nobody saw.
        Some(Some(TaskState::Unknown)) => seen.state.is_terminal(),
        Some(Some(how)) => seen.state == *how,
    };
    // One that is to be cancelled is never given to anybody else.
    let as_cancelled = !*cancelled || seen.state.is_terminal() || seen.cancelling;
    let now = Now::There {
        id: seen.id,
        version: seen.version,
        epoch: seen.epoch,
        cancelled: *cancelled || seen.cancelling,
        ended: match seen.state.is_terminal() {
            true => Some(Some(seen.state)),
            false => *ended,
        },
    };
    (same_task && forward && as_ended && as_cancelled).then_some(now)
}

/// What an operation says of one task. `None`: nothing that this can judge, or it did not happen.
pub fn of(operation: &Operation) -> Option<(Call, Option<Answer>)> {
    let (answer, refused) = match &operation.outcome {
        Outcome::Ok(answer) => (Some(answer), None),
        Outcome::Refused { code, .. } => (None, Some(code.as_str())),
        Outcome::Unknown { .. } => (None, None),
    };
    let value = answer.map(|answer| &answer.value);
    match (&operation.action, value, refused) {
        (Action::Submit { .. }, Some(Value::Submitted { task, duplicate }), None) => {
            let (id, duplicate) = (task.id, *duplicate);
            Some((Call::Submit, Some(Answer::Submitted { id, duplicate })))
        }
        (Action::Submit { .. }, None, None) => Some((Call::Submit, None)),
        (Action::Cancel { .. }, Some(_), None) => Some((Call::Cancel, Some(Answer::Cancelled))),
        (Action::Cancel { .. }, None, None) => Some((Call::Cancel, None)),
        (Action::Cancel { .. }, None, Some("already_ended")) => {
            Some((Call::Cancel, Some(Answer::HasEnded)))
        }
        (Action::Get { .. }, Some(Value::Task { task }), None) => {
            // An old answer that says so promises nothing.
            operation.index()?;
            let seen = Answer::Seen(Seen {
                id: task.id,
                state: task.state.settled(),
                version: task.last_index,
                epoch: task.epoch,
                cancelling: task.cancel_requested,
            });
            Some((Call::Look, Some(seen)))
        }
        (Action::Get { .. } | Action::Cancel { .. }, None, Some("no_such_task")) => {
            Some((Call::Look, Some(Answer::NoSuchTask)))
        }
        (_, _, _) => None,
    }
}
