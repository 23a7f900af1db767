//! What one controller asks another besides openraft's own messages, over the simulated network: a message ends in
//! the functions that the product's peer port calls.
//!
//! Who waits in vain gives up after as long as the product does.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use model::{ControllerId, Generation};
use openraft_rt_sim::SimRuntime;
use raft::Error;
use raft::parts::openraft::ReadPolicy;
use raft::parts::openraft::async_runtime::AsyncRuntime;
use raft::parts::openraft::raft::TransferLeaderRequest;
use raft::parts::{Identified, Lacks, LogId, Node, NodeId, Peers, Suspicion, Vote};

use crate::controller::Boot;
use crate::world::World;

/// For a message of openraft's, and for a question of ours.
pub const CALL_LIMIT: Duration = Duration::from_millis(500);

/// For a read index, which takes a round of the leader's.
pub const READ_INDEX_LIMIT: Duration = Duration::from_secs(2);

/// For a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);

/// For what is asked within a quick election.
const ELECTION_LIMIT: Duration = Duration::from_millis(200);

/// After so long without an answer a connection is given up.
const KEEPALIVE: Duration = Duration::from_secs(3);

/// How often a connection is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// The network as one process has it.
#[derive(Clone)]
pub struct Wires {
    pub me: NodeId,
    pub alive: Arc<AtomicBool>,
    pub world: Arc<World>,
}

/// Nobody listens there, and the machine says so.
#[derive(Debug)]
pub struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("connection refused")
    }
}

pub fn busy(error: impl fmt::Display) -> Error {
    Error::Unavailable {
        hindrance: raft::Hindrance::Busy,
        why: error.to_string(),
    }
}

pub async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, Error>> + Send,
) -> Result<T, Error> {
    match SimRuntime::timeout(limit, answer).await {
        Ok(answer) => answer,
        Err(elapsed) => Err(busy(elapsed)),
    }
}

impl Wires {
    /// Nothing more is heard of a process that is gone.
    async fn speak(&self) {
        if !self.alive.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }

    /// Whoever lives there. Waits for ever where all is lost.
    pub async fn dial(&self, id: NodeId) -> Result<Arc<Boot>, Refused> {
        self.speak().await;
        self.world.network.travel(self.me, id).await;
        let refused = self.world.network.is_refused(self.me, id);
        match self.world.boot(id) {
            Some(boot) if !refused => Ok(boot),
            Some(_) => Err(Refused),
            // A machine without power does not even refuse.
            None if self.world.is_dark(id) => std::future::pending().await,
            None => Err(Refused),
        }
    }

    /// An answer on its way back; whoever gave it must have lived to send it.
    pub async fn back<T>(&self, there: &Boot, answer: T) -> Result<T, Error> {
        if !there.is_alive() {
            return Err(busy("connection reset"));
        }
        self.world.network.travel(there.id, self.me).await;
        self.speak().await;
        Ok(answer)
    }

    /// A question, and the answer on its way back.
    pub async fn ask<T, Asked>(
        &self,
        id: NodeId,
        limit: Duration,
        ask: impl FnOnce(Arc<Boot>) -> Asked + Send,
    ) -> Result<T, Error>
    where
        T: Send,
        Asked: Future<Output = Result<T, Error>> + Send,
    {
        let answer = async {
            let there = self.dial(id).await.map_err(busy)?;
            let answer = ask(there.clone()).await;
            self.back(&there, answer).await?
        };
        within(limit, answer).await
    }
}

impl Peers for Wires {
    async fn read_index(&self, leader: NodeId, _: &Node) -> Result<LogId, Error> {
        let ask = |there: Arc<Boot>| async move {
            let read = there.core.raft.get_read_linearizer(ReadPolicy::ReadIndex);
            Ok(*read.await.map_err(busy)?.read_log_id().log_id())
        };
        let answer = self.ask(leader, READ_INDEX_LIMIT, ask).await;
        answer.map_err(|error| Error::Unavailable {
            hindrance: raft::Hindrance::NoLeader,
            why: error.to_string(),
        })
    }

    async fn identify(&self, id: NodeId, _: &str) -> Result<Identified, Error> {
        let ask = |there: Arc<Boot>| async move {
            let me = &there.core.members.me;
            Ok(Identified {
                cluster_id: me.cluster_id.clone(),
                id: ControllerId(id),
                generation: Generation(1),
                log: me.node.log,
                last_log: there.core.log.last_log_id(),
                used: there.core.log.is_used(),
                versions: me.versions,
            })
        };
        self.ask(id, CALL_LIMIT, ask).await
    }

    async fn lacks(&self, id: NodeId, _: &Node) -> Result<Lacks, Error> {
        let ask = |there: Arc<Boot>| async move {
            let applied = there.core.view().state.last_applied();
            Ok(Lacks { applied, blobs: 0 })
        };
        self.ask(id, CALL_LIMIT, ask).await
    }

    async fn presence(&self, id: NodeId, _: &Node) -> Error {
        let connected = async { self.dial(id).await.map_err(busy) };
        let there = match within(CONNECT_LIMIT, connected).await {
            Ok(there) => there,
            Err(error) => return error,
        };
        let mut silent = Duration::ZERO;
        loop {
            SimRuntime::sleep(LOOK).await;
            let network = &self.world.network;
            let open = network.is_open(self.me, id) && network.is_open(id, self.me);
            let ended = !there.is_alive() && !self.world.is_dark(id);
            if open && (ended || network.is_refused(self.me, id)) {
                return busy("connection reset");
            }
            silent = match open && there.is_alive() {
                true => Duration::ZERO,
                false => silent + LOOK,
            };
            if silent >= KEEPALIVE {
                return busy("connection timed out");
            }
        }
    }

    async fn refuses(&self, id: NodeId, _: &Node) -> bool {
        let dialled = SimRuntime::timeout(CONNECT_LIMIT, self.dial(id)).await;
        matches!(dialled, Ok(Err(Refused)))
    }

    async fn suspect(&self, id: NodeId, _: &Node, leader: &Vote) -> Result<Suspicion, Error> {
        let leader = leader.leader_id.voted_for;
        let ask = |there: Arc<Boot>| async move {
            let told = there.core.election.suspicion(leader).await;
            told.ok_or_else(|| busy("that leader is no member"))
        };
        self.ask(id, ELECTION_LIMIT, ask).await
    }

    async fn transfer(
        &self,
        id: NodeId,
        _: &Node,
        leader: &Vote,
        to: (NodeId, Option<LogId>),
    ) -> Result<(), Error> {
        let request = TransferLeaderRequest::new(*leader, to.0, to.1);
        let me = self.me;
        let ask = |there: Arc<Boot>| async move {
            let handled = there.core.election.transfer(me, request).await;
            handled.map(|_| ()).map_err(busy)
        };
        self.ask(id, ELECTION_LIMIT, ask).await
    }
}
