//! What `apply` says happened. The leader acts on events; every controller wakes its waiting
//! clients with them.

use serde::{Deserialize, Serialize};

use crate::archive::ArchiveStep;
use crate::blob::BlobRef;
use crate::command::Reply;
use crate::id::{AgentId, Fence, Incarnation, Namespace, RuleId, TaskId};
use crate::policy::Scope;
use crate::rejected::Rejected;
use crate::task::StateName;

/// Something that happened at an index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    TaskQueued {
        task: TaskId,
    },
    TaskAssigned {
        fence: Fence,
        agent: AgentId,
        incarnation: Incarnation,
    },
    /// Back in the queue: a retry, or its agent was lost.
    TaskRequeued {
        task: TaskId,
    },
    /// The agent has to end this attempt and report.
    CancelRequested {
        fence: Fence,
        agent: AgentId,
        reason: String,
    },
    /// The agent has to end this attempt and report: another task has got its place.
    Preempted {
        fence: Fence,
        agent: AgentId,
        by: TaskId,
    },
    TaskEnded {
        task: TaskId,
        state: StateName,
    },
    /// An attempt's slot is free again (whatever became of the task).
    AttemptEnded {
        fence: Fence,
        agent: AgentId,
    },
    AgentRegistered {
        agent: AgentId,
    },
    AgentLost {
        agent: AgentId,
        incarnation: Incarnation,
    },
    /// Its time in the archive is over: what it held is gone.
    SegmentDropped {
        first: u64,
    },
    /// It gets no new work.
    AgentCordoned {
        agent: AgentId,
    },
    /// It gets work again.
    AgentUncordoned {
        agent: AgentId,
    },
    /// It has to give back what has not begun.
    AgentDraining {
        agent: AgentId,
    },
    /// It has to end what it still holds.
    DrainExpired {
        agent: AgentId,
    },
    AgentRemoved {
        agent: AgentId,
        incarnation: Incarnation,
    },
    /// Something else holds of one of its back ends.
    BackendSet {
        agent: AgentId,
    },
    /// Something else holds of it.
    NamespaceSet {
        namespace: Namespace,
    },
    /// Agents are chosen in another way for these tasks.
    PolicySet {
        scope: Scope,
    },
    /// It holds from now on, or as something else than before.
    RuleSet {
        rule: RuleId,
    },
    RuleRemoved {
        rule: RuleId,
    },
    /// Its time is over.
    RuleExpired {
        rule: RuleId,
    },
}

/// What an entry did: a reply for each of its operations, in their order, the events, and what goes to
/// the archive.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Applied {
    pub replies: Vec<Result<Reply, Rejected>>,
    pub events: Vec<Event>,
    pub archive: ArchiveStep,
    /// Blobs that nothing named before.
    pub blobs: Vec<BlobRef>,
}
