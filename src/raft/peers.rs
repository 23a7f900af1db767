//! What a member asks of another one besides openraft's own messages.
//!
//! A trait, so that a simulation can answer without sockets.

use std::future::Future;

use model::{ControllerId, Generation, Versions};

use crate::consensus::{LogId, NodeId, Vote};
use crate::error::Error;
use crate::member::{LogIdentity, Node};

/// Who answered at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identified {
    pub cluster_id: String,
    pub id: ControllerId,
    pub generation: Generation,
    pub log: LogIdentity,
    pub last_log: Option<LogId>,
    /// Its log holds something, or it has voted.
    pub used: bool,
    /// What the release that it runs understands.
    pub versions: Versions,
}

/// What a member still has to fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lacks {
    /// Up to this entry.
    pub applied: u64,
    pub blobs: u64,
}

/// What a follower says about a leader that looks dead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspicion {
    pub refused: bool,
    pub vote: Option<Vote>,
    pub last_log: Option<LogId>,
}

/// Every question but `presence` ends by itself, answered or not.
pub trait Peers: Send + Sync + 'static {
    /// Asks the leader for a read index, after a quorum has confirmed it.
    fn read_index(
        &self,
        leader: NodeId,
        node: &Node,
    ) -> impl Future<Output = Result<LogId, Error>> + Send;

    /// Asks who lives at an address.
    fn identify(
        &self,
        id: NodeId,
        address: &str,
    ) -> impl Future<Output = Result<Identified, Error>> + Send;

    /// What a member has applied, and how many blobs of that it lacks.
    fn lacks(&self, id: NodeId, node: &Node) -> impl Future<Output = Result<Lacks, Error>> + Send;

    /// Watches a process: returns why when the connection to it breaks, or could not be made.
    fn presence(&self, id: NodeId, node: &Node) -> impl Future<Output = Error> + Send;

    /// The member's machine answers, and says that nobody listens there.
    fn refuses(&self, id: NodeId, node: &Node) -> impl Future<Output = bool> + Send;

    /// Asks a follower whether the leader refuses connections from it too.
    fn suspect(
        &self,
        id: NodeId,
        node: &Node,
        leader: &Vote,
    ) -> impl Future<Output = Result<Suspicion, Error>> + Send;

    /// Tells a follower who is to be elected in a dead leader's place.
    fn transfer(
        &self,
        id: NodeId,
        node: &Node,
        leader: &Vote,
        to: (NodeId, Option<LogId>),
    ) -> impl Future<Output = Result<(), Error>> + Send;
}
