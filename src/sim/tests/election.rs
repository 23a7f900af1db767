//! The quick election in virtual time: when it is called, and when it must not be.

use std::time::Duration;

use openraft_rt_sim::SimInstant;
use raft::Timers;
use raft::parts::openraft::Instant;

use super::{around, cluster, commit, pass, port, successor, with_each_seed};
use sim::controller::{Boot, End};
use sim::world::World;

/// A third of the least that a lease and an election timeout take.
const QUICK: Duration = Duration::from_millis(300);

/// Who took part in one calls none for so long.
const BETWEEN_ELECTIONS: Duration = Duration::from_secs(5);

/// Twice as long as a lease and an election timeout, and far longer than any quick election takes.
const LONG: Duration = Duration::from_secs(3);

/// How many quick elections they called, all together.
fn called(world: &World) -> u64 {
    let boots = world.controllers.keys().filter_map(|id| world.boot(*id));
    boots.map(|boot| boot.core.metrics().quick_elections).sum()
}

fn term(boot: &Boot) -> u64 {
    boot.core.leadership.get().term
}

#[test]
fn a_leader_whose_process_dies_is_replaced_quickly() {
    with_each_seed(async |seed| {
        let world = cluster(3, seed).await;
        let died = SimInstant::now();
        assert!(world.controllers[&1].crash(&world, "killed", End::Killed));
        commit(&*successor(&world, 1).await, "after").await;
        let took = died.elapsed();
        assert!(took < QUICK, "{took:?}");
        assert_ne!(called(&world), 0);
        world
    });
}

#[test]
fn a_leader_that_falls_silent_is_replaced_by_time_alone() {
    with_each_seed(async |seed| {
        let world = cluster(3, seed).await;
        let cut = SimInstant::now();
        world.network.cut(&around(&world, 1));
        commit(&*successor(&world, 1).await, "after").await;
        let took = cut.elapsed();
        // A lease at least; how long the members wait beyond it is up to chance.
        assert!(took > Timers::default().election_max, "{took:?}");
        pass(LONG).await;
        assert_eq!(called(&world), 0, "nobody was seen to refuse");
        world
    });
}

#[test]
fn followers_that_are_refused_but_are_no_quorum_call_no_election() {
    for (count, refused) in [(3, vec![(2, 1)]), (5, vec![(2, 1), (3, 1)])] {
        with_each_seed(async |seed| {
            let world = cluster(count, seed).await;
            let leader = world.boot(1).unwrap();
            let before = term(&leader);
            world.network.refuse(&refused);
            pass(LONG).await;
            assert_eq!(called(&world), 0, "{refused:?} of {count}");
            assert_eq!(term(&leader), before, "{refused:?} of {count}");
            world
        });
    }
}

#[test]
fn a_leader_that_listens_again_before_the_second_round_stays() {
    with_each_seed(async |seed| {
        let world = cluster(3, seed).await;
        let leader = world.boot(1).unwrap();
        let before = term(&leader);
        world.network.refuse(&port(&world, 1));
        pass(Duration::from_millis(30)).await;
        world.network.accept(&port(&world, 1));
        pass(LONG).await;
        assert_eq!(called(&world), 0);
        assert_eq!(term(&leader), before);
        world
    });
}

#[test]
fn who_took_part_in_a_quick_election_calls_the_next_five_seconds_later_at_the_earliest() {
    with_each_seed(async |seed| {
        let world = cluster(5, seed).await;
        assert!(world.controllers[&1].crash(&world, "killed", End::Killed));
        let second = successor(&world, 1).await.id;
        let elected = SimInstant::now();
        let before = called(&world);
        assert_ne!(before, 0);
        // It lives and leads on meanwhile, for its own calls get through.
        world.network.refuse(&port(&world, second));
        successor(&world, second).await;
        let since = elected.elapsed();
        assert!(since > BETWEEN_ELECTIONS - QUICK, "{since:?}");
        assert!(since < BETWEEN_ELECTIONS + QUICK, "{since:?}");
        assert!(called(&world) > before);
        world
    });
}
