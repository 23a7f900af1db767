//! The quick election in virtual time: when it is called, and when it must not be.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use openraft::Instant;
use openraft::async_runtime::AsyncRuntime;
use openraft_rt_sim::{SimInstant, SimRuntime};

use super::wires::{Net, Way};
use super::{Simulated, cluster, commit, kill, successor};
use crate::config::Timers;

/// A third of the least that a lease and an election timeout take.
const QUICK: Duration = Duration::from_millis(300);

/// Who took part in one calls none for so long.
const BETWEEN_ELECTIONS: Duration = Duration::from_secs(5);

/// Twice as long as a lease and an election timeout, and far longer than any quick election takes.
const LONG: Duration = Duration::from_secs(3);

/// Seeds to run each test with, for they decide who would be elected by time.
const SEEDS: Range<u64> = 0..5;

/// How many quick elections they called, all together.
fn called(members: &[Simulated]) -> u64 {
    let each = members.iter().map(|it| it.core.metrics().quick_elections);
    each.sum()
}

fn term(member: &Simulated) -> u64 {
    member.core.leadership.get().term
}

async fn pass(time: Duration) {
    SimRuntime::sleep(time).await;
}

fn with_each_seed<F: Future<Output = ()>>(test: impl Fn(Arc<Net>) -> F) {
    for seed in SEEDS {
        println!("seed {seed}");
        SimRuntime::with_seed(seed).block_on(test(Net::new()));
    }
}

#[test]
fn a_leader_whose_process_dies_is_replaced_quickly() {
    with_each_seed(async |net| {
        let mut members = cluster(&net, 3).await;
        let old = members.remove(0);
        let died = SimInstant::now();
        kill(&net, old).await;
        commit(successor(&members, 1).await, "after").await;
        let took = died.elapsed();
        assert!(took < QUICK, "{took:?}");
        assert_ne!(called(&members), 0);
    });
}

#[test]
fn a_leader_that_falls_silent_is_replaced_by_time_alone() {
    with_each_seed(async |net| {
        let members = cluster(&net, 3).await;
        let cut = SimInstant::now();
        net.set_around(1, Way::Lost);
        commit(successor(&members, 1).await, "after").await;
        let took = cut.elapsed();
        // A lease at least; how long the members wait beyond it is up to chance.
        assert!(took > Timers::default().election_max, "{took:?}");
        pass(LONG).await;
        assert_eq!(called(&members), 0, "nobody was seen to refuse");
    });
}

#[test]
fn followers_that_are_refused_but_are_no_quorum_call_no_election() {
    for (count, refused) in [(3, vec![2]), (5, vec![2, 3])] {
        with_each_seed(async |net| {
            let members = cluster(&net, count).await;
            let before = term(&members[0]);
            for id in &refused {
                net.set(*id, 1, Way::Refused);
            }
            pass(LONG).await;
            assert_eq!(called(&members), 0, "{refused:?} of {count}");
            assert_eq!(term(&members[0]), before, "{refused:?} of {count}");
        });
    }
}

#[test]
fn a_leader_that_listens_again_before_the_second_round_stays() {
    with_each_seed(async |net| {
        let members = cluster(&net, 3).await;
        let before = term(&members[0]);
        net.set_port(1, Way::Refused);
        pass(Duration::from_millis(30)).await;
        net.set_port(1, Way::Open);
        pass(LONG).await;
        assert_eq!(called(&members), 0);
        assert_eq!(term(&members[0]), before);
    });
}

#[test]
fn who_took_part_in_a_quick_election_calls_the_next_five_seconds_later_at_the_earliest() {
    with_each_seed(async |net| {
        let mut members = cluster(&net, 5).await;
        kill(&net, members.remove(0)).await;
        let second = successor(&members, 1).await.id;
        let elected = SimInstant::now();
        let before = called(&members);
        assert_ne!(before, 0);
        // It lives and leads on meanwhile, for its own calls get through.
        net.set_port(second, Way::Refused);
        successor(&members, second).await;
        let since = elected.elapsed();
        assert!(since > BETWEEN_ELECTIONS - QUICK, "{since:?}");
        assert!(since < BETWEEN_ELECTIONS + QUICK, "{since:?}");
        assert!(called(&members) > before);
    });
}
