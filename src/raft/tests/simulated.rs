//! The same core on openraft's simulated runtime: virtual time, one thread, no sockets, disks in memory. A
//! foothold for the simulation, and the proof that nothing below `Cluster` needs tokio.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use model::{Addresses, Generation, Timestamp};
use openraft::async_runtime::AsyncRuntime;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{Instant, OptionalSend, Raft};
use openraft_rt_sim::{SimInstant, SimRuntime};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::harness::register;
use crate::blocking::Blocking;
use crate::clock::Clocks;
use crate::config::{SNAPSHOT_EVERY, Timers, openraft_config};
use crate::consensus::{LogId, NodeId, Snapshot, Types, Vote};
use crate::core::{Core, Parts, Patience};
use crate::error::Error;
use crate::fatal::FatalSignal;
use crate::machine::{EventStream, Machine, Published};
use crate::member::{LogIdentity, Node};
use crate::membership::Me;
use crate::peers::{Identified, Peers};
use crate::snapshot::{Handle, Shelf};
use crate::store::directory::open_inline;
use crate::store::memory::MemoryEngine;
use crate::sync::lock;

type C = Types<SimRuntime>;
type SimRaft = Raft<C, Machine<SimRuntime>>;
type SimCore = Core<SimRuntime, Wires>;

/// Who can be reached: everybody that is not cut off. Each message takes a virtual millisecond.
#[derive(Clone, Default)]
struct Wires {
    members: Arc<Mutex<BTreeMap<NodeId, (SimRaft, LogIdentity)>>>,
    /// Takes what is sent to it and never answers, as a stopped process does.
    hangs: Arc<Mutex<Option<NodeId>>>,
}

impl Wires {
    async fn reach(&self, id: NodeId) -> Result<(SimRaft, LogIdentity), RPCError<C>> {
        SimRuntime::sleep(Duration::from_millis(1)).await;
        if *lock(&self.hangs) == Some(id) {
            std::future::pending::<()>().await;
        }
        let found = lock(&self.members).get(&id).cloned();
        found.ok_or_else(|| RPCError::Unreachable(Unreachable::from_string("cut off")))
    }
}

impl Peers for Wires {
    async fn read_index(&self, leader: NodeId, _: &Node) -> Result<LogId, Error> {
        let unavailable = |error: &dyn std::fmt::Display| Error::no_leader(error.to_string());
        let (raft, _) = self
            .reach(leader)
            .await
            .map_err(|error| unavailable(&error))?;
        let read = raft
            .get_read_linearizer(openraft::ReadPolicy::ReadIndex)
            .await;
        Ok(*read
            .map_err(|error| unavailable(&error))?
            .read_log_id()
            .log_id())
    }

    async fn identify(&self, id: NodeId, _: &str) -> Result<Identified, Error> {
        let (_, log) = self
            .reach(id)
            .await
            .map_err(|error| Error::busy(error.to_string()))?;
        Ok(Identified {
            cluster_id: "sim".to_owned(),
            id: model::ControllerId(id),
            generation: Generation(1),
            log,
            last_log: None,
            used: false,
        })
    }
}

struct Wire {
    wires: Wires,
    target: NodeId,
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

impl RaftNetworkV2<C> for Wire {
    type SnapshotData = Handle;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<C>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<C>, RPCError<C>> {
        let (raft, _) = self.wires.reach(self.target).await?;
        raft.append_entries(request)
            .await
            .map_err(|error| RPCError::Unreachable(Unreachable::from_string(error)))
    }

