//! One operation of a client: what it asked for, when, and what it was told.

use serde::{Deserialize, Serialize};
use wire::v1;

use super::Moment;
use super::value::{AgentSeen, Order, TaskSeen, TaskState};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Unique in its history.
    pub id: u64,
    pub client: String,
    pub action: Action,
    pub invoked: Moment,
    /// When the outcome was known; `None` where the client never came to know one.
    pub answered: Option<Moment>,
    pub outcome: Outcome,
}

/// What was asked for. A client that repeats a request until it is answered has done one operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Action {
    Submit {
        request_id: String,
        spec: SpecSeen,
    },
    Cancel {
        task: u64,
    },
    /// Until the task has ended.
    Wait {
        task: u64,
    },
    Get {
        task: u64,
    },
    /// One page, the newest first.
    List {
        /// Empty: all.
        states: Vec<TaskState>,
        /// 0: the controller's own.
        limit: u32,
        /// Only tasks with a lower id; 0: all.
        page: u64,
    },
    Order {
        agent: String,
        order: Order,
    },
    GetAgent {
        agent: String,
    },
    ListAgents,
}

/// What of a spec the checkers need.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SpecSeen {
    pub namespace: String,
    pub name: String,
    pub at_most_once: bool,
    pub labels: Vec<(String, String)>,
    pub require: Vec<String>,
    /// What a request id stands for, in hexadecimal: the same for the same spec. Empty where it is no valid spec.
    pub identity: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Outcome {
    Ok(Answer),
    /// For good: it did not happen and never will.
    Refused {
        code: String,
        message: String,
    },
    /// No answer, or one that says so: it may have happened, may happen later, or never.
    Unknown {
        code: String,
        message: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Where in the log it stands: of a write the index of its entry (`log_index`), of a read that of the
    /// state which was looked at (`read_index`).
    pub position: Option<Position>,
    pub value: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    pub index: u64,
    pub term: u64,
    pub stale: bool,
}

/// What the answer held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "gave", rename_all = "snake_case")]
pub enum Value {
    Submitted { task: TaskSeen, duplicate: bool },
    Task { task: TaskSeen },
    Tasks { tasks: Vec<TaskSeen>, next: u64 },
    Agent { agent: Option<AgentSeen> },
    Agents { agents: Vec<AgentSeen> },
}

impl Action {
    pub fn is_read(&self) -> bool {
        match self {
            Action::Wait { .. }
            | Action::Get { .. }
            | Action::List { .. }
            | Action::GetAgent { .. }
            | Action::ListAgents => true,
            Action::Submit { .. } | Action::Cancel { .. } | Action::Order { .. } => false,
        }
    }

    /// A submit as its message says it.
    pub fn submit(request: &v1::SubmitRequest) -> Action {
        Action::Submit {
            request_id: request.request_id.clone(),
            spec: request.spec.as_ref().map(SpecSeen::of).unwrap_or_default(),
        }
    }
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Action::Submit { request_id, .. } => write!(f, "submit {request_id}"),
            Action::Cancel { task } => write!(f, "cancel t{task}"),
            Action::Wait { task } => write!(f, "wait for t{task}"),
            Action::Get { task } => write!(f, "get t{task}"),
            Action::List { .. } => f.write_str("list tasks"),
            Action::Order { agent, order } => write!(f, "{} {agent}", order.as_str()),
            Action::GetAgent { agent } => write!(f, "get agent {agent}"),
            Action::ListAgents => f.write_str("list agents"),
        }
    }
}

impl SpecSeen {
    pub fn of(spec: &v1::TaskSpec) -> SpecSeen {
        let labels = spec.labels.iter();
        let identity = model::TaskSpec::try_from(spec.clone()).map(|spec| spec.identity());
        SpecSeen {
            namespace: spec.namespace.clone(),
            name: spec.name.clone(),
            at_most_once: spec.at_most_once,
            labels: labels
                .map(|label| (label.key.clone(), label.value.clone()))
                .collect(),
            require: spec.require.clone(),
            identity: identity.map(hex::encode).unwrap_or_default(),
        }
    }
}

impl Outcome {
    pub fn answer(&self) -> Option<&Answer> {
        match self {
            Outcome::Ok(answer) => Some(answer),
            Outcome::Refused { .. } | Outcome::Unknown { .. } => None,
        }
    }

    pub fn as_str(&self) -> &'static str {
        match self {
            Outcome::Ok(_) => "ok",
            Outcome::Refused { .. } => "refused",
            Outcome::Unknown { .. } => "unknown",
        }
    }
}

impl Operation {
    /// Where in the log its answer stands. A stale read stands nowhere.
    pub fn index(&self) -> Option<u64> {
        let position = self.outcome.answer()?.position?;
        (!position.stale).then_some(position.index)
    }

    /// The task that a submit was acknowledged as.
    pub fn submitted(&self) -> Option<(&str, &TaskSeen)> {
        match (&self.action, &self.outcome.answer()?.value) {
            (Action::Submit { request_id, .. }, Value::Submitted { task, .. }) => {
                Some((request_id, task))
            }
            _ => None,
        }
    }

    /// Every task that its answer showed.
    pub fn tasks(&self) -> &[TaskSeen] {
        match self.outcome.answer().map(|answer| &answer.value) {
            Some(Value::Submitted { task, .. } | Value::Task { task }) => {
                std::slice::from_ref(task)
            }
            Some(Value::Tasks { tasks, .. }) => tasks,
            Some(Value::Agent { .. } | Value::Agents { .. }) | None => &[],
        }
    }
}

impl From<v1::Position> for Position {
    fn from(position: v1::Position) -> Position {
        Position {
            index: position.log_index,
            term: position.term,
            stale: position.stale,
        }
    }
}

impl Answer {
    pub fn submitted(reply: &v1::SubmitReply) -> Answer {
        Answer {
            position: reply.position.map(Position::from),
            value: Value::Submitted {
                task: TaskSeen::of(&reply.task.clone().unwrap_or_default()),
                duplicate: reply.duplicate,
            },
        }
    }

    /// Of a get, a wait or a cancel.
    pub fn task(reply: &v1::TaskReply) -> Answer {
        Answer {
            position: reply.position.map(Position::from),
            value: Value::Task {
                task: TaskSeen::of(&reply.task.clone().unwrap_or_default()),
            },
        }
    }

    pub fn tasks(reply: &v1::ListTasksReply) -> Answer {
        Answer {
            position: reply.position.map(Position::from),
            value: Value::Tasks {
                tasks: reply.tasks.iter().map(TaskSeen::of).collect(),
                next: reply.next,
            },
        }
    }

    pub fn agent(reply: &v1::AgentReply) -> Answer {
        Answer {
            position: reply.position.map(Position::from),
            value: Value::Agent {
                agent: reply.agent.as_ref().map(AgentSeen::of),
            },
        }
    }

    pub fn agents(reply: &v1::ListAgentsReply) -> Answer {
        Answer {
            position: reply.position.map(Position::from),
            value: Value::Agents {
                agents: reply.agents.iter().map(AgentSeen::of).collect(),
            },
        }
    }
}
