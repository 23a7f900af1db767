//! openraft's messages over the simulated network. They come twice, late and in another order where the weather
//! says so; snapshots travel chunk by chunk from disk to disk, the archive's segments with them, as in the product.

use std::future::Future;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use openraft_rt_sim::SimRuntime;
use raft::Error;
use raft::parts::openraft::OptionalSend;
use raft::parts::openraft::async_runtime::AsyncRuntime;
use raft::parts::openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use raft::parts::openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use raft::parts::openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use raft::parts::{Handle, Node, NodeId, Types, Vote};

use crate::controller::{Boot, Consensus};
use crate::wires::{CALL_LIMIT, Wires, busy, within};

type C = Types<SimRuntime>;
type Snapshot = raft::parts::Snapshot<Handle>;

/// For a snapshot: the product gives it a minute and more, but gives up a connection on which nothing answers. Here
/// it travels in a moment.
const SNAPSHOT_LIMIT: Duration = Duration::from_secs(5);

impl RaftNetworkFactory<C> for Wires {
    type Network = Wire;

    async fn new_client(&mut self, target: NodeId, _: &Node) -> Wire {
        Wire {
            wires: self.clone(),
            target,
        }
    }
}

/// The way to one member.
pub struct Wire {
    wires: Wires,
    target: NodeId,
}

fn unreachable(error: Error) -> RPCError<C> {
    RPCError::Unreachable(Unreachable::from_string(error))
}

impl Wire {
    /// A message that its sender may send again, so it may come twice.
    async fn call<Q, T, E, Asked>(
        &self,
        request: Q,
        ask: impl Fn(Consensus, Q) -> Asked + Send + 'static,
    ) -> Result<T, RPCError<C>>
    where
        Q: Clone + Send + 'static,
        T: Send + 'static,
        E: std::fmt::Display + Send + 'static,
        Asked: Future<Output = Result<T, E>> + Send + 'static,
    {
        let network = &self.wires.world.network;
        let asked = |there: Arc<Boot>| async move {
            let answer = ask(there.core.raft.clone(), request.clone()).await;
            if let Some(later) = network.doubled() {
                drop(SimRuntime::spawn(async move {
                    SimRuntime::sleep(later).await;
                    if there.is_alive() {
                        // Nobody waits for this answer.
                        ask(there.core.raft.clone(), request).await.ok();
                    }
                }));
            }
            answer.map_err(busy)
        };
        let answer = self.wires.ask(self.target, CALL_LIMIT, asked).await;
        answer.map_err(unreachable)
    }

    async fn send_snapshot(&self, vote: Vote, snapshot: Snapshot) -> Result<Vote, Error> {
        let there = self.wires.dial(self.target).await.map_err(busy)?;
        let here = self.wires.world.boot(self.wires.me);
        let here = here.ok_or_else(|| busy("the process is gone"))?;
        let handle = copy(&here, &there, &snapshot.snapshot).map_err(busy)?;
        let snapshot = Snapshot {
            meta: snapshot.meta,
            snapshot: handle,
        };
        let installed = there.core.raft.install_full_snapshot(vote, snapshot).await;
        let vote = installed.map_err(busy)?.vote;
        self.wires.back(&there, vote).await
    }
}

/// From one disk to another: the chunks, then the segments that the receiver lacks.
fn copy(from: &Arc<Boot>, to: &Arc<Boot>, handle: &Handle) -> io::Result<Handle> {
    let manifest = (*handle.manifest).clone();
    let needs = manifest.segments.clone();
    let mut incoming = to.storage.shelf.receive(manifest)?;
    let mut reader = handle.reader()?;
    while let Some((record, _)) = reader.next()? {
        incoming.add(&record)?;
    }
    let came = incoming.finish()?;
    for need in to.storage.archive.missing(&needs)? {
        let mut segment = to.storage.archive.incoming(&need)?;
        from.storage
            .archive
            .visit(need.first, need.end, &mut |record| {
                segment.put(&[record])?;
                Ok(ControlFlow::Continue(()))
            })?;
        segment.finish()?;
    }
    Ok(came)
}

impl RaftNetworkV2<C> for Wire {
    type SnapshotData = Handle;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<C>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<C>, RPCError<C>> {
        self.call(request, |raft, request| async move {
            raft.append_entries(request).await
        })
        .await
    }

    async fn vote(
        &mut self,
        request: VoteRequest<C>,
        _: RPCOption,
    ) -> Result<VoteResponse<C>, RPCError<C>> {
        self.call(
            request,
            |raft, request| async move { raft.vote(request).await },
        )
        .await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<C>,
        _: RPCOption,
    ) -> Result<VoteResponse<C>, RPCError<C>> {
        self.call(request, |raft, request| async move {
            raft.pre_vote(request).await
        })
        .await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        _: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<C>, StreamingError<C>> {
        let sent = within(SNAPSHOT_LIMIT, self.send_snapshot(vote, snapshot)).await;
        let vote = sent.map_err(|error| {
            let (from, to) = (self.wires.me, self.target);
            let trace = &self.wires.world.trace;
            trace.say(format_args!("no snapshot from c{from} to c{to}: {error}"));
            StreamingError::Unreachable(Unreachable::from_string(error.to_string()))
        })?;
        Ok(SnapshotResponse::new(vote))
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<C>,
        _: RPCOption,
    ) -> Result<TransferLeaderResponse<C>, RPCError<C>> {
        let me = self.wires.me;
        let ask = |there: Arc<Boot>| async move {
            let handled = there.core.election.transfer(me, request).await;
            handled.map_err(busy)
        };
        let answer = self.wires.ask(self.target, CALL_LIMIT, ask).await;
        answer.map_err(unreachable)
    }
}
