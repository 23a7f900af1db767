//! Members cut off from each other, and together again.

use std::time::Duration;

use model::{ControllerId, Timestamp};
use tokio::time::{Instant, sleep};

use super::harness::{Lab, Running, assert_equal_states, commit, has, leader, register};
use super::proxy::{Cut, Edges};
use crate::Error;

const HEALED_WITHIN: Duration = Duration::from_secs(2);

async fn proxied(lab: &mut Lab) -> (Vec<Running>, Edges) {
    let mut edges = Edges::default();
    for (from, to) in [(1, 2), (1, 3), (2, 1), (2, 3), (3, 1), (3, 2)] {
        let target = lab.addresses(to).raft;
        edges.add(from, to, target).await;
    }
    let mut members: Vec<Running> = Vec::new();
    for id in 1..=3 {
        let mut config = lab.config(id);
        config.peer_addresses = edges.overrides(id);
        config.propose_timeout = Duration::from_secs(2);
        config.patience = Duration::from_secs(2);
        members.push(lab.start_with(config).await.unwrap());
        match id {
            1 => members[0].cluster.initialize().await.unwrap(),
            _ => {
                let addresses = lab.addresses(id);
                members[0]
                    .cluster
                    .add_member(ControllerId(id), addresses)
                    .await
                    .unwrap();
            }
        }
    }
    (members, edges)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_cut_off_neither_commits_nor_answers_and_is_back_within_two_seconds() {
    let mut lab = Lab::new("partition");
    let (mut members, edges) = proxied(&mut lab).await;
    commit(&members, "before").await;
    let at = leader(&members).await;
    let alone = members.remove(at);
    edges.isolate(alone.id.0, Cut::Silent);
    let cut = Instant::now();
    commit(&members, "during").await;
    println!("the majority committed {:?} after the cut", cut.elapsed());

    let write = alone
        .cluster
        .propose(vec![register("lost")], Timestamp(0))
        .await;
    assert!(
        matches!(write, Err(Error::Unknown(_) | Error::Unavailable { .. })),
        "{write:?}"
    );
    let read = has(&alone.cluster, "during").await;
    assert!(
        matches!(read, Err(Error::Unavailable { .. })),
        "a stale read: {read:?}"
    );
    assert!(
        alone.cluster.confirm().await.is_err(),
        "it must not renew a lease"
    );
    // Long enough that every connection has been given up and dialled again in vain.
    sleep(Duration::from_secs(6).saturating_sub(cut.elapsed())).await;

    edges.isolate(alone.id.0, Cut::Healed);
    let healed = Instant::now();
    while has(&alone.cluster, "during").await != Ok(true) {
        assert!(
            healed.elapsed() < HEALED_WITHIN,
            "not back after {:?}",
            healed.elapsed()
        );
        sleep(Duration::from_millis(10)).await;
    }
    println!(
        "the old leader answered {:?} after healing",
        healed.elapsed()
    );
    members.push(alone);
    commit(&members, "after").await;
    assert_equal_states(&members).await;
    let quick: u64 = members
        .iter()
        .map(|it| it.cluster.metrics().quick_elections)
        .sum();
    assert_eq!(quick, 0, "a silent network is no dead process");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_was_cut_off_does_not_depose_the_leader_when_it_returns() {
    let mut lab = Lab::new("prevote");
    let (members, edges) = proxied(&mut lab).await;
    commit(&members, "before").await;
    let at = leader(&members).await;
    let term = members[at].cluster.status().leadership.term;
    let follower = members.iter().find(|it| it.id != members[at].id).unwrap();
    edges.isolate(follower.id.0, Cut::Silent);
    commit(&members, "during").await;
    sleep(Duration::from_secs(3)).await;
    edges.isolate(follower.id.0, Cut::Healed);
    let healed = Instant::now();
    while has(&follower.cluster, "during").await != Ok(true) {
        assert!(
            healed.elapsed() < HEALED_WITHIN,
            "not back after {:?}",
            healed.elapsed()
        );
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(
        members[at].cluster.status().leadership.term,
        term,
        "pre-vote keeps the term"
    );
}
