//! What the leader knows of the agents beyond the log: sessions, silence, and what it has decided
//! but not yet applied. An input of the plan, gathered by the dispatcher.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::{AgentId, BlobDigest, BlobRef, Sample, Service, TaskSpec};

use crate::reserved::Reserved;
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
    /// What the leader alone knows: it stands in the log beside the decisions.
    pub sample: Sample,
    /// How long each sort of work takes there; the same.
    pub service: Service,
    /// What is decided and not applied yet: it counts as taken.
    pub reserved: Reserved,
}
