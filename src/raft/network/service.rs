//! The answering side of the peer port.
//!
//! Every request passes the `Guard` before openraft sees it.

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt, stream};
use openraft::Raft;
use openraft::errors::{Fatal, RaftError};
use openraft_rt_tokio::TokioRuntime;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status, Streaming};
use wire::transport::PeerInfo;
use wire::v1;
use wire::v1::peer_server::Peer as PeerApi;

use super::blobs::{self, Exchange};
use super::calls::Calls;
use super::codec;
use super::guard::Guard;
use super::segments::{self, Fetcher};
use super::snapshots;
use crate::consensus::{NodeId, Snapshot, Types};
use crate::election::QuickElection;
use crate::error::{Error, Hindrance};
use crate::machine::{Machine, Published, Storage};
use crate::member::Node;
use crate::membership::{effective, others};
use crate::read::Rounds;
use crate::snapshot::Handle;
use crate::store::log::LogStore;

type C = Types<TokioRuntime>;

pub struct Service {
    pub guard: Guard,
    pub raft: Raft<C, Machine<TokioRuntime>>,
    pub log: LogStore<TokioRuntime>,
    pub storage: Storage,
    pub published: Arc<Published>,
    pub segments: Fetcher,
    pub exchange: Exchange,
    pub rounds: Arc<Rounds>,
    /// One snapshot comes in at a time.
    pub receiving: Semaphore,
    pub election: Arc<QuickElection<TokioRuntime, Calls>>,
}

type ReplyStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn origin<T>(request: &Request<T>) -> Option<&PeerInfo> {
    request.extensions().get()
}

pub fn stopped(error: &Fatal<C>) -> Status {
    Status::unavailable(format!("consensus has stopped here: {error}"))
}

fn unwrap_fatal(error: RaftError<C>) -> Status {
    stopped(&error.unwrap_fatal())
}

impl Service {
    /// A snapshot becomes the state only where the archive that belongs to it is here. Done before consensus
    /// hears of it, so that nothing else waits for it; what came is kept for the next try.
    async fn fetch_segments(
        &self,
        handle: &Handle,
        sender: Option<(NodeId, Node)>,
    ) -> Result<(), Status> {
        let position = handle
            .manifest
            .position()
            .map_err(|damage| Status::invalid_argument(damage.to_string()))?;
        let mut peers = others(&position.membership, self.guard.me().id, None);
        if let Some(sender) = sender {
            // It has all of that. The others were members when the snapshot was taken, and may be gone.
            peers.retain(|(id, _)| *id != sender.0);
            peers.insert(0, sender);
        }
        let fetched = self.segments.complete(position.segments, &peers).await;
        fetched.map_err(|error| Status::unavailable(format!("the archive is not here: {error}")))
    }
}

#[tonic::async_trait]
impl PeerApi for Service {
    type PresenceStream = ReplyStream<v1::PeerPresenceReply>;
    type FetchSegmentStream = segments::Parts;
    type FetchBlobStream = blobs::Parts;

    async fn heartbeat(
        &self,
        request: Request<v1::PeerAppendRequest>,
    ) -> Result<Response<v1::PeerAppendReply>, Status> {
        self.guard
            .check(origin(&request), request.get_ref().header.as_ref())?;
        let request = codec::append::<TokioRuntime>(request.into_inner())?;
        let previous = request.prev_log_id;
        let last = request
            .entries
            .last()
            .map(|entry| entry.log_id)
            .or(previous);
        let answer = self
            .raft
            .append_entries(request)
            .await
            .map_err(unwrap_fatal)?;
        let result = answer.into_stream_result(previous, last);
        Ok(Response::new(codec::put_append_reply::<TokioRuntime>(
            &result,
        )))
    }

    async fn vote(
        &self,
        request: Request<v1::PeerVoteRequest>,
    ) -> Result<Response<v1::PeerVoteReply>, Status> {
        self.guard
            .check(origin(&request), request.get_ref().header.as_ref())?;
        let request = codec::vote_request(request.into_inner())?;
        let reply = self.raft.vote(request).await.map_err(unwrap_fatal)?;
        Ok(Response::new(codec::put_vote_reply(&reply)))
    }

    async fn pre_vote(
        &self,
        request: Request<v1::PeerVoteRequest>,
    ) -> Result<Response<v1::PeerVoteReply>, Status> {
        self.guard
            .check(origin(&request), request.get_ref().header.as_ref())?;
        let request = codec::vote_request(request.into_inner())?;
        let reply = self.raft.pre_vote(request).await.map_err(unwrap_fatal)?;
        Ok(Response::new(codec::put_vote_reply(&reply)))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<v1::PeerSnapshotPart>>,
    ) -> Result<Response<v1::PeerSnapshotReply>, Status> {
        let origin = origin(&request).cloned();
        let mut parts = request.into_inner();
        let announced = snapshots::announced(&mut parts).await?;
        self.guard
            .check(origin.as_ref(), announced.header.as_ref())?;
        let sender = announced.sender();
        let _turn = self
            .receiving
            .try_acquire()
            .map_err(|_| Status::resource_exhausted("a snapshot is coming in already"))?;
        let handle = snapshots::receive(
            Arc::clone(&self.storage.shelf),
            announced.manifest,
            &mut parts,
        )
        .await?;
        self.fetch_segments(&handle, sender).await?;
        let meta = handle
            .manifest
            .meta()
            .map_err(|damage| Status::invalid_argument(damage.to_string()))?;
        let snapshot = Snapshot {
            meta,
            snapshot: handle,
        };
        let installed = self
            .raft
            .install_full_snapshot(announced.vote, snapshot)
            .await;
        let vote = installed.map_err(|fatal| stopped(&fatal))?.vote;
        Ok(Response::new(v1::PeerSnapshotReply {
            vote: Some(codec::put_vote(&vote)),
        }))
    }

