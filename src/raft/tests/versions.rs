//! Members of two releases: when the state version rises, and who is not let in.

use std::time::Duration;

use model::{ControllerId, StateVersion, Versions};
use tokio::time::{Instant, sleep};

use super::harness::{Lab, PATIENCE, Running, assert_equal_states, commit, has};
use crate::{BatchKind, Cluster, Error};

const V1: StateVersion = StateVersion(1);
const V2: StateVersion = StateVersion(2);
/// A release to come, which has left version 1 behind.
const LATER: Versions = Versions {
    oldest: V2,
    newest: V2,
};

async fn start_as(lab: &mut Lab, id: u64, versions: Versions) -> Running {
    let mut config = lab.config(id);
    config.versions = versions;
    config.snapshot_every = 20;
    lab.start_with(config).await.unwrap()
}

/// Stops a member in order, and starts it as another release.
async fn upgrade(lab: &mut Lab, members: &mut Vec<Running>, id: u64, versions: Versions) {
    let at = members.iter().position(|it| it.id.0 == id).unwrap();
    let old = members.remove(at);
    old.cluster.shutdown().await;
    drop(old);
    members.push(start_as(lab, id, versions).await);
}

fn version(member: &Running) -> StateVersion {
    member.cluster.view().state_version()
}

async fn until_all_at(members: &[Running], wanted: StateVersion) {
    let begun = Instant::now();
    while members.iter().any(|member| version(member) != wanted) {
        let now: Vec<_> = members.iter().map(version).collect();
        assert!(begun.elapsed() < PATIENCE, "never {wanted}: {now:?}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Whoever leads tries to raise the version.
async fn raise(members: &[Running]) -> Result<StateVersion, Error> {
    let begun = Instant::now();
    loop {
        for member in members {
            match member.cluster.raise_version().await {
                Err(Error::NotLeader { .. }) => {}
                done => return done,
            }
        }
        assert!(begun.elapsed() < PATIENCE, "nobody leads");
        sleep(Duration::from_millis(10)).await;
    }
}

fn why(refused: Result<StateVersion, Error>) -> String {
    match refused {
        Err(Error::Unavailable { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

async fn add_learner(lab: &mut Lab, leader: &Cluster, id: u64) -> Result<(), Error> {
    let addresses = lab.addresses(id);
    leader.add_learner(ControllerId(id), addresses).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_cluster_begins_with_the_newest_version() {
    let mut lab = Lab::new("newest");
    let members = lab.cluster(2).await;
    until_all_at(&members, StateVersion::NEWEST).await;
    // The first entry of ours: nothing ever was at another version.
    let first = StateVersion::NEWEST;
    assert_eq!(members[0].cluster.raise_version().await, Ok(first));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_version_rises_once_every_voter_and_every_learner_understands_it() {
    let old = Versions::UNTOLD;
    let new = Versions::OF_THIS_RELEASE;
    let mut lab = Lab::new("rolling");
    let mut members = vec![start_as(&mut lab, 1, old).await];
    members[0].cluster.initialize().await.unwrap();
    members.push(start_as(&mut lab, 2, old).await);
    let addresses = lab.addresses(2);
    let joined = members[0].cluster.add_member(ControllerId(2), addresses);
    joined.await.unwrap();
    members.push(start_as(&mut lab, 3, old).await);
    add_learner(&mut lab, &members[0].cluster, 3).await.unwrap();

    // The learner first, then one voter: an old voter is left.
    upgrade(&mut lab, &mut members, 3, new).await;
    upgrade(&mut lab, &mut members, 2, new).await;
    members[0].cluster.transfer_leadership(None).await.unwrap();
    let reason = why(raise(&members).await);
    assert!(reason.contains("c1 runs a release"), "{reason}");

    // All voters, and an old learner.
    upgrade(&mut lab, &mut members, 3, old).await;
    upgrade(&mut lab, &mut members, 1, new).await;
    commit(&members, "a").await;
    let reason = why(raise(&members).await);
    assert!(reason.contains("c3 runs a release"), "{reason}");
    assert!(members.iter().all(|member| version(member) == V1));

    // Nobody knows what one that is away will run.
    let at = members.iter().position(|it| it.id.0 == 3).unwrap();
    let away = members.remove(at);
    away.cluster.shutdown().await;
    drop(away);
    let reason = why(raise(&members).await);
    assert!(reason.contains("can't be asked"), "{reason}");
    assert!(members.iter().all(|member| version(member) == V1));

    // By itself.
    members.push(start_as(&mut lab, 3, new).await);
    until_all_at(&members, V2).await;
    assert_equal_states(&members).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_of_an_older_release_is_not_let_in() {
    let mut lab = Lab::new("older");
    let members = [lab.start(1).await];
    members[0].cluster.initialize().await.unwrap();
    let _older = start_as(&mut lab, 2, Versions::UNTOLD).await;
    let refused = add_learner(&mut lab, &members[0].cluster, 2).await;
    let wanted = "c2 runs a release that understands state versions 1, and the cluster is at 2; run the \
                  release of the other controllers there";
    assert_eq!(refused, Err(Error::Rejected(wanted.to_owned())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_learner_whose_release_can_not_apply_what_the_others_do_is_given_no_vote() {
    let mut lab = Lab::new("no-vote");
    let mut members = vec![start_as(&mut lab, 1, Versions::UNTOLD).await];
    members[0].cluster.initialize().await.unwrap();
    members.push(start_as(&mut lab, 2, Versions::UNTOLD).await);
    add_learner(&mut lab, &members[0].cluster, 2).await.unwrap();
    upgrade(&mut lab, &mut members, 2, LATER).await;
    let refused = members[0].cluster.promote(ControllerId(2)).await;
    let Err(Error::Rejected(reason)) = refused else {
        panic!("{refused:?}");
    };
    let wanted = "understands state versions 2, and the cluster is at 1";
    assert!(reason.contains(wanted), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_leader_s_snapshot_at_version_1_is_read_by_a_member_of_the_release_before() {
    let (old, new) = (Versions::UNTOLD, Versions::OF_THIS_RELEASE);
    let mut lab = Lab::new("snapshot-v1");
    let mut members = vec![start_as(&mut lab, 1, old).await];
    members[0].cluster.initialize().await.unwrap();
    members.push(start_as(&mut lab, 2, old).await);
    add_learner(&mut lab, &members[0].cluster, 2).await.unwrap();
    upgrade(&mut lab, &mut members, 1, new).await;
    let away = members.remove(0);
    assert_eq!(away.id, ControllerId(2));
    away.cluster.shutdown().await;
    drop(away);

    for number in 0..200 {
        commit(&members, &format!("n{number}")).await;
    }
    let last = members[0].cluster.status().last_log;
    let begun = Instant::now();
    while members[0].cluster.status().purged.is_none() {
        assert!(begun.elapsed() < PATIENCE, "{last} entries are never cut");
        sleep(Duration::from_millis(10)).await;
    }
    members.push(start_as(&mut lab, 2, old).await);
    assert!(has(&members[1].cluster, "n199").await.unwrap());
    let first = members[1].events.recv().await.unwrap();
    assert_eq!(first.kind, BatchKind::Snapshot, "{first:?}");
    assert_equal_states(&members).await;
    assert_eq!(version(&members[1]), V1);
}
