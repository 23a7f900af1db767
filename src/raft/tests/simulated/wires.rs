//! The network between simulated members: every way from one to another can be cut, and every port closed.
//!
//! What is sent to a member ends in the functions that the product's peer port calls. A hop takes a virtual
//! millisecond and an answer none; who waits in vain gives up after as long as the product does. Left out:
//! snapshots, and handing leadership over.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use model::{ControllerId, Generation};
use openraft::async_runtime::AsyncRuntime;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, Raft, ReadPolicy};
use openraft_rt_sim::SimRuntime;

use super::{C, SimCore};
use crate::consensus::{LogId, NodeId, Snapshot, Vote};
use crate::error::Error;
use crate::machine::Machine;
use crate::member::Node;
use crate::peers::{Identified, Lacks, Peers, Suspicion};
use crate::snapshot::Handle;
use crate::sync::lock;
use crate::watched::Watched;

const HOP: Duration = Duration::from_millis(1);

/// For a message of openraft's, and for a question of ours.
const CALL_LIMIT: Duration = Duration::from_millis(500);

/// For a read index, which takes a round of the leader's.
pub const READ_INDEX_LIMIT: Duration = Duration::from_secs(2);

/// For a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);

/// For what is asked within a quick election.
const ELECTION_LIMIT: Duration = Duration::from_millis(200);

/// What becomes of what one member sends to another.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Open,
    /// Nobody listens there, and the machine says so. What was connected is reset.
    Refused,
    /// It is lost. What was connected is reset, as by a firewall in between: that alone proves no death.
    Lost,
}

/// All members and all ways.
pub struct Net {
    cores: Mutex<BTreeMap<NodeId, Arc<SimCore>>>,
    /// From one to another. Those that are not named are open.
    ways: Watched<BTreeMap<(NodeId, NodeId), Way>>,
}

impl Net {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            cores: Mutex::default(),
            ways: Watched::new(BTreeMap::new()),
        })
    }

    /// A member that listens from now on.
    pub fn connect(&self, id: NodeId, core: Arc<SimCore>) {
        lock(&self.cores).insert(id, core);
    }

    pub fn set(&self, from: NodeId, to: NodeId, way: Way) {
        let mut ways = self.ways.follow().get();
        ways.insert((from, to), way);
        self.ways.set(ways);
    }

    /// All ways to a member: its port.
    pub fn set_port(&self, to: NodeId, way: Way) {
        let members: Vec<_> = lock(&self.cores).keys().copied().collect();
        for from in members {
            self.set(from, to, way);
        }
    }

    /// All ways to a member and from it.
    pub fn set_around(&self, id: NodeId, way: Way) {
        let members: Vec<_> = lock(&self.cores).keys().copied().collect();
        for other in members {
            self.set(other, id, way);
            self.set(id, other, way);
        }
    }

    fn way(&self, from: NodeId, to: NodeId) -> Way {
        let ways = self.ways.follow().get();
        ways.get(&(from, to)).copied().unwrap_or(Way::Open)
    }
}

/// The network as one member has it.
#[derive(Clone)]
pub struct Wires {
    pub me: NodeId,
    pub net: Arc<Net>,
}

/// Nobody listens there.
#[derive(Debug)]
struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("connection refused")
    }
}

impl Wires {
    /// Whoever lives there. Waits for ever where all is lost.
    async fn dial(&self, id: NodeId) -> Result<Arc<SimCore>, Refused> {
        SimRuntime::sleep(HOP).await;
        match self.net.way(self.me, id) {
            Way::Open => lock(&self.net.cores).get(&id).cloned().ok_or(Refused),
            Way::Refused => Err(Refused),
            Way::Lost => std::future::pending().await,
        }
    }
}

fn busy(error: impl fmt::Display) -> Error {
    Error::busy(error.to_string())
}

async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, Error>> + Send,
) -> Result<T, Error> {
    match SimRuntime::timeout(limit, answer).await {
        Ok(answer) => answer,
        Err(elapsed) => Err(busy(elapsed)),
    }
}

impl Peers for Wires {
    async fn read_index(&self, leader: NodeId, _: &Node) -> Result<LogId, Error> {
        let answer = async {
            let core = self.dial(leader).await.map_err(busy)?;
            let read = core.raft.get_read_linearizer(ReadPolicy::ReadIndex).await;
            Ok(*read.map_err(busy)?.read_log_id().log_id())
        };
        let answer = within(READ_INDEX_LIMIT, answer).await;
        answer.map_err(|error| Error::no_leader(error.to_string()))
    }

