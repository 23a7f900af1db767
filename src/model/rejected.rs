//! Refusals: deterministic, and the caller's to mend. They are values, never panics.

use serde::{Deserialize, Serialize};

use crate::id::{AgentId, JoinTokenId, Namespace, RuleId, TaskId};
use crate::version::StateVersion;

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
    /// The voters have changed since a majority of them was asked; the leader asks again.
    #[error("a majority of the voters of now is not known to have its blobs")]
    NotHeld,
    /// Some controller may still run a release that does not know it.
    #[error(
        "this needs state version {needs} and the cluster is at {version}: it rises by itself once every \
         controller runs a release that has it"
    )]
    NotYet {
        needs: StateVersion,
        version: StateVersion,
    },
    /// What the leader planned on is no longer so; it plans again.
    #[error("the plan is stale: {0}")]
    Stale(String),
    #[error("agent {agent} has no back end {name}")]
    NoSuchBackend { agent: AgentId, name: String },
    /// Once some of its tasks have begun or ended there is room again.
    #[error("namespace {namespace} has as many tasks waiting as its quota allows: {most}")]
    QuotaUsedUp { namespace: Namespace, most: u64 },
    #[error(
        "namespace {namespace} can't have that quota: {why}; give at least as many, or cancel some first"
    )]
    QuotaTooLow { namespace: Namespace, why: String },
    /// No agent would be left, or it would change nothing.
    #[error("this rule can't be: {0}")]
    RuleContradicts(String),
    #[error("there is no rule {0}: see `quorate policy rules`")]
    NoSuchRule(RuleId),
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
