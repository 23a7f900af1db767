//! The same core on openraft's simulated runtime: virtual time, one thread, no sockets, disks in memory. A
//! foothold for the simulation, and the proof that nothing below `Cluster` needs tokio.
//!
//! Where these tests let time pass, nobody waits: the clock jumps to whatever happens next.

mod election;
mod wires;

use std::sync::Arc;
use std::time::Duration;

use model::{Addresses, ControllerId, Generation, Timestamp, Versions};
use openraft::async_runtime::AsyncRuntime;
use openraft::{Instant, Raft};
use openraft_rt_sim::{SimInstant, SimRuntime};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::harness::register;
use crate::archive::Archive;
use crate::blobs::Blobs;
use crate::blocking::Blocking;
use crate::clock::Clocks;
use crate::config::{SNAPSHOT_EVERY, Timers, openraft_config};
use crate::consensus::{NodeId, Types};
use crate::core::{Core, Parts, Patience};
use crate::fatal::FatalSignal;
use crate::machine::{EventStream, Machine, Published, Storage};
use crate::member::{LogIdentity, Node};
use crate::membership::Me;
use crate::snapshot::Shelf;
use crate::store::directory::open_inline;
use crate::store::memory::MemoryEngine;
use wires::{Net, READ_INDEX_LIMIT, Way, Wires};

type C = Types<SimRuntime>;
type SimCore = Core<SimRuntime, Wires>;

struct Simulated {
    id: NodeId,
    core: Arc<SimCore>,
    stopping: CancellationToken,
    _events: EventStream,
    _dir: TempDir,
}

async fn start(id: NodeId, net: &Arc<Net>) -> Simulated {
    let (dir, fatal) = (tempfile::tempdir().unwrap(), FatalSignal::default());
    let identity = LogIdentity([u8::try_from(id).unwrap(); 16]);
    let log = open_inline(Arc::new(MemoryEngine::default()), identity, fatal.clone()).unwrap();
    let (published, events) = Published::new();
    let storage = Storage {
        shelf: Arc::new(Shelf::open(dir.path()).unwrap()),
        archive: Archive::open_inline(dir.path()).unwrap(),
        blobs: Blobs::open(dir.path()).unwrap(),
    };
    let versions = Versions::OF_THIS_RELEASE;
    let machine = Machine::new(
        published.clone(),
        storage,
        fatal.clone(),
        Blocking::InPlace,
        versions,
    );
    let config = openraft_config("sim", Timers::default(), SNAPSHOT_EVERY).unwrap();
    let net = net.clone();
    let wires = Wires {
        me: id,
        net: net.clone(),
    };
    let raft = Raft::new(id, config, wires.clone(), log.clone(), machine)
        .await
        .unwrap();
    published.go_live();
    let stopping = CancellationToken::new();
    let core = Core::start(Parts {
        raft,
        log,
        published,
        peers: Arc::new(wires),
        me: Me {
            id,
            cluster_id: "sim".to_owned(),
            generation: Generation(1),
            node: Node {
                addresses: Addresses::default(),
                log: identity,
            },
            versions,
        },
        clock: virtual_clock(),
        patience: Patience {
            propose: Duration::from_secs(10),
            read: Duration::from_secs(5),
        },
        snapshot_bytes: u64::MAX,
        fatal,
        stopping: stopping.clone(),
    });
    net.connect(id, core.clone());
    Simulated {
        id,
        core,
        stopping,
        _events: events,
        _dir: dir,
    }
}

fn virtual_clock() -> crate::proposer::ClockSource {
    let began = SimInstant::now();
    Arc::new(move || {
        let passed = u64::try_from((SimInstant::now() - began).as_micros()).unwrap();
        Clocks {
            monotonic_micros: passed,
            wall: Timestamp(1_000_000 + passed / 1_000),
        }
    })
}

/// Members 1 to `count`, all voters, the first of which leads.
async fn cluster(net: &Arc<Net>, count: u64) -> Vec<Simulated> {
    let mut members = vec![start(1, net).await];
    members[0].core.initialize().await.unwrap();
    for id in 2..=count {
        members.push(start(id, net).await);
        let leader = &members[0].core.members;
        let joined = leader.add(ControllerId(id), Addresses::default());
        joined.await.unwrap();
    }
    members
}

