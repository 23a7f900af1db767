//! That the simulation is what it claims: the same seed gives the same run, and nothing in it is without effect. And
//! what consensus does in time, which only virtual time shows exactly.

mod election;
mod planted;

use std::sync::Arc;
use std::time::Duration;

use model::{AgentId, AgentProfile, AgentProtocol, Command, Incarnation, Op, Timestamp};
use openraft_rt_sim::{SimInstant, SimRuntime};
use raft::parts::NodeId;
use raft::parts::openraft::Instant;
use raft::parts::openraft::async_runtime::AsyncRuntime;

use sim::clients::someone;
use sim::controller::Boot;
use sim::network::Place;
use sim::wires::READ_INDEX_LIMIT;
use sim::world::{World, found};
use sim::{Plan, run};

/// Controllers and nothing else.
async fn cluster(controllers: u64, seed: u64) -> Arc<World> {
    let world = World::new(Plan {
        controllers,
        agents: 0,
        clients: 0,
        faults: Vec::new(),
        snapshot_every: 50_000,
        ..Plan::of(seed)
    });
    found(&world).await.expect("it is founded");
    world
}

#[expect(
    clippy::print_stdout,
    reason = "so that a failure says with which seed"
)]
fn with_each_seed<F: Future<Output = Arc<World>>>(test: impl Fn(u64) -> F) {
    for seed in 0..5 {
        println!("seed {seed}");
        let world = SimRuntime::with_seed(seed).block_on(test(seed));
        world.forget();
    }
}

/// All ways to a controller and from it.
fn around(world: &World, id: NodeId) -> Vec<(Place, Place)> {
    let others = world.members().into_iter().filter(|other| *other != id);
    others
        .flat_map(|other| [(id, other), (other, id)])
        .collect()
}

/// All ways to a controller: its port.
fn port(world: &World, id: NodeId) -> Vec<(Place, Place)> {
    let others = world.members().into_iter().filter(|other| *other != id);
    others.map(|other| (other, id)).collect()
}

async fn commit(boot: &Boot, name: &str) {
    let profile = AgentProfile {
        id: AgentId::new(name).expect("it is a name"),
        incarnation: Incarnation([1; 16]),
        slots: 1,
        labels: Default::default(),
        version: String::new(),
        limits: String::new(),
        backends: Vec::new(),
        protocol: AgentProtocol::NEWEST,
        supply: None,
    };
    let op = Op::Client {
        principal: model::Principal {
            role: model::Role::Agent,
            ..someone(name)
        },
        command: Command::RegisterAgent(profile),
        placement: None,
        held: None,
    };
    let committed = boot.core.propose(vec![op], Timestamp(0)).await;
    committed.expect("it is committed");
}

/// Whoever leads in place of `old`, once it is known to another one.
async fn successor(world: &World, old: NodeId) -> Arc<Boot> {
    let others = world.members().into_iter().filter(|id| *id != old);
    let witness = others.filter_map(|id| world.boot(id)).next();
    let witness = witness.expect("another one runs");
    let mut leadership = witness.core.leadership.clone();
    let moved = leadership.wait_for(|now| now.leader.is_some_and(|leader| leader.0 != old));
    let leader = moved.await.expect("the witness lives").leader;
    let leader = leader.expect("it was waited for");
    world.boot(leader.0).expect("a leader runs")
}

async fn pass(time: Duration) {
    SimRuntime::sleep(time).await;
}

#[test]
fn the_same_seed_gives_the_same_run_line_by_line() {
    for seed in 0..3 {
        let (one, other) = (run(&Plan::of(seed)), run(&Plan::of(seed)));
        let differs = one.lines.iter().zip(&other.lines).find(|(a, b)| a != b);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(one.digest, other.digest, "seed {seed}");
    }
    assert_ne!(run(&Plan::of(1)).digest, run(&Plan::of(2)).digest);
}

#[test]
fn a_read_that_waits_for_a_hung_leader_goes_to_the_next_one() {
    with_each_seed(async |seed| {
        let world = cluster(3, seed).await;
        world.network.cut(&around(&world, 1));
        let asked = SimInstant::now();
        let follower = world.boot(2).unwrap();
        let seen = follower.core.read(|state| state.agents().count()).await;
        assert_eq!(seen.unwrap().value, 0);
        // The question that the old leader never answers was not waited for.
        let took = asked.elapsed();
        assert!(took < READ_INDEX_LIMIT, "{took:?}");
        world
    });
}

#[test]
fn a_follower_that_was_cut_off_does_not_depose_the_leader_when_it_returns() {
    with_each_seed(async |seed| {
        let world = cluster(3, seed).await;
        let leader = world.boot(1).unwrap();
        let before = leader.core.leadership.get();
        world.network.cut(&around(&world, 2));
        commit(&leader, "during").await;
        pass(Duration::from_secs(3)).await;
        world.network.mend_all();
        let follower = world.boot(2).unwrap();
        let seen = follower.core.read(|state| state.agents().count()).await;
        assert_eq!(seen.unwrap().value, 1);
        pass(Duration::from_secs(3)).await;
        assert_eq!(leader.core.leadership.get(), before);
        world
    });
}
