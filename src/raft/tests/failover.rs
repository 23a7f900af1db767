//! Members that die, stop, come back, or come back without their memory.

use std::collections::BTreeMap;
use std::time::Duration;

use model::{ControllerId, Timestamp};
use tokio::time::Instant;

use super::harness::{
    Lab, PATIENCE, Running, assert_equal_states, commit, has, kill, leader, register,
};
use crate::Error;
use crate::consensus::Vote;
use crate::member::{LogIdentity, Node};
use crate::membership::Me;
use crate::network::calls::Calls;
use crate::network::dial::Dialer;
use crate::peers::Peers;

#[tokio::test(flavor = "multi_thread")]
async fn three_members_commit_serve_reads_everywhere_and_survive_their_leader() {
    let mut lab = Lab::new("failover");
    let mut members = lab.cluster(3).await;
    commit(&members, "before").await;
    for member in &members {
        assert!(
            has(&member.cluster, "before").await.unwrap(),
            "{}",
            member.id
        );
    }
    let at = leader(&members).await;
    kill(members.remove(at));
    let died = Instant::now();
    commit(&members, "after").await;
    println!("committed {:?} after the leader died", died.elapsed());
    for member in &members {
        assert!(has(&member.cluster, "before").await.unwrap());
        assert!(has(&member.cluster, "after").await.unwrap());
    }
    let quick: u64 = members
        .iter()
        .map(|it| it.cluster.metrics().quick_elections)
        .sum();
    assert!(quick > 0, "nobody called the quick election");
    assert_equal_states(&members).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_committed_is_there_after_all_were_stopped_and_started() {
    let mut lab = Lab::new("restart");
    let members = lab.cluster(3).await;
    commit(&members, "kept").await;
    for member in members {
        member.cluster.shutdown().await;
    }
    let mut members = Vec::new();
    for id in 1..=3 {
        members.push(lab.start(id).await);
    }
    for member in &members {
        assert!(has(&member.cluster, "kept").await.unwrap(), "{}", member.id);
    }
    assert_equal_states(&members).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_stop_hands_leadership_over_at_once() {
    let mut lab = Lab::new("handover");
    let mut members = lab.cluster(3).await;
    commit(&members, "first").await;
    let at = leader(&members).await;
    let leaving = members.remove(at);
    let term = leaving.cluster.leadership().borrow().term;
    let started = Instant::now();
    leaving.cluster.shutdown().await;
    commit(&members, "second").await;
    println!(
        "committed {:?} after the leader was asked to stop",
        started.elapsed()
    );
    // The successor was told to stand; nobody had to find out that the leader was gone.
    for member in &members {
        assert_eq!(member.cluster.metrics().quick_elections, 0, "{}", member.id);
        assert_eq!(member.cluster.leadership().borrow().term, term + 1);
    }
    assert!(
        leaving.cluster.fatal().borrow().is_none(),
        "stopping is no failure"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_peers_are_gone_stops_without_waiting_for_them() {
    let mut lab = Lab::new("alone");
    let mut members = lab.cluster(3).await;
    commit(&members, "first").await;
    let at = leader(&members).await;
    let leaving = members.remove(at);
    let peer = members[0].id;
    members.into_iter().for_each(kill);
    let deadline = Instant::now() + PATIENCE;
    let silent = |member: &Running| {
        let last = member.cluster.metrics().last_quorum_ack;
        last.is_some_and(|ago| ago > Duration::from_millis(500))
    };
    while !silent(&leaving) {
        assert!(Instant::now() < deadline, "still answered");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let named = leaving.cluster.transfer_leadership(Some(peer)).await;
    assert!(matches!(named, Err(Error::Unavailable { .. })), "{named:?}");
    let any = leaving.cluster.transfer_leadership(None).await.unwrap_err();
    assert!(any.to_string().contains("no other voter answers"), "{any}");
    let started = Instant::now();
    leaving.cluster.shutdown().await;
    let took = started.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_outlived_its_log_is_no_member_any_more() {
    let mut lab = Lab::new("halfwiped");
    let mut members = lab.cluster(3).await;
    commit(&members, "first").await;
    assert_equal_states(&members).await;
    let half = members.pop().unwrap();
    half.cluster.snapshot().await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    while half.cluster.status().snapshot.is_none() {
        assert!(Instant::now() < deadline, "no snapshot");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    half.cluster.shutdown().await;
    drop(half);
    std::fs::remove_dir_all(lab.data_dir(3).join("log")).unwrap();
    std::fs::remove_file(lab.data_dir(3).join("log.mark")).unwrap();
    for _ in 0..2 {
        let refusal = lab.try_start(3).await.err().expect("it lost its log");
        assert!(
            matches!(&refusal, Error::Rejected(why) if why.contains("new id")),
            "{refusal}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_heard_from_a_member_with_another_log_than_the_known_one() {
    let mut lab = Lab::new("impostor");
    let members = lab.cluster(2).await;
    let known = members[0].cluster.members();
    let node = |at: usize| Node {
        addresses: known[at].addresses.clone(),
        log: known[at].log,
    };
    let asked_by = |log: LogIdentity| {
        let me = Me {
            id: 2,
            cluster_id: lab.cluster_id.clone(),
            generation: model::Generation(1),
            node: Node { log, ..node(1) },
            versions: model::Versions::OF_THIS_RELEASE,
        };
        Calls::new(Dialer::new(me, &lab.tls(2), BTreeMap::new()))
    };
    let vote = Vote::new_committed(1, 1);
    let good = asked_by(known[1].log).suspect(1, &node(0), &vote).await;
    assert!(good.is_ok(), "{good:?}");
    let lost = asked_by(LogIdentity::random())
        .suspect(1, &node(0), &vote)
        .await
        .unwrap_err();
    assert!(lost.to_string().contains("the log of c2"), "{lost}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minority_refuses_reads_and_calls_the_outcome_of_writes_unknown() {
    let mut lab = Lab::new("minority");
    let mut members = Vec::new();
    for id in 1..=3 {
        let mut config = lab.config(id);
        config.propose_timeout = Duration::from_secs(1);
        config.patience = Duration::from_secs(1);
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
    commit(&members, "before").await;
    let at = leader(&members).await;
    let alone = members.remove(at);
    members.into_iter().for_each(kill);
    let write = alone
        .cluster
        .propose(vec![register("lost")], Timestamp(0))
        .await;
    assert!(
        matches!(write, Err(Error::Unknown(_) | Error::Unavailable { .. })),
        "{write:?}"
    );
    let read = has(&alone.cluster, "before").await;
    assert!(matches!(read, Err(Error::Unavailable { .. })), "{read:?}");
    let confirmed = alone.cluster.confirm().await;
    assert!(confirmed.is_err(), "{confirmed:?}");
    assert_eq!(
        alone.cluster.view().agents().count(),
        1,
        "the stale view still answers"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_lost_its_log_is_refused_under_its_old_id_and_welcome_under_a_new_one() {
    let mut lab = Lab::new("wiped");
    let mut members = lab.cluster(3).await;
    commit(&members, "first").await;
    if leader(&members).await != 0 {
        members[1]
            .cluster
            .transfer_leadership(Some(ControllerId(1)))
            .await
            .ok();
        members[2]
            .cluster
            .transfer_leadership(Some(ControllerId(1)))
            .await
            .ok();
    }
    let lost = members.pop().unwrap();
    lost.cluster.shutdown().await;
    drop(lost);
    std::fs::remove_dir_all(lab.data_dir(3)).unwrap();
    let wiped = lab.start(3).await;
    let addresses = lab.addresses(3);
    let refusal = members[0]
        .cluster
        .add_member(ControllerId(3), addresses)
        .await
        .unwrap_err();
    assert!(
        matches!(&refusal, Error::Rejected(why) if why.contains("new id")),
        "{refusal}"
    );
    commit(&members, "second").await;
    assert!(
        !wiped.cluster.is_member(),
        "it must not have received anything"
    );
    assert_eq!(wiped.cluster.status().last_log, 0);

    members.push(lab.start(4).await);
    let addresses = lab.addresses(4);
    members[0]
        .cluster
        .add_member(ControllerId(4), addresses)
        .await
        .unwrap();
    members[0]
        .cluster
        .remove_member(ControllerId(3))
        .await
        .unwrap();
    let again = lab.addresses(3);
    let used = members[0]
        .cluster
        .add_member(ControllerId(3), again)
        .await
        .unwrap_err();
    assert!(
        matches!(&used, Error::Rejected(why) if why.contains("never used again")),
        "{used}"
    );
    assert!(has(&members[2].cluster, "second").await.unwrap());
    assert_equal_states(&members).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clusters_that_are_mixed_up_refuse_each_other() {
    let (mut ours, mut theirs) = (Lab::new("ours"), Lab::new("theirs"));
    let members = ours.cluster(1).await;
    let stranger = theirs.start(2).await;
    let addresses = theirs.addresses(2);
    let refusal = members[0]
        .cluster
        .add_member(ControllerId(2), addresses)
        .await
        .unwrap_err();
    assert!(refusal.to_string().contains("certificate"), "{refusal}");
    assert!(!stranger.cluster.is_member());

    stranger.cluster.shutdown().await;
    drop(stranger);
    std::fs::rename(theirs.data_dir(2), ours.data_dir(2)).unwrap();
    let foreign = ours
        .try_start(2)
        .await
        .err()
        .expect("a foreign directory is refused");
    assert!(
        matches!(&foreign, Error::Rejected(why) if why.contains("theirs")),
        "{foreign}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_term_has_one_leader_and_a_deposed_one_confirms_nothing() {
    let mut lab = Lab::new("deposed");
    let members = lab.cluster(3).await;
    commit(&members, "first").await;
    let at = leader(&members).await;
    let other = members
        .iter()
        .position(|it| it.id != members[at].id)
        .unwrap();
    members[at].cluster.confirm().await.unwrap();
    members[at]
        .cluster
        .transfer_leadership(Some(members[other].id))
        .await
        .unwrap();
    let confirmed = members[at].cluster.confirm().await;
    assert!(
        matches!(confirmed, Err(Error::NotLeader { .. })),
        "{confirmed:?}"
    );
    let mut leadership = members[other].cluster.leadership();
    let ready = leadership.wait_for(|now| now.ready);
    tokio::time::timeout(PATIENCE, ready)
        .await
        .unwrap()
        .unwrap();
    members[other].cluster.confirm().await.unwrap();
}
