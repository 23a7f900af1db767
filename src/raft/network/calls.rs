//! The questions of our own that members ask each other.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use model::{ControllerId, Generation};
use tonic::transport::Channel;
use wire::v1;
use wire::v1::peer_client::PeerClient;

use super::codec;
use super::dial::{CallError, Dialer, within};
use crate::consensus::{LogId, NodeId, Vote};
use crate::error::Error;
use crate::member::{LogIdentity, Node};
use crate::peers::{Identified, Peers};
use crate::sync::lock;

/// A round of the leader takes a round trip to a quorum; beyond a lease it gives up by itself.
const READ_INDEX_LIMIT: Duration = Duration::from_secs(2);
const IDENTIFY_LIMIT: Duration = Duration::from_secs(3);

/// Within a quick election, which is pointless when it is slow.
const ELECTION_LIMIT: Duration = Duration::from_millis(200);

/// What a follower says about a leader that looks dead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspicion {
    pub refused: bool,
    pub vote: Option<Vote>,
    pub last_log: Option<LogId>,
}

/// Calls to peers, over one channel to each.
pub struct Calls {
    dialer: Dialer,
    /// Keyed by the address too: a member may move.
    clients: Mutex<BTreeMap<(NodeId, String), PeerClient<Channel>>>,
}

impl Calls {
    pub fn new(dialer: Dialer) -> Self {
        Self {
            dialer,
            clients: Mutex::default(),
        }
    }

    pub fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    fn client(&self, id: NodeId, address: &str) -> PeerClient<Channel> {
        let mut clients = lock(&self.clients);
        let key = (id, address.to_owned());
        clients
            .entry(key)
            .or_insert_with(|| self.dialer.client(id, address))
            .clone()
    }

    /// Asks a follower whether the leader refuses connections from it too.
    pub async fn suspect(
        &self,
        id: NodeId,
        node: &Node,
        leader: &Vote,
    ) -> Result<Suspicion, CallError> {
        let message = v1::PeerSuspectRequest {
            header: Some(self.dialer.header(id, node)),
            leader: Some(codec::put_vote(leader)),
        };
        let mut client = self.client(id, &node.addresses.raft);
        let reply = within(ELECTION_LIMIT, client.suspect(message)).await?;
        Ok(Suspicion {
            refused: reply.refused,
            vote: reply.vote.map(|vote| codec::vote(Some(vote))).transpose()?,
            last_log: reply.last_log.map(codec::log_id_of),
        })
    }

    /// Tells a follower who is to be elected in a dead leader's place.
    pub async fn transfer(
        &self,
        id: NodeId,
        node: &Node,
        leader: &Vote,
        to: (NodeId, Option<LogId>),
    ) -> Result<(), CallError> {
        let message = v1::PeerTransferRequest {
            header: Some(self.dialer.header(id, node)),
            from_leader: Some(codec::put_vote(leader)),
            to_node: to.0,
            last_log: to.1.as_ref().map(codec::put_log_id),
        };
        let mut client = self.client(id, &node.addresses.raft);
        within(ELECTION_LIMIT, client.transfer_leader(message))
            .await
            .map(|_| ())
    }

    /// Watches a process: returns when the connection to it breaks, or could not be made.
    pub async fn presence(&self, id: NodeId, node: &Node) -> CallError {
        // A channel of its own: what breaks it is the peer's end and nothing else.
        let mut client = self.dialer.client(id, &node.addresses.raft);
        let header = Some(self.dialer.header(id, node));
        let watched = async {
            let request = v1::PeerPresenceRequest { header };
            let mut stream = client.presence(request).await?.into_inner();
            while stream.message().await?.is_some() {}
            Ok::<_, tonic::Status>(())
        };
        match watched.await {
            Ok(()) => CallError::from(tonic::Status::unavailable("it closed the connection")),
            Err(status) => CallError::from(status),
        }
    }
}

impl Peers for Calls {
    async fn read_index(&self, leader: NodeId, node: &Node) -> Result<LogId, Error> {
        use v1::peer_read_index_reply::Result as Told;

        let message = v1::PeerReadIndexRequest {
            header: Some(self.dialer.header(leader, node)),
        };
        let mut client = self.client(leader, &node.addresses.raft);
        let reply = within(READ_INDEX_LIMIT, client.read_index(message)).await;
        match reply.map_err(of_leader)?.result {
            Some(Told::Read(read)) => Ok(codec::log_id_of(read)),
            Some(Told::NoQuorum(_)) => Err(Error::no_quorum("no quorum of controllers answers")),
            Some(Told::NotLeader(_)) => Err(Error::NotLeader { leader: None }),
            None => Err(Error::no_leader("the leader answered nothing")),
        }
    }

    async fn identify(&self, id: NodeId, address: &str) -> Result<Identified, Error> {
        let header = Some(self.dialer.header_to_stranger(id));
        let mut client = self.client(id, address);
        let request = v1::PeerIdentifyRequest { header };
        let reply = within(IDENTIFY_LIMIT, client.identify(request))
            .await
            .map_err(|error| {
                Error::busy(format!(
                    "the controller at {address} can't be asked: {error}"
                ))
            })?;
        let log = LogIdentity::from_slice(&reply.log)
            .ok_or_else(|| Error::Rejected(format!("the controller at {address} names no log")))?;
        Ok(Identified {
            cluster_id: reply.cluster_id,
            id: ControllerId(reply.node),
            generation: Generation(reply.generation),
            log,
            last_log: reply.last_log.map(codec::log_id_of),
            used: reply.used,
        })
    }
}

/// Who can't reach the leader can do no better than wait for another.
fn of_leader(error: CallError) -> Error {
    Error::no_leader(format!("the leader can't be asked: {error}"))
}