/// Ends a member as its process would: nothing of it goes on, and its port is closed.
async fn kill(net: &Net, member: Simulated) {
    net.set_port(member.id, Way::Refused);
    member.stopping.cancel();
    member.core.raft.shutdown().await.unwrap();
}

/// Whoever leads in place of `old`, once it is known to another one.
async fn successor(members: &[Simulated], old: NodeId) -> &Simulated {
    let witness = members.iter().find(|it| it.id != old).unwrap();
    let mut leadership = witness.core.leadership.clone();
    let moved = leadership.wait_for(|now| now.leader.is_some_and(|leader| leader.0 != old));
    let leader = moved.await.unwrap().leader.unwrap();
    members.iter().find(|it| it.id == leader.0).unwrap()
}

async fn commit(member: &Simulated, name: &str) {
    let proposed = member.core.propose(vec![register(name)], Timestamp(0));
    proposed.await.unwrap();
}

/// What happens to a leader.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// Its process ends; its machine is there.
    Dies,
    /// It can neither be reached nor reach anybody.
    FallsSilent,
}

/// Three members, what becomes of their leader, and what all agree on in the end.
async fn story(fate: Fate) -> [u8; 32] {
    let net = Net::new();
    let mut members = cluster(&net, 3).await;
    for number in 0..20 {
        commit(&members[0], &format!("a{number}")).await;
    }
    for member in &members {
        let seen = member.core.read(|state| state.agents().count()).await;
        assert_eq!(seen.unwrap().value, 20);
    }
    let old = members.remove(0);
    match fate {
        Fate::Dies => kill(&net, old).await,
        Fate::FallsSilent => net.set_around(old.id, Way::Lost),
    }
    commit(successor(&members, 1).await, "after").await;
    let mut hashes = Vec::new();
    for member in &members {
        hashes.push(member.core.read(|state| state.hash()).await.unwrap().value);
    }
    assert_eq!(hashes[0], hashes[1]);
    hashes[0]
}

#[test]
fn a_simulated_cluster_fails_over_and_the_same_seed_gives_the_same_run() {
    for fate in [Fate::Dies, Fate::FallsSilent] {
        let run = |seed| {
            let mut runtime = SimRuntime::with_seed(seed);
            runtime.record_trace(true);
            let hash = runtime.block_on(story(fate));
            (hash, runtime.take_trace())
        };
        let (hash, trace) = run(7);
        let (again, same) = run(7);
        assert_eq!(hash, again, "{fate:?}");
        let both = || trace.iter().zip(&same);
        let differs = both().position(|(one, other)| one != other);
        let parted = differs.map(|at| {
            let around = at.saturating_sub(3)..at + 2;
            (&trace[around.clone()], &same[around])
        });
        assert_eq!(parted, None, "{fate:?}: the runs part there");
        assert_eq!(trace.len(), same.len());
        assert_ne!(run(8).1, trace, "{fate:?}: another seed gives another run");
    }
}

#[test]
fn a_read_that_waits_for_a_hung_leader_goes_to_the_next_one() {
    SimRuntime::with_seed(7).block_on(async {
        let net = Net::new();
        let members = cluster(&net, 3).await;
        net.set_around(1, Way::Lost);
        let asked = SimInstant::now();
        let seen = members[1].core.read(|state| state.agents().count()).await;
        assert_eq!(seen.unwrap().value, 0);
        // The question that the old leader never answers was not waited for.
        let took = asked.elapsed();
        assert!(took < READ_INDEX_LIMIT, "{took:?}");
    });
}

#[test]
fn a_follower_that_was_cut_off_does_not_depose_the_leader_when_it_returns() {
    SimRuntime::with_seed(7).block_on(async {
        let net = Net::new();
        let members = cluster(&net, 3).await;
        let before = members[0].core.leadership.get();
        net.set_around(2, Way::Lost);
        commit(&members[0], "during").await;
        SimRuntime::sleep(Duration::from_secs(3)).await;
        net.set_around(2, Way::Open);
        let seen = members[1].core.read(|state| state.agents().count()).await;
        assert_eq!(seen.unwrap().value, 1);
        SimRuntime::sleep(Duration::from_secs(3)).await;
        assert_eq!(members[0].core.leadership.get(), before);
    });
}
