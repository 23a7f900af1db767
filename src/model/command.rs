//! What may be proposed. A gateway can build a [`Command`]; only the leader's own code builds a
//! [`SystemCommand`], so no request can ask for an assignment or an expiry.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::agent::AgentProfile;
use crate::archive::Retention;
use crate::backend::SetBackend;
use crate::blob::{BlobRef, Held};
use crate::id::{AgentId, Epoch, Fence, Generation, Incarnation, JoinTokenId, RuleId, TaskId};
use crate::join_token::{Enrolled, Enrolment, NewJoinToken};
use crate::limit;
use crate::namespace::SetNamespace;
use crate::outcome::{Disposition, Outcome};
use crate::policy::SetPolicy;
use crate::principal::Principal;
use crate::rejected::Rejected;
use crate::rule::AddRule;
use crate::sample::Observed;
use crate::spec::TaskSpec;
use crate::task::Estimate;
use crate::time::Millis;
use crate::trace::TraceRecord;
use crate::version::StateVersion;

/// A caller's name for one submit: the same id gives the same task.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(pub String);

impl RequestId {
    fn validate(&self) -> Result<(), Rejected> {
        if self.0.is_empty() {
            return Err(Rejected::Invalid("a request id can't be empty".into()));
        }
        if self.0.len() > limit::REQUEST_ID_MAX_BYTES {
            return Err(Rejected::over(
                "request id",
                limit::REQUEST_ID_MAX_BYTES,
                "bytes",
            ));
        }
        Ok(())
    }
}

/// Asks for a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submit {
    pub spec: TaskSpec,
    pub request_id: Option<RequestId>,
}

/// An agent's report of how an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    pub fence: Fence,
    pub outcome: Outcome,
}

/// What somebody outside asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    SubmitTask(Submit),
    CancelTask {
        task: TaskId,
        reason: String,
    },
    RegisterAgent(AgentProfile),
    FinishAttempt(Verdict),
    /// No new work for it; what it holds goes on.
    CordonAgent {
        agent: AgentId,
        reason: String,
    },
    /// Work again, and the end of a drain.
    UncordonAgent {
        agent: AgentId,
    },
    DrainAgent(DrainAgent),
    /// Forgets one that is empty, and lost or cordoned.
    RemoveAgent {
        agent: AgentId,
    },
    CreateJoinToken(NewJoinToken),
    RevokeJoinToken {
        token: JoinTokenId,
    },
    /// A controller has seen that this machine knows the token's secret.
    Enrol(Enrolment),
    SetBackend(SetBackend),
    SetNamespace(SetNamespace),
    SetPolicy(SetPolicy),
    AddRule(AddRule),
    RemoveRule {
        rule: RuleId,
    },
}

/// Closes an agent to new work, and has it give up what it holds: at once what has not begun, by the
/// deadline what runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainAgent {
    pub agent: AgentId,
    pub reason: String,
    /// Counted in state time from this entry on.
    pub deadline: Millis,
}

impl DrainAgent {
    fn validate(&self) -> Result<(), Rejected> {
        if self.deadline > limit::DRAIN_MAX {
            let days = limit::DRAIN_MAX.0 / 86_400_000;
            let why = format!("a drain's deadline is {days} days at most");
            return Err(Rejected::Invalid(why));
        }
        validate_reason(&self.reason)
    }
}

pub(crate) fn validate_reason(reason: &str) -> Result<(), Rejected> {
    match reason.len() {
        0..=limit::REASON_MAX_BYTES => Ok(()),
        _ => Err(Rejected::over("reason", limit::REASON_MAX_BYTES, "bytes")),
    }
}

impl Command {
    /// What is wrong with it whatever the state. Gateways ask before it costs the log anything; `apply`
    /// asks again, for an entry may come from anywhere.
    pub fn validate(&self) -> Result<(), Rejected> {
        match self {
            Command::SubmitTask(submit) => {
                submit.spec.validate()?;
                submit
                    .request_id
                    .as_ref()
                    .map_or(Ok(()), RequestId::validate)
            }
            Command::CancelTask { reason, .. } | Command::CordonAgent { reason, .. } => {
                validate_reason(reason)
            }
            Command::RegisterAgent(profile) => profile.validate(),
            Command::DrainAgent(drain) => drain.validate(),
            Command::CreateJoinToken(token) => token.validate(),
            Command::Enrol(enrolment) => enrolment.validate(),
            Command::SetBackend(asked) => asked.validate(),
            Command::SetNamespace(asked) => asked.validate(),
            Command::SetPolicy(asked) => asked.scope.validate(),
            Command::AddRule(asked) => asked.validate(),
            // A report is never refused: it is kept as far as the limits go.
            Command::FinishAttempt(_)
            | Command::UncordonAgent { .. }
            | Command::RemoveAgent { .. }
            | Command::RevokeJoinToken { .. }
            | Command::RemoveRule { .. } => Ok(()),
        }
    }

    /// Whether it brings something new to do or to keep. What ends or closes something does not, nor what agents say.
    pub fn brings_new(&self) -> bool {
        match self {
            Command::SubmitTask(_) | Command::SetBackend(_) => true,
            // A machine that joins may be the way out of a shortage, and so may a smaller quota.
            Command::CreateJoinToken(_)
            | Command::SetNamespace(_)
            | Command::SetPolicy(_)
            | Command::AddRule(_)
            | Command::RemoveRule { .. }
            | Command::Enrol(_)
            | Command::CancelTask { .. }
            | Command::RegisterAgent(_)
            | Command::FinishAttempt(_)
            | Command::CordonAgent { .. }
            | Command::UncordonAgent { .. }
            | Command::DrainAgent(_)
            | Command::RemoveAgent { .. }
            | Command::RevokeJoinToken { .. } => false,
        }
    }