    async fn fetch_segment(
        &self,
        request: Request<v1::PeerSegmentRequest>,
    ) -> Result<Response<Self::FetchSegmentStream>, Status> {
        self.guard
            .check(origin(&request), request.get_ref().header.as_ref())?;
        let archive = self.storage.archive.clone();
        let parts = segments::send(&self.published, archive, request.get_ref())?;
        Ok(Response::new(parts))
    }

    async fn hold_blobs(
        &self,
        request: Request<v1::PeerHoldRequest>,
    ) -> Result<Response<v1::PeerHoldReply>, Status> {
        let header = request.get_ref().header.as_ref();
        self.guard.check(origin(&request), header)?;
        // Who asks has them.
        let sender = header.map(|header| header.from);
        let peers = others(&effective(&self.raft), self.guard.me().id, sender);
        let reply = self.exchange.hold(request.into_inner(), &peers).await?;
        Ok(Response::new(reply))
    }

    async fn fetch_blob(
        &self,
        request: Request<v1::PeerBlobRequest>,
    ) -> Result<Response<Self::FetchBlobStream>, Status> {
        self.guard
            .check(origin(&request), request.get_ref().header.as_ref())?;
        let parts = blobs::send(self.exchange.blobs.clone(), request.get_ref()).await?;
        Ok(Response::new(parts))
    }

    async fn lacks(
        &self,
        request: Request<v1::PeerLacksRequest>,
    ) -> Result<Response<v1::PeerLacksReply>, Status> {
        self.guard
            .check(origin(&request), request.get_ref().header.as_ref())?;
        // In this order: what was applied up to there is counted.
        let applied = self.published.view().state.last_applied();
        let blobs = self.exchange.blobs.stats().missing;
        Ok(Response::new(v1::PeerLacksReply { applied, blobs }))
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::PeerTransferRequest>,
    ) -> Result<Response<v1::PeerTransferReply>, Status> {
        self.guard
            .check(origin(&request), request.get_ref().header.as_ref())?;
        let message = request.into_inner();
        let header = message.header.as_ref();
        let told_by = header.ok_or_else(|| codec::missing("header"))?.from;
        let request = codec::transfer(message)?;
        let outcome = self.election.transfer(told_by, request).await;
        let reply = match outcome.map_err(|fatal| stopped(&fatal))? {
            Ok(()) => v1::PeerTransferReply {
                accepted: true,
                reason: String::new(),
            },
            Err(refusal) => v1::PeerTransferReply {
                accepted: false,
                reason: refusal.to_string(),
            },
        };
        Ok(Response::new(reply))
    }

    async fn read_index(
        &self,
        request: Request<v1::PeerReadIndexRequest>,
    ) -> Result<Response<v1::PeerReadIndexReply>, Status> {
        use v1::peer_read_index_reply::{NoQuorum, NotLeader, Result as Told};

        self.guard
            .check(origin(&request), request.get_ref().header.as_ref())?;
        let told = match self.rounds.join().await {
            Ok(read) => Told::Read(codec::put_log_id(&read)),
            Err(Error::NotLeader { leader }) => Told::NotLeader(NotLeader {
                leader: leader.map(|leader| leader.id.0),
            }),
            Err(Error::Unavailable {
                hindrance: Hindrance::NoQuorum,
                ..
            }) => Told::NoQuorum(NoQuorum {}),
            Err(error) => return Err(Status::unavailable(error.to_string())),
        };
        Ok(Response::new(v1::PeerReadIndexReply { result: Some(told) }))
    }

    async fn identify(
        &self,
        request: Request<v1::PeerIdentifyRequest>,
    ) -> Result<Response<v1::PeerIdentifyReply>, Status> {
        self.guard
            .check_stranger(origin(&request), request.get_ref().header.as_ref())?;
        let me = self.guard.me();
        Ok(Response::new(v1::PeerIdentifyReply {
            cluster_id: me.cluster_id.clone(),
            node: me.id,
            generation: me.generation.0,
            log: me.node.log.0.to_vec().into(),
            last_log: self.log.last_log_id().as_ref().map(codec::put_log_id),
            used: self.log.is_used(),
            versions: Some(me.versions.into()),
        }))
    }

    async fn suspect(
        &self,
        request: Request<v1::PeerSuspectRequest>,
    ) -> Result<Response<v1::PeerSuspectReply>, Status> {
        self.guard
            .check(origin(&request), request.get_ref().header.as_ref())?;
        let leader = codec::vote(request.into_inner().leader)?
            .leader_id
            .voted_for;
        let told = self.election.suspicion(leader).await;
        let told = told.ok_or_else(|| Status::not_found("that leader is no member"))?;
        Ok(Response::new(v1::PeerSuspectReply {
            refused: told.refused,
            vote: told.vote.as_ref().map(codec::put_vote),
            last_log: told.last_log.as_ref().map(codec::put_log_id),
        }))
    }

    async fn presence(
        &self,
        request: Request<v1::PeerPresenceRequest>,
    ) -> Result<Response<Self::PresenceStream>, Status> {
        self.guard
            .check(origin(&request), request.get_ref().header.as_ref())?;
        let here = stream::once(async { Ok(v1::PeerPresenceReply {}) });
        Ok(Response::new(Box::pin(here.chain(stream::pending()))))
    }
}
