//! openraft's network: how this member sends votes, entries and heartbeats to one peer.
//!
//! Entries go over one long-lived connection per peer (`replication`). Heartbeats, with which a leader also
//! proves that it still leads, and all else are gRPC calls.
//!
//! Any failure is reported as *unreachable*, which openraft answers by backing off. Its other kind, a
//! network error, is tried again at once, which helps nobody when the peer is dead.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, Stream, StreamExt};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{AsyncRuntime, OptionalSend};
use tonic::Status;
use tonic::transport::Channel;
use wire::v1;
use wire::v1::peer_client::PeerClient;

use super::codec;
use super::dial::{CallError, Dialer, within};
use super::replication::{self, Link};
use super::snapshots;
use crate::consensus::{NodeId, Snapshot, Types, Vote};
use crate::member::Node;
use crate::membership::Me;
use crate::snapshot::Handle;
use crate::sync::lock;

/// A call may have to connect first, for which openraft's allowance for a heartbeat is too short.
const CALL_FLOOR: Duration = Duration::from_millis(500);

/// Pauses after which a dead peer is tried again: short enough that after a partition the first
/// request succeeds well within 2 s.
const BACKOFF: [Duration; 4] = [
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
];

/// The ways to all peers: one channel to each for each purpose but replication, wherever it is now.
///
/// openraft asks for a client once per leadership, and names an address then; a member that moves would not
/// be reached before the leader changes. It also asks for one per vote, which would make a handshake of each.
/// So clients look here for every request, and for every connection that they make themselves.
#[derive(Clone)]
pub struct Network {
    dialer: Dialer,
    ways: Arc<Mutex<Ways>>,
}

#[derive(Default)]
struct Ways {
    /// Where the members are, as the membership in force says.
    addresses: BTreeMap<NodeId, String>,
    /// Each with the address that it leads to.
    channels: BTreeMap<(NodeId, Purpose), (String, PeerClient<Channel>)>,
}

impl Network {
    pub fn new(dialer: Dialer) -> Self {
        Self {
            dialer,
            ways: Arc::default(),
        }
    }

    pub fn me(&self) -> &Me {
        self.dialer.me()
    }

    /// The members and where they are; channels to others are given up.
    pub fn know<'n>(&self, members: impl Iterator<Item = (&'n NodeId, &'n Node)>) {
        let addresses: BTreeMap<_, _> = members
            .map(|(id, node)| (*id, node.addresses.raft.clone()))
            .collect();
        let mut ways = lock(&self.ways);
        ways.channels
            .retain(|(id, _), _| addresses.contains_key(id));
        ways.addresses = addresses;
    }

    /// Where a peer is now; `first_known` where the membership does not say.
    fn address(&self, id: NodeId, first_known: &str) -> String {
        let ways = lock(&self.ways);
        let known = ways.addresses.get(&id).map_or(first_known, String::as_str);
        self.dialer.address(id, known)
    }

    /// A channel to where a peer is now.
    fn client(&self, id: NodeId, first_known: &str, purpose: Purpose) -> PeerClient<Channel> {
        let address = self.address(id, first_known);
        let mut ways = lock(&self.ways);
        match ways.channels.get(&(id, purpose)) {
            Some((leads_to, client)) if *leads_to == address => client.clone(),
            Some(_) | None => {
                let client = self.dialer.client(id, &address);
                let way = (address, client.clone());
                ways.channels.insert((id, purpose), way);
                client
            }
        }
    }

    fn peer(&self, id: NodeId, node: &Node, purpose: Purpose) -> Peer {
        Peer {
            id,
            header: self.dialer.header(id, node),
            first_known: node.addresses.raft.clone(),
            network: self.clone(),
            purpose,
            link: None,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Purpose {
    Replication,
    /// What must not wait behind entries: heartbeats, votes, handing over.
    Heartbeat,
    Snapshot,
}

impl<R: AsyncRuntime> RaftNetworkFactory<Types<R>> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: NodeId, node: &Node) -> Peer {
        self.peer(target, node, Purpose::Replication)
    }

    async fn new_heartbeat_client(&mut self, target: NodeId, node: &Node) -> Peer {
        self.peer(target, node, Purpose::Heartbeat)
    }

    async fn new_snapshot_client(&mut self, target: NodeId, node: &Node) -> Peer {
        self.peer(target, node, Purpose::Snapshot)
    }
}

/// One peer, for one purpose.
pub struct Peer {
    id: NodeId,
    header: v1::PeerHeader,
    first_known: String,
    network: Network,
    purpose: Purpose,
    /// For replication, between two of openraft's streams.
    link: Option<Link>,
}

impl Peer {
    fn client(&self, purpose: Purpose) -> PeerClient<Channel> {
        self.network.client(self.id, &self.first_known, purpose)
    }

    /// The connection for entries, to where the peer is now.
    async fn linked(&mut self) -> Result<Link, CallError> {
        let address = self.network.address(self.id, &self.first_known);
        if let Some(mut link) = self.link.take()
            && link.is_good(&address)
        {
            return Ok(link);
        }
        Link::open(&self.network.dialer, address, &self.header).await
    }