    /// The blobs that it names.
    pub fn blobs(&self) -> Vec<BlobRef> {
        match self {
            Command::SubmitTask(submit) => submit.spec.blob_refs().collect(),
            Command::FinishAttempt(verdict) => verdict.outcome.blob_refs().collect(),
            Command::CancelTask { .. }
            | Command::RegisterAgent(_)
            | Command::CordonAgent { .. }
            | Command::UncordonAgent { .. }
            | Command::DrainAgent(_)
            | Command::RemoveAgent { .. }
            | Command::CreateJoinToken(_)
            | Command::SetBackend(_)
            | Command::SetNamespace(_)
            | Command::SetPolicy(_)
            | Command::AddRule(_)
            | Command::RemoveRule { .. }
            | Command::RevokeJoinToken { .. }
            | Command::Enrol(_) => Vec::new(),
        }
    }

    /// About how many bytes it takes in the log.
    pub fn size(&self) -> usize {
        let payload = match self {
            Command::SubmitTask(submit) => {
                let request_id = submit.request_id.as_ref().map_or(0, |id| id.0.len());
                submit.spec.size() + request_id
            }
            Command::CancelTask { reason, .. } | Command::CordonAgent { reason, .. } => {
                reason.len()
            }
            Command::RegisterAgent(profile) => profile.size(),
            Command::FinishAttempt(verdict) => verdict.outcome.size(),
            Command::DrainAgent(drain) => drain.reason.len(),
            Command::CreateJoinToken(token) => token.size(),
            Command::Enrol(enrolment) => enrolment.size(),
            Command::SetBackend(asked) => asked.name.len(),
            Command::SetNamespace(asked) => asked.size(),
            Command::SetPolicy(asked) => asked.scope.size(),
            Command::AddRule(asked) => asked.size(),
            Command::UncordonAgent { .. }
            | Command::RemoveAgent { .. }
            | Command::RemoveRule { .. }
            | Command::RevokeJoinToken { .. } => 0,
        };
        64 + payload
    }
}

/// Where the leader wants a task to run, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Placement {
    pub agent: AgentId,
    pub incarnation: Incarnation,
    pub trace: Arc<TraceRecord>,
    /// When the task was expected to start. The only field that came later, so the attribute may stand here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate: Option<Estimate>,
}

/// A placement of a task that is queued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assignment {
    pub task: TaskId,
    pub placement: Placement,
}

/// A task that is queued gets the place of others that run: they are ended, and go back to the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preemption {
    /// All on the agent of the placement, and of lower classes than the task's.
    pub victims: Vec<Victim>,
    pub assignment: Assignment,
}

/// A live attempt that has to end for another task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Victim {
    pub task: TaskId,
    pub epoch: Epoch,
}

/// What the leader does by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SystemCommand {
    /// The first entry of a cluster, and of each generation.
    Found {
        cluster_id: String,
        generation: Generation,
    },
    /// By what the decisions of this entry were made.
    Observe(Observed),
    Assign(Assignment),
    Preempt(Preemption),
    /// This incarnation's lease ran out: its attempts are lost.
    ExpireLease {
        agent: AgentId,
        incarnation: Incarnation,
    },
    /// It was not assigned in time.
    ExpireDeadline {
        task: TaskId,
    },
    /// What this agent holds had time enough to end by itself.
    ExpireDrain {
        agent: AgentId,
    },
    /// This rule does not hold any more.
    ExpireRule {
        rule: RuleId,
    },
    /// How much is kept in memory and in the archive, as this leader was configured.
    Retain(Retention),
    /// Every member understands this version, learners included: from here on it may be used.
    RaiseVersion {
        to: StateVersion,
    },
}

impl SystemCommand {
    /// What it assigns, where there is room, or others yield.
    pub fn assignment(&self) -> Option<&Assignment> {
        match self {
            SystemCommand::Assign(assignment)
            | SystemCommand::Preempt(Preemption { assignment, .. }) => Some(assignment),
            SystemCommand::Found { .. }
            | SystemCommand::Observe(_)
            | SystemCommand::ExpireLease { .. }
            | SystemCommand::ExpireDeadline { .. }
            | SystemCommand::ExpireDrain { .. }
            | SystemCommand::ExpireRule { .. }
            | SystemCommand::Retain(_)
            | SystemCommand::RaiseVersion { .. } => None,
        }
    }

    /// With when its task was expected to start; what assigns nothing stays as it is.
    #[must_use]
    pub fn with_estimate(mut self, estimate: Option<Estimate>) -> SystemCommand {
        if let SystemCommand::Assign(assignment)
        | SystemCommand::Preempt(Preemption { assignment, .. }) = &mut self
        {
            assignment.placement.estimate = estimate;
        }
        self
    }
}

/// One operation of an entry.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are the large one; boxing it would cost an allocation each"
)]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    Client {
        principal: Principal,
        command: Command,
        /// Only with a submit: the leader found room at once, so one commit does both.
        placement: Option<Placement>,
        /// Who has the blobs that the command names. The only field that came later, so the attribute may stand here.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        held: Option<Held>,
    },
    System(SystemCommand),
}

/// What an accepted operation answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    Submitted {
        task: TaskId,
        duplicate: bool,
    },
    Cancelled {
        task: TaskId,
    },
    Registered,
    Finished {
        task: TaskId,
        disposition: Disposition,
    },
    /// Who the machine is from now on.
    Enrolled(Enrolled),
    /// What was asked for is so.
    Done,
}
