//! openraft's network: how this member sends votes, entries and heartbeats to one peer.
//!
//! Entries go through one long-lived stream per peer: requests are pipelined, and the peer answers them in
//! order. A stream on which requests wait too long for an answer is given up, and openraft opens another.
//! Heartbeats, with which a leader also proves that it still leads, are single calls on another channel.
//!
//! Any failure is reported as *unreachable*, which openraft answers by backing off. Its other kind, a
//! network error, is tried again at once, which helps nobody when the peer is dead.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
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
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use wire::v1;
use wire::v1::peer_client::PeerClient;

use super::codec;
use super::company::in_company;
use super::dial::{CallError, Dialer, within};
use super::snapshots;
use crate::consensus::{NodeId, Snapshot, Types, Vote};
use crate::member::Node;
use crate::membership::Me;
use crate::snapshot::Handle;
use crate::sync::lock;

/// For opening a stream: connecting, the handshake of TLS, and a busy peer.
const STREAM_SETUP: Duration = Duration::from_secs(2);

/// A stream whose oldest request has waited this long is given up. Far above a slow disk's sync:
/// whether the peer is alive is told by heartbeats, not by this.
const STREAM_STALL: Duration = Duration::from_secs(5);

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

/// The ways to all peers: one channel to each for each purpose, wherever it is now.
///
/// openraft asks for a client once per leadership, and names an address then; a member that moves would not
/// be reached before the leader changes. It also asks for one per vote, which would make a handshake of each.
/// So clients look here for every request.
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

    /// A channel to where a peer is now; to `first_known` where the membership does not say.
    fn client(&self, id: NodeId, first_known: &str, purpose: Purpose) -> PeerClient<Channel> {
        let mut ways = lock(&self.ways);
        let known = ways.addresses.get(&id).map_or(first_known, String::as_str);
        let address = self.dialer.address(id, known);
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
}

impl Peer {
    fn client(&self, purpose: Purpose) -> PeerClient<Channel> {
        self.network.client(self.id, &self.first_known, purpose)
    }

    fn unreachable<R: AsyncRuntime>(&self, error: &CallError) -> RPCError<Types<R>> {
        let text = format!("c{}: {error}", self.id);
        RPCError::Unreachable(Unreachable::from_string(text))
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

    async fn open_stream<R, S>(
        &mut self,
        input: S,
    ) -> Result<BoxStream<'static, Result<StreamAppendResult<Types<R>>, CallError>>, CallError>
    where
        R: AsyncRuntime,
        S: Stream<Item = AppendEntriesRequest<Types<R>>> + Send + Unpin + 'static,
    {
        let sent = Arc::new(AtomicU64::new(0));
        let counter = sent.clone();
        let mut header = Some(self.header.clone());
        let requests = in_company(input).map(move |request| {
            counter.fetch_add(1, Ordering::Relaxed);
            codec::put_append(&request, header.take())
        });
        let mut client = self.client(Purpose::Replication);
        let replies = within(STREAM_SETUP, client.append(requests)).await?;
        Ok(replies_of::<R>(replies, sent))
    }
}

/// The replies of a stream, watched for progress.
fn replies_of<R: AsyncRuntime>(
    replies: Streaming<v1::PeerAppendReply>,
    sent: Arc<AtomicU64>,
) -> BoxStream<'static, Result<StreamAppendResult<Types<R>>, CallError>> {
    let answered = 0_u64;
    stream::unfold(Some((replies, answered)), move |state| {
        let sent = sent.clone();
        async move {
            let (mut replies, answered) = state?;
            let next = match next_reply(&mut replies, answered, &sent).await {
                Ok(Some(reply)) => codec::append_reply::<R>(reply).map_err(CallError::from),
                Ok(None) => return None,
                Err(error) => Err(error),
            };
            let rest = matches!(next, Ok(Ok(_))).then_some((replies, answered + 1));
            Some((next, rest))
        }
    })
    .boxed()
}

/// Waits for a reply as long as it takes while nothing is outstanding, and a while if something is.
async fn next_reply(
    replies: &mut Streaming<v1::PeerAppendReply>,
    answered: u64,
    sent: &AtomicU64,
) -> Result<Option<v1::PeerAppendReply>, CallError> {
    let mut outstanding = false;
    loop {
        match tokio::time::timeout(STREAM_STALL, replies.message()).await {
            Ok(reply) => return Ok(reply?),
            // A request may have been sent just now: only the second look counts.
            Err(_) if outstanding => return Err(CallError::TimedOut(STREAM_STALL)),
            Err(_) => outstanding = sent.load(Ordering::Relaxed) > answered,
        }
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
            let opened = self.open_stream::<R, _>(input).await;
            let replies = opened.map_err(|error| self.unreachable(&error))?;
            Ok(replies
                .map(|reply| reply.map_err(|error| self.unreachable(&error)))
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
        let sent = snapshots::send(&mut client, &self.header, vote, &snapshot.snapshot);
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

/// A read error of our own disk, in the form in which calls fail.
pub fn local_failure(error: &io::Error) -> CallError {
    CallError::from(Status::internal(error.to_string()))
}
