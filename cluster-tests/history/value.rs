//! Things as an answer showed them, without what no checker looks at.

use serde::{Deserialize, Serialize};
use wire::v1;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// None was told.
    #[default]
    Unspecified,
    Queued,
    Assigned,
    /// Assigned, and the agent said that it runs.
    Running,
    Succeeded,
    Failed,
    Cancelled,
    Unknown,
    DeadLetter,
}

impl TaskState {
    pub fn is_terminal(self) -> bool {
        match self {
            TaskState::Unspecified
            | TaskState::Queued
            | TaskState::Assigned
            | TaskState::Running => false,
            TaskState::Succeeded
            | TaskState::Failed
            | TaskState::Cancelled
            | TaskState::Unknown
            | TaskState::DeadLetter => true,
        }
    }

    /// As the log knows it, which does not know what runs.
    pub fn settled(self) -> TaskState {
        match self {
            TaskState::Running => TaskState::Assigned,
            other => other,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            TaskState::Unspecified => "unspecified",
            TaskState::Queued => "queued",
            TaskState::Assigned => "assigned",
            TaskState::Running => "running",
            TaskState::Succeeded => "succeeded",
            TaskState::Failed => "failed",
            TaskState::Cancelled => "cancelled",
            TaskState::Unknown => "unknown",
            TaskState::DeadLetter => "dead_letter",
        }
    }
}

impl From<v1::TaskState> for TaskState {
    fn from(state: v1::TaskState) -> TaskState {
        match state {
            v1::TaskState::Unspecified => TaskState::Unspecified,
            v1::TaskState::Queued => TaskState::Queued,
            v1::TaskState::Assigned => TaskState::Assigned,
            v1::TaskState::Running => TaskState::Running,
            v1::TaskState::Succeeded => TaskState::Succeeded,
            v1::TaskState::Failed => TaskState::Failed,
            v1::TaskState::Cancelled => TaskState::Cancelled,
            v1::TaskState::Unknown => TaskState::Unknown,
            v1::TaskState::DeadLetter => TaskState::DeadLetter,
        }
    }
}

impl From<model::StateName> for TaskState {
    fn from(state: model::StateName) -> TaskState {
        match state {
            model::StateName::Queued => TaskState::Queued,
            model::StateName::Assigned => TaskState::Assigned,
            model::StateName::Succeeded => TaskState::Succeeded,
            model::StateName::Failed => TaskState::Failed,
            model::StateName::Cancelled => TaskState::Cancelled,
            model::StateName::Unknown => TaskState::Unknown,
            model::StateName::DeadLetter => TaskState::DeadLetter,
        }
    }
}

/// A task.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TaskSeen {
    pub id: u64,
    pub state: TaskState,
    /// Of the latest attempt; 0 where there was none.
    pub epoch: u64,
    pub attempt: u32,
    pub agent: String,
    pub submit_index: u64,
    /// Of the entry that changed it last: with the id, it names one version of the task.
    pub last_index: u64,
    pub generation: u64,
    pub request_id: String,
    pub cancel_requested: bool,
    /// Of the latest attempt, once the task has ended by it.
    pub result: Option<ResultSeen>,
}

/// How it ended, and what it printed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ResultSeen {
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    pub stdout_bytes: u64,
    pub stderr_bytes: u64,
    /// CRC-32C of the kept end of stdout. `None` where the answer only named it: it was too large to show, or not to be
    /// had from that controller then.
    pub stdout_crc: Option<u32>,
}

impl TaskSeen {
    pub fn of(task: &v1::Task) -> TaskSeen {
        TaskSeen {
            id: task.id,
            state: task.state().into(),
            epoch: task.epoch,
            attempt: task.attempt,
            agent: task.agent.clone(),
            submit_index: task.submit_index,
            last_index: task.last_index,
            generation: task.generation,
            request_id: task.request_id.clone(),
            cancel_requested: task.cancel_requested,
            result: task.result.as_ref().map(ResultSeen::of),
        }
    }

    /// State and result in words.
    pub fn ending(&self) -> String {
        let state = self.state.as_str();
        match &self.result {
            None => state.to_owned(),
            Some(result) => format!("{state} under epoch {}: {result}", self.epoch),
        }
    }

