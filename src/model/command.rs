//! What may be proposed. A gateway can build a [`Command`]; only the leader's own code builds a
//! [`SystemCommand`], so no request can ask for an assignment or an expiry.

use serde::{Deserialize, Serialize};

use crate::agent::AgentProfile;
use crate::id::{AgentId, Fence, Generation, Incarnation, TaskId};
use crate::outcome::{Disposition, Outcome};
use crate::principal::Principal;
use crate::spec::TaskSpec;
use crate::trace::Trace;

/// A caller's name for one submit: the same id gives the same task.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(pub String);

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
    CancelTask { task: TaskId, reason: String },
    RegisterAgent(AgentProfile),
    FinishAttempt(Verdict),
}

/// Where the leader wants a task to run, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Placement {
    pub agent: AgentId,
    pub incarnation: Incarnation,
    pub trace: Trace,
}

/// A placement of a task that is queued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assignment {
    pub task: TaskId,
    pub placement: Placement,
}

/// What the leader does by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SystemCommand {
    /// The first entry of a cluster, and of each generation.
    Found {
        cluster_id: String,
        generation: Generation,
    },
    Assign(Assignment),
    /// This incarnation's lease ran out: its attempts are lost.
    ExpireLease {
        agent: AgentId,
        incarnation: Incarnation,
    },
    /// It was not assigned in time.
    ExpireDeadline {
        task: TaskId,
    },
    /// Retention: these ended long enough ago.
    Forget {
        tasks: Vec<TaskId>,
    },
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
    Done,
}
