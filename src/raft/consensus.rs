//! How openraft is instantiated: the one place that ties its type parameters to ours.
//!
//! `Types<R>` is generic over openraft's runtime, so that the deterministic simulation runs the same
//! log store, state machine and cluster core as production does on tokio. The leader id is the
//! *standard* one: at most one leader per term. openraft's other mode elects several leaders in one
//! term, and agents tell leaders apart by (generation, term).
//!
//! openraft's serde support is not used: what goes to disk or to a peer is encoded by `store::codec`
//! and `network::codec`, in structs of our own, so that an update of the library can't change a format.

use std::cmp::Ordering;
use std::fmt;
use std::marker::PhantomData;

use openraft::impls::{BoxedErrorSource, InlineBatch, OneshotResponder, leader_id_std};
use openraft::vote::RaftLeaderId;
use openraft::{AsyncRuntime, EntryPayload, OptionalSend, RaftTypeConfig};

use crate::member::Node;
use crate::payload::{Payload, Response};

pub type NodeId = u64;
pub type LeaderId = leader_id_std::LeaderId<u64, NodeId>;
pub type CommittedLeaderId = <LeaderId as RaftLeaderId>::Committed;
pub type Vote = openraft::impls::Vote<LeaderId>;
pub type LogId = openraft::impls::LogId<CommittedLeaderId>;
pub type EntryBody = EntryPayload<Payload, NodeId, Node>;
pub type Entry = openraft::impls::Entry<CommittedLeaderId, EntryBody>;
pub type Membership = openraft::Membership<NodeId, Node>;
pub type StoredMembership = openraft::StoredMembership<CommittedLeaderId, NodeId, Node>;
pub type SnapshotMeta = openraft::storage::SnapshotMeta<CommittedLeaderId, NodeId, Node>;
pub type Snapshot<D> = openraft::storage::Snapshot<CommittedLeaderId, NodeId, Node, D>;

/// openraft's type configuration, for the runtime `R`.
pub struct Types<R>(PhantomData<fn() -> R>);

impl<R: AsyncRuntime> RaftTypeConfig for Types<R> {
    type D = Payload;
    type R = Response;
    type NodeId = NodeId;
    type Node = Node;
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = Vote;
    type Payload = EntryBody;
    type Entry = Entry;
    type AsyncRuntime = R;
    type Responder<T>
        = OneshotResponder<Self, T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = BoxedErrorSource;
}

pub fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term), index)
}

pub fn term_of(id: &LogId) -> u64 {
    **id.committed_leader_id()
}

/// The index after `last`: where the next entry goes.
pub fn next_index(last: Option<&LogId>) -> u64 {
    last.map_or(0, |id| id.index() + 1)
}

// Written out, because deriving them would ask the same of the runtime `R`.
impl<R> Clone for Types<R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Types<R> {}

impl<R> fmt::Debug for Types<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Types")
    }
}

impl<R> Default for Types<R> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<R> PartialEq for Types<R> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<R> Eq for Types<R> {}

impl<R> PartialOrd for Types<R> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<R> Ord for Types<R> {
    fn cmp(&self, _: &Self) -> Ordering {
        Ordering::Equal
    }
}