    async fn identify(&self, id: NodeId, _: &str) -> Result<Identified, Error> {
        let answer = async {
            let me = &self.dial(id).await.map_err(busy)?.members.me;
            Ok(Identified {
                cluster_id: me.cluster_id.clone(),
                id: ControllerId(id),
                generation: Generation(1),
                log: me.node.log,
                last_log: None,
                used: false,
                versions: me.versions,
            })
        };
        within(CALL_LIMIT, answer).await
    }

    async fn lacks(&self, id: NodeId, _: &Node) -> Result<Lacks, Error> {
        let answer = async {
            let there = self.dial(id).await.map_err(busy)?;
            let applied = there.view().state.last_applied();
            Ok(Lacks { applied, blobs: 0 })
        };
        within(CALL_LIMIT, answer).await
    }

    async fn presence(&self, id: NodeId, _: &Node) -> Error {
        let connected = async { self.dial(id).await.map_err(busy) };
        if let Err(error) = within(CONNECT_LIMIT, connected).await {
            return error;
        }
        let mut ways = self.net.ways.follow();
        let way = (self.me, id);
        let reset = ways.wait_for(|ways| ways.get(&way).is_some_and(|it| *it != Way::Open));
        reset.await.map_or_else(busy, |_| busy("connection reset"))
    }

    async fn refuses(&self, id: NodeId, _: &Node) -> bool {
        let dialled = SimRuntime::timeout(CONNECT_LIMIT, self.dial(id)).await;
        matches!(dialled, Ok(Err(Refused)))
    }

    async fn suspect(&self, id: NodeId, _: &Node, leader: &Vote) -> Result<Suspicion, Error> {
        let leader = leader.leader_id.voted_for;
        let answer = async {
            let core = self.dial(id).await.map_err(busy)?;
            let told = core.election.suspicion(leader).await;
            told.ok_or_else(|| busy("that leader is no member"))
        };
        within(ELECTION_LIMIT, answer).await
    }

    async fn transfer(
        &self,
        id: NodeId,
        _: &Node,
        leader: &Vote,
        to: (NodeId, Option<LogId>),
    ) -> Result<(), Error> {
        let request = TransferLeaderRequest::new(*leader, to.0, to.1);
        let answer = async {
            let core = self.dial(id).await.map_err(busy)?;
            let handled = core.election.transfer(self.me, request).await;
            handled.map(|_| ()).map_err(busy)
        };
        within(ELECTION_LIMIT, answer).await
    }
}

impl RaftNetworkFactory<C> for Wires {
    type Network = Wire;

    async fn new_client(&mut self, target: NodeId, _: &Node) -> Wire {
        Wire {
            wires: self.clone(),
            target,
        }
    }
}

/// openraft's way to one member.
pub struct Wire {
    wires: Wires,
    target: NodeId,
}

fn unreachable(error: Error) -> RPCError<C> {
    RPCError::Unreachable(Unreachable::from_string(error))
}

impl Wire {
    async fn call<T, E, Asked>(
        &self,
        ask: impl FnOnce(Raft<C, Machine<SimRuntime>>) -> Asked + Send,
    ) -> Result<T, RPCError<C>>
    where
        E: fmt::Display,
        Asked: Future<Output = Result<T, E>> + Send,
    {
        let answer = async {
            let core = self.wires.dial(self.target).await.map_err(busy)?;
            ask(core.raft.clone()).await.map_err(busy)
        };
        within(CALL_LIMIT, answer).await.map_err(unreachable)
    }
}

impl RaftNetworkV2<C> for Wire {
    type SnapshotData = Handle;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<C>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<C>, RPCError<C>> {
        self.call(|raft| async move { raft.append_entries(request).await })
            .await
    }

    async fn vote(
        &mut self,
        request: VoteRequest<C>,
        _: RPCOption,
    ) -> Result<VoteResponse<C>, RPCError<C>> {
        self.call(|raft| async move { raft.vote(request).await })
            .await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<C>,
        _: RPCOption,
    ) -> Result<VoteResponse<C>, RPCError<C>> {
        self.call(|raft| async move { raft.pre_vote(request).await })
            .await
    }

    async fn full_snapshot(
        &mut self,
        _: Vote,
        _: Snapshot<Handle>,
        _: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<C>, StreamingError<C>> {
        Err(StreamingError::Unreachable(Unreachable::from_string(
            "no snapshots here",
        )))
    }
}
