//! What the leader knows of the agents beyond the log: sessions, silence, and what it has decided
//! but not yet applied. An input of the plan, gathered by the dispatcher.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::{AgentId, BlobDigest, BlobRef, Demand, Mix, TaskSpec};

use crate::rotation::Rotations;

/// The agents as the leader sees them now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fleet {
    pub agents: BTreeMap<AgentId, AgentView>,
    /// Blobs that the leader lacks: a task that needs one waits until it is there, for agents fetch it from the leader.
    pub lacks: Arc<BTreeSet<BlobDigest>>,
    /// Whose turn it is, under strategies that go by turns.
    pub rotations: Arc<Rotations>,
    /// Why nothing is begun now: the controllers' disks are nearly full.
    pub shortage: Option<String>,
}

impl Fleet {
    /// The first blob of a task that the leader does not have.
    pub fn lacked_by(&self, spec: &TaskSpec) -> Option<BlobRef> {
        let lacks = |blob: &BlobRef| self.lacks.contains(&blob.digest);
        spec.blob_refs().find(lacks)
    }
}

/// One agent's soft state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentView {
    /// A session on which assignments can be sent.
    pub connected: bool,
    /// On that session it said that it would give back whatever it is sent.
    pub declining: bool,
    /// Silent for too long: no new work.
    pub suspect: bool,
    /// Attempts that it may hold beyond its slots.
    pub prefetch: u32,
    /// Placements that are proposed but not applied yet: they count as taken.
    pub reserved: u32,
    /// The models that those of them ask.
    pub asking: model::Asking,
    /// What they take beyond slots, where that is something; in the order in which they were decided.
    pub demands: Vec<Demand>,
    /// How many of them there are of each sort.
    pub mix: Mix,
}
