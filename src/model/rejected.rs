//! Refusals: deterministic, and the caller's to mend. They are values, never panics.

use serde::{Deserialize, Serialize};

use crate::id::{AgentId, JoinTokenId, TaskId};

/// Why a command changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Rejected {
    #[error("{0}")]
    Invalid(String),
    #[error("{what} is over its limit of {limit} {unit}")]
    OverLimit {
        what: String,
        limit: u64,
        unit: String,
    },
    #[error("there is no task {0}")]
    NoSuchTask(TaskId),
    #[error("there is no agent {0}")]
    NoSuchAgent(AgentId),
    #[error("request id `{request_id}` was used for task {task} with another spec")]
    RequestIdReused { request_id: String, task: TaskId },
    #[error("task {task} has already ended: {state}")]
    AlreadyEnded { task: TaskId, state: String },
    #[error("{principal} may not do this: {need}")]
    Forbidden { principal: String, need: String },
    #[error("there is no join token {0}")]
    NoSuchJoinToken(JoinTokenId),
    /// It proves nothing, or nothing any more. Whoever shows it is not told which.
    #[error("join token {token} {why}")]
    JoinTokenRefused { token: JoinTokenId, why: String },
    #[error("the name {name} is not to be had: {why}")]
    NameTaken { name: String, why: String },
    /// It can't be forgotten as it is.
    #[error("agent {agent} {why}")]
    AgentInUse { agent: AgentId, why: String },
    /// What the leader planned on is no longer so; it plans again.
    #[error("the plan is stale: {0}")]
    Stale(String),
    #[error("agent {agent} has no back end {name}")]
    NoSuchBackend { agent: AgentId, name: String },
}

impl Rejected {
    pub(crate) fn over(what: &str, limit: usize, unit: &str) -> Rejected {
        Rejected::OverLimit {
            what: what.into(),
            limit: limit as u64,
            unit: unit.into(),
        }
    }
}