    async fn vote(
        &mut self,
        request: VoteRequest<C>,
        _: RPCOption,
    ) -> Result<VoteResponse<C>, RPCError<C>> {
        let (raft, _) = self.wires.reach(self.target).await?;
        raft.vote(request)
            .await
            .map_err(|error| RPCError::Unreachable(Unreachable::from_string(error)))
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<C>,
        _: RPCOption,
    ) -> Result<VoteResponse<C>, RPCError<C>> {
        let (raft, _) = self.wires.reach(self.target).await?;
        raft.pre_vote(request)
            .await
            .map_err(|error| RPCError::Unreachable(Unreachable::from_string(error)))
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

struct Simulated {
    core: Arc<SimCore>,
    _events: EventStream,
    _dir: TempDir,
}

async fn start(id: NodeId, wires: &Wires) -> Simulated {
    let (dir, fatal) = (tempfile::tempdir().unwrap(), FatalSignal::default());
    let identity = LogIdentity([u8::try_from(id).unwrap(); 16]);
    let log = open_inline(Arc::new(MemoryEngine::default()), identity, fatal.clone()).unwrap();
    let (published, events) = Published::new();
    let shelf = Arc::new(Shelf::open(dir.path()).unwrap());
    let machine = Machine::new(published.clone(), shelf, fatal.clone(), Blocking::InPlace);
    let config = openraft_config("sim", Timers::default(), SNAPSHOT_EVERY).unwrap();
    let raft = Raft::new(id, config, wires.clone(), log.clone(), machine)
        .await
        .unwrap();
    published.go_live();
    lock(&wires.members).insert(id, (raft.clone(), identity));
    let began = SimInstant::now();
    let core = Core::start(Parts {
        raft,
        log,
        published,
        peers: Arc::new(wires.clone()),
        me: Me {
            id,
            cluster_id: "sim".to_owned(),
            generation: Generation(1),
            node: Node {
                addresses: Addresses::default(),
                log: identity,
            },
        },
        clock: Arc::new(move || {
            let passed = u64::try_from((SimInstant::now() - began).as_micros()).unwrap();
            Clocks {
                monotonic_micros: passed,
                wall: Timestamp(1_000_000 + passed / 1_000),
            }
        }),
        patience: Patience {
            propose: Duration::from_secs(10),
            read: Duration::from_secs(5),
        },
        snapshot_bytes: u64::MAX,
        fatal,
        stopping: CancellationToken::new(),
    });
    Simulated {
        core,
        _events: events,
        _dir: dir,
    }
}

/// Three members, the first of which leads.
async fn three(wires: &Wires) -> Vec<Simulated> {
    let mut members = Vec::new();
    for id in 1..=3 {
        members.push(start(id, wires).await);
        match id {
            1 => members[0].core.initialize().await.unwrap(),
            _ => {
                let joiner = model::ControllerId(id);
                members[0]
                    .core
                    .members
                    .add(joiner, Addresses::default())
                    .await
                    .unwrap();
            }
        }
    }
    members
}

/// Three members, a leader that falls silent, and what all agree on in the end.
async fn story() -> [u8; 32] {
    let wires = Wires::default();
    let mut members = three(&wires).await;
    for number in 0..20 {
        let op = register(&format!("a{number}"));
        members[0]
            .core
            .propose(vec![op], Timestamp(0))
            .await
            .unwrap();
    }
    for member in &members {
        let seen = member
            .core
            .read(|state| state.agents().count())
            .await
            .unwrap();
        assert_eq!(seen.value, 20);
    }
    // The leader is gone: it can neither be reached nor reach anybody that answers.
    let old = members.remove(0);
    old.core.raft.shutdown().await.unwrap();
    lock(&wires.members).remove(&1);
    let mut leadership = members[0].core.leadership.clone();
    let moved = leadership.wait_for(|now| now.leader.is_some_and(|leader| leader.0 != 1));
    let leader = moved.await.unwrap().leader.unwrap();
    let at = usize::try_from(leader.0 - 2).unwrap();
    members[at]
        .core
        .propose(vec![register("after")], Timestamp(0))
        .await
        .unwrap();
    let mut hashes = Vec::new();
    for member in &members {
        hashes.push(member.core.read(|state| state.hash()).await.unwrap().value);
    }
    assert_eq!(hashes[0], hashes[1]);
    hashes[0]
}

#[test]
fn a_simulated_cluster_fails_over_and_the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let mut runtime = SimRuntime::with_seed(seed);
        runtime.record_trace(true);
        let hash = runtime.block_on(story());
        (hash, runtime.take_trace())
    };
    let (hash, trace) = run(7);
    let (again, same) = run(7);
    assert_eq!(hash, again);
    let differs = trace
        .iter()
        .zip(&same)
        .position(|(one, other)| one != other);
    let parted = differs.map(|at| {
        (
            &trace[at.saturating_sub(3)..at + 2],
            &same[at.saturating_sub(3)..at + 2],
        )
    });
    assert_eq!(parted, None, "the runs part there");
    assert_eq!(trace.len(), same.len());
    assert_ne!(run(8).1, trace, "another seed gives another run");
}

#[test]
fn a_read_that_waits_for_a_hung_leader_goes_to_the_next_one() {
    SimRuntime::with_seed(7).block_on(async {
        let wires = Wires::default();
        let members = three(&wires).await;
        members[0].core.raft.shutdown().await.unwrap();
        *lock(&wires.hangs) = Some(1);
        // A leader that hangs never answers this; the next one does, well before patience ends.
        let seen = members[1].core.read(|state| state.agents().count()).await;
        assert_eq!(seen.unwrap().value, 0);
    });
}