    /// Whether both say the same of how it ended, as far as they say.
    pub fn ends_like(&self, other: &TaskSeen) -> bool {
        self.state == other.state
            && ResultSeen::agree(&self.result, &other.result)
            && (self.result.is_none() || self.epoch == other.epoch)
    }

    pub fn shows_output(&self) -> bool {
        let shown = |result: &ResultSeen| result.stdout_crc.is_some();
        self.result.as_ref().is_none_or(shown)
    }
}

impl ResultSeen {
    pub fn of(result: &v1::TaskResult) -> ResultSeen {
        ResultSeen {
            exit_code: result.exit_code,
            signal: result.signal,
            stdout_bytes: result.stdout_bytes,
            stderr_bytes: result.stderr_bytes,
            stdout_crc: match result.stdout_blob {
                None => Some(crc32c::crc32c(&result.stdout)),
                Some(_) => None,
            },
        }
    }

    /// The same or none, but for an output that one of them does not show.
    pub fn agree(one: &Option<ResultSeen>, other: &Option<ResultSeen>) -> bool {
        match (one, other) {
            (Some(one), Some(other)) => one.agrees_with(other),
            (one, other) => one == other,
        }
    }

    fn agrees_with(&self, other: &ResultSeen) -> bool {
        let shown = self.stdout_crc.is_some() && other.stdout_crc.is_some();
        let numbers = |it: &ResultSeen| (it.exit_code, it.signal, it.stdout_bytes, it.stderr_bytes);
        numbers(self) == numbers(other) && (!shown || self.stdout_crc == other.stdout_crc)
    }
}

impl std::fmt::Display for ResultSeen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.exit_code, self.signal) {
            (Some(code), _) => write!(f, "exit code {code}")?,
            (None, Some(signal)) => write!(f, "signal {signal}")?,
            (None, None) => f.write_str("no exit")?,
        }
        write!(f, ", {} bytes of output", self.stdout_bytes)?;
        match self.stdout_crc {
            Some(crc) => write!(f, " with checksum {crc:08x}"),
            None => f.write_str(" that were not shown"),
        }
    }
}

/// What was ordered of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    Cordon,
    Uncordon,
    Drain,
    Remove,
}

impl Order {
    pub fn as_str(self) -> &'static str {
        match self {
            Order::Cordon => "cordon",
            Order::Uncordon => "uncordon",
            Order::Drain => "drain",
            Order::Remove => "remove",
        }
    }
}

/// An agent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AgentSeen {
    pub id: String,
    pub incarnation: String,
    pub slots: u32,
    /// Live attempts, as (task, epoch).
    pub attempts: Vec<(u64, u64)>,
    /// It gets no new work.
    pub cordoned: bool,
    pub draining: bool,
    pub lost: bool,
}

impl AgentSeen {
    pub fn of(agent: &v1::Agent) -> AgentSeen {
        let attempts = agent.attempts.iter();
        let cordon = agent.cordon.as_ref();
        AgentSeen {
            id: agent.id.clone(),
            incarnation: agent.incarnation.clone(),
            slots: agent.slots,
            attempts: attempts.map(|fence| (fence.task, fence.epoch)).collect(),
            cordoned: cordon.is_some(),
            draining: cordon.is_some_and(|cordon| cordon.drain.is_some()),
            lost: agent.state == "lost",
        }
    }
}

/// An event of a stream.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct SeenEvent {
    /// The entry, and the place among its events.
    pub index: u64,
    pub n: u32,
    #[serde(rename = "type")]
    pub kind: String,
    pub task: Option<u64>,
    pub epoch: Option<u64>,
    pub agent: String,
    pub state: TaskState,
}

impl SeenEvent {
    pub fn of(event: &v1::Event) -> SeenEvent {
        SeenEvent {
            index: event.index,
            n: event.n,
            kind: event.r#type.clone(),
            task: event.task,
            epoch: event.epoch,
            agent: event.agent.clone(),
            state: event.state().into(),
        }
    }
}

impl std::fmt::Display for SeenEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.kind)?;
        if let Some(task) = self.task {
            write!(f, " of t{task}")?;
        }
        if let Some(epoch) = self.epoch {
            write!(f, " under epoch {epoch}")?;
        }
        if !self.agent.is_empty() {
            write!(f, " on {}", self.agent)?;
        }
        match self.state {
            TaskState::Unspecified => Ok(()),
            state => write!(f, ", {}", state.as_str()),
        }
    }
}
