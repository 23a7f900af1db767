//! What a member asks of another one besides openraft's own messages.
//!
//! A trait, so that a simulation can answer without sockets.

use std::future::Future;

use model::{ControllerId, Generation};

use crate::consensus::{LogId, NodeId};
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
}

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
}
