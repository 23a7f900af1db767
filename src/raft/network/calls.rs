//! The questions of our own that members ask each other.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use model::{ControllerId, Generation};
use tonic::transport::Channel;
use wire::transport::{self, DialFailure, Timers};
use wire::v1;
use wire::v1::peer_client::PeerClient;

use super::codec;
use super::dial::{CallError, Dialer, within};
use crate::consensus::{LogId, NodeId, Vote};
use crate::error::Error;
use crate::member::{LogIdentity, Node};
use crate::peers::{Identified, Lacks, Peers, Suspicion};
use crate::sync::lock;

/// A round of the leader takes a round trip to a quorum; beyond a lease it gives up by itself.
const READ_INDEX_LIMIT: Duration = Duration::from_secs(2);
const IDENTIFY_LIMIT: Duration = Duration::from_secs(3);
const LACKS_LIMIT: Duration = Duration::from_secs(3);

/// Within a quick election, which is pointless when it is slow.
const ELECTION_LIMIT: Duration = Duration::from_millis(200);

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

    fn client(&self, id: NodeId, address: &str) -> PeerClient<Channel> {
        let mut clients = lock(&self.clients);
        let key = (id, address.to_owned());
        clients
            .entry(key)
            .or_insert_with(|| self.dialer.client(id, address))
            .clone()
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
            versions: wire::convert::versions_in(reply.versions),
        })
    }

    async fn lacks(&self, id: NodeId, node: &Node) -> Result<Lacks, Error> {
        let message = v1::PeerLacksRequest {
            header: Some(self.dialer.header(id, node)),
        };
        let mut client = self.client(id, &node.addresses.raft);
        match within(LACKS_LIMIT, client.lacks(message)).await {
            Ok(v1::PeerLacksReply { applied, blobs }) => Ok(Lacks { applied, blobs }),
            // A release that knows no blobs lacks none.
            Err(CallError::Status(status)) if status.code() == tonic::Code::Unimplemented => {
                let (applied, blobs) = (u64::MAX, 0);
                Ok(Lacks { applied, blobs })
            }
            Err(error) => Err(of_peer(error)),
        }
    }

    async fn presence(&self, id: NodeId, node: &Node) -> Error {
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
            Ok(()) => of_peer(tonic::Status::unavailable("it closed the connection")),
            Err(status) => of_peer(status),
        }
    }

    async fn refuses(&self, id: NodeId, node: &Node) -> bool {
        let address = self.dialer.address(id, &node.addresses.raft);
        let probed = transport::probe(&address, Timers::default()).await;
        probed.is_err_and(|error| error.failure == DialFailure::Refused)
    }

    async fn suspect(&self, id: NodeId, node: &Node, leader: &Vote) -> Result<Suspicion, Error> {
        let message = v1::PeerSuspectRequest {
            header: Some(self.dialer.header(id, node)),
            leader: Some(codec::put_vote(leader)),
        };
        let mut client = self.client(id, &node.addresses.raft);
        let reply = within(ELECTION_LIMIT, client.suspect(message)).await;
        let reply = reply.map_err(of_peer)?;
        let vote = reply.vote.map(|vote| codec::vote(Some(vote))).transpose();
        Ok(Suspicion {
            refused: reply.refused,
            vote: vote.map_err(of_peer)?,
            last_log: reply.last_log.map(codec::log_id_of),
        })
    }

    async fn transfer(
        &self,
        id: NodeId,
        node: &Node,
        leader: &Vote,
        to: (NodeId, Option<LogId>),
    ) -> Result<(), Error> {
        let message = v1::PeerTransferRequest {
            header: Some(self.dialer.header(id, node)),
            from_leader: Some(codec::put_vote(leader)),
            to_node: to.0,
            last_log: to.1.as_ref().map(codec::put_log_id),
        };
        let mut client = self.client(id, &node.addresses.raft);
        let told = within(ELECTION_LIMIT, client.transfer_leader(message)).await;
        told.map(|_| ()).map_err(of_peer)
    }
}

/// Who can't reach the leader can do no better than wait for another.
fn of_leader(error: CallError) -> Error {
    Error::no_leader(format!("the leader can't be asked: {error}"))
}

fn of_peer(error: impl Into<CallError>) -> Error {
    Error::busy(error.into().to_string())
}