    fn unreachable<R: AsyncRuntime>(&self, error: &CallError) -> RPCError<Types<R>> {
        unreachable(self.id, error)
    }

    fn limit(option: &RPCOption) -> Duration {
        option.soft_ttl().max(CALL_FLOOR)
    }

    async fn heartbeat<R: AsyncRuntime>(
        &mut self,
        request: &AppendEntriesRequest<Types<R>>,
        limit: Duration,
    ) -> Result<StreamAppendResult<Types<R>>, CallError> {
        let message = codec::put_append(request, Some(self.header.clone()));
        let mut client = self.client(Purpose::Heartbeat);
        let reply = within(limit, client.heartbeat(message)).await?;
        Ok(codec::append_reply::<R>(reply)?)
    }
}

impl<R: AsyncRuntime> RaftNetworkV2<Types<R>> for Peer {
    type SnapshotData = Handle;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types<R>>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types<R>>, RPCError<Types<R>>> {
        let answer = self.heartbeat(&request, Self::limit(&option)).await;
        answer
            .map(AppendEntriesResponse::from)
            .map_err(|error| self.unreachable(&error))
    }

    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<
            BoxStream<'s, Result<StreamAppendResult<Types<R>>, RPCError<Types<R>>>>,
            RPCError<Types<R>>,
        >,
    >
    where
        S: Stream<Item = AppendEntriesRequest<Types<R>>> + OptionalSend + Unpin + 'static,
    {
        async move {
            if self.purpose == Purpose::Heartbeat {
                // One request; polled until it is answered, then the stream ends.
                let replies = async move {
                    let request = input.next().await?;
                    let answer = self.heartbeat(&request, Self::limit(&option)).await;
                    Some(answer.map_err(|error| self.unreachable(&error)))
                };
                return Ok(stream::once(replies).filter_map(std::future::ready).boxed());
            }
            // openraft's pause after a failure is in the stream of requests: unless one is waited for
            // before dialling, a peer that refuses connections is dialled without any pause at all.
            let Some(first) = input.next().await else {
                return Ok(stream::empty().boxed());
            };
            let input = stream::once(std::future::ready(first)).chain(input);
            let linked = self.linked().await;
            let link = linked.map_err(|error| self.unreachable(&error))?;
            let (id, kept) = (self.id, &mut self.link);
            Ok(replication::session::<R>(link, kept, input)
                .map(move |reply| reply.map_err(|error| unreachable(id, &error)))
                .boxed())
        }
        .boxed()
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types<R>>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types<R>>, RPCError<Types<R>>> {
        let message = codec::put_vote_request(&request, self.header.clone());
        let mut client = self.client(Purpose::Heartbeat);
        let reply = within(Self::limit(&option), client.vote(message)).await;
        let reply = reply.and_then(|reply| Ok(codec::vote_reply(reply)?));
        reply.map_err(|error| self.unreachable(&error))
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types<R>>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types<R>>, RPCError<Types<R>>> {
        let message = codec::put_vote_request(&request, self.header.clone());
        let mut client = self.client(Purpose::Heartbeat);
        let reply = within(Self::limit(&option), client.pre_vote(message)).await;
        let reply = reply.and_then(|reply| Ok(codec::vote_reply(reply)?));
        reply.map_err(|error| self.unreachable(&error))
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<Handle>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types<R>>, StreamingError<Types<R>>> {
        let mut client = self.client(Purpose::Snapshot);
        let me = &self.network.me().node.addresses.raft;
        let sent = snapshots::send(&mut client, &self.header, me, vote, &snapshot.snapshot);
        let outcome = tokio::select! {
            closed = cancel => return Err(StreamingError::Closed(closed)),
            outcome = sent => outcome,
        };
        outcome.map(SnapshotResponse::new).map_err(|error| {
            let text = format!("snapshot to c{}: {error}", self.id);
            StreamingError::Unreachable(Unreachable::from_string(text))
        })
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types<R>>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types<R>>, RPCError<Types<R>>> {
        let message = codec::put_transfer(&request, self.header.clone());
        let mut client = self.client(Purpose::Heartbeat);
        let reply = within(Self::limit(&option), client.transfer_leader(message)).await;
        let accepted = reply.and_then(|reply| match reply.accepted {
            true => Ok(()),
            false => Err(CallError::from(Status::failed_precondition(reply.reason))),
        });
        accepted.map(Ok).map_err(|error| self.unreachable(&error))
    }

    fn backoff(&self) -> Option<Backoff> {
        let last = BACKOFF[BACKOFF.len() - 1];
        Some(Backoff::new(
            BACKOFF.into_iter().chain(std::iter::repeat(last)),
        ))
    }
}

fn unreachable<R: AsyncRuntime>(id: NodeId, error: &CallError) -> RPCError<Types<R>> {
    RPCError::Unreachable(Unreachable::from_string(format!("c{id}: {error}")))
}

/// A read error of our own disk, in the form in which calls fail.
pub fn local_failure(error: &io::Error) -> CallError {
    CallError::from(Status::internal(error.to_string()))
}
