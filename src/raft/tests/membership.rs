//! Members that are promoted and removed: the leader itself, two at once, too many, and a change that its
//! leader did not live to finish.

use std::collections::BTreeSet;
use std::time::Duration;

use model::ControllerId;
use openraft::ChangeMembers;
use tokio::time::{Instant, sleep, timeout};

use super::harness::{Lab, PATIENCE, Running, assert_equal_states, commit, kill, leader};
use crate::{Cluster, Error, Hindrance, MemberRole};

fn voters(cluster: &Cluster) -> Vec<u64> {
    let members = cluster.members();
    let voters = members.iter().filter(|it| it.role != MemberRole::Learner);
    voters.map(|it| it.id.0).collect()
}

fn is_joint(cluster: &Cluster) -> bool {
    let members = cluster.effective_membership();
    members.membership().get_joint_config().len() > 1
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "never {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

async fn remove_at(member: &Running, id: ControllerId) -> Result<(), Error> {
    let removed = timeout(PATIENCE, member.cluster.remove_member(id)).await;
    removed.expect("an answer")
}

/// As a gateway does: whoever leads is asked, until it is done or refused.
pub async fn remove(members: &[Running], id: u64) -> Result<(), Error> {
    let begun = Instant::now();
    loop {
        let at = leader(members).await;
        match remove_at(&members[at], ControllerId(id)).await {
            Err(Error::NotLeader { .. } | Error::Unavailable { .. })
                if begun.elapsed() < PATIENCE => {}
            done => return done,
        }
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_removed_hands_over_first() {
    let mut lab = Lab::new("removed-leader");
    let mut members = lab.cluster(3).await;
    commit(&members, "before").await;
    let at = leader(&members).await;
    let id = members[at].id;
    let refused = remove_at(&members[at], id).await;
    assert!(
        matches!(refused, Err(Error::NotLeader { .. })),
        "{refused:?}"
    );
    let gone = members.remove(at);
    remove(&members, id.0).await.unwrap();
    commit(&members, "after").await;
    for member in &members {
        until("two voters", || voters(&member.cluster).len() == 2).await;
        assert!(!voters(&member.cluster).contains(&id.0));
    }
    until("removed", || {
        members.iter().all(|it| it.cluster.was_removed(id))
    })
    .await;
    assert!(!members[0].cluster.was_removed(members[0].id));
    // It can't hurt them: it has no vote.
    sleep(Duration::from_secs(2)).await;
    commit(&members, "later").await;
    kill(gone);
    remove(&members, id.0).await.unwrap();
    assert_equal_states(&members).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_voter_and_one_without_whom_nothing_could_go_on_are_kept() {
    let mut lab = Lab::new("last-voter");
    let mut members = lab.cluster(3).await;
    commit(&members, "first").await;
    let at = leader(&members).await;
    let dead = members.remove(usize::from(at == 0));
    let (dead_id, at) = (dead.id, leader(&members).await);
    let alive = members[1 - at].id;
    kill(dead);
    // Not before its last heartbeat is too long ago to count.
    sleep(Duration::from_secs(1)).await;
    let refusal = remove_at(&members[at], alive).await.unwrap_err();
    assert!(
        matches!(&refusal, Error::Rejected(why) if why.contains("too few of them answer")),
        "{refusal}"
    );
    assert_eq!(voters(&members[at].cluster).len(), 3, "nothing was begun");
    remove(&members, dead_id.0).await.unwrap();
    commit(&members, "two").await;
    remove(&members, alive.0).await.unwrap();
    let at = leader(&members).await;
    let last = members[at].id;
    let refusal = remove_at(&members[at], last).await.unwrap_err();
    assert!(
        matches!(&refusal, Error::Rejected(why) if why.contains("only voter")),
        "{refusal}"
    );
    let stranger = remove_at(&members[at], ControllerId(9)).await;
    assert!(matches!(&stranger, Err(Error::Rejected(why)) if why.contains("not a member")));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_changes_at_once_one_waits_and_both_are_made() {
    let mut lab = Lab::new("two-at-once");
    let members = lab.cluster(5).await;
    commit(&members, "first").await;
    let at = leader(&members).await;
    let others: Vec<_> = members
        .iter()
        .map(|it| it.id)
        .filter(|id| *id != members[at].id)
        .collect();
    let both = tokio::join!(
        remove_at(&members[at], others[0]),
        remove_at(&members[at], others[1]),
    );
    let answers = [both.0, both.1];
    assert!(answers.iter().any(Result::is_ok), "{answers:?}");
    for refused in answers.iter().filter_map(|it| it.as_ref().err()) {
        assert!(
            matches!(refused, Error::Unavailable { hindrance: Hindrance::Busy, why } if why.contains("another change")),
            "{refused}"
        );
    }
    for id in &others[..2] {
        remove(&members, id.0).await.unwrap();
    }
    assert_eq!(voters(&members[at].cluster).len(), 3);
    assert!(!is_joint(&members[at].cluster));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_learner_gets_its_vote_once_it_has_caught_up() {
    let mut lab = Lab::new("promoted");
    let mut members = lab.cluster(1).await;
    commit(&members, "first").await;
    members.push(lab.start(2).await);
    let addresses = lab.addresses(2);
    let first = &members[0].cluster;
    let stranger = first.promote(ControllerId(2)).await.unwrap_err();
    assert!(
        matches!(&stranger, Error::Rejected(why) if why.contains("--join")),
        "{stranger}"
    );
    first.add_learner(ControllerId(2), addresses).await.unwrap();
    assert_eq!(voters(first), [1]);
    first.promote(ControllerId(2)).await.unwrap();
    assert_eq!(voters(first), [1, 2]);
    first.promote(ControllerId(2)).await.unwrap();
    commit(&members, "second").await;
    assert_equal_states(&members).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_learner_that_has_died_is_given_no_vote() {
    let mut lab = Lab::new("dead-learner");
    let mut members = vec![lab.start(1).await];
    members[0].cluster.initialize().await.unwrap();
    let learner = lab.start(2).await;
    let addresses = lab.addresses(2);
    let first = members[0].cluster.clone();
    first.add_learner(ControllerId(2), addresses).await.unwrap();
    // It has all of the log, and then it dies: with a vote for it, nothing could be committed any more.
    until("caught up", || learner.cluster.status().applied > 0).await;
    commit(&members, "first").await;
    kill(learner);
    sleep(Duration::from_secs(1)).await;
    let promoting = timeout(Duration::from_secs(3), first.promote(ControllerId(2)));
    match promoting.await {
        Ok(done) => assert!(done.is_err(), "{done:?}"),
        Err(_) => println!("it waits for the learner"),
    }
    assert_eq!(voters(&first), [1]);
    commit(&members, "second").await;

    members.push(lab.start(2).await);
    // The first call goes on without its caller: either of the two gives it the vote.
    let again = first.promote(ControllerId(2)).await;
    assert!(
        matches!(again, Ok(()) | Err(Error::Unavailable { .. })),
        "{again:?}"
    );
    until("promoted", || voters(&first) == [1, 2]).await;
    commit(&members, "third").await;
    assert_equal_states(&members).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_joint_configuration_that_its_leader_left_is_finished_by_the_next_one() {
    let mut lab = Lab::new("joint");
    let mut members = lab.cluster(3).await;
    for id in [4, 5] {
        members.push(lab.start(id).await);
        let addresses = lab.addresses(id);
        let at = leader(&members).await;
        let added = members[at].cluster.add_learner(ControllerId(id), addresses);
        added.await.unwrap();
    }
    commit(&members, "first").await;
    // A majority of the old three, and none of the new five, can be reached: the first half is in the
    // logs of those two and can't be committed.
    let at = leader(&members).await;
    let old = members.remove(at);
    let (mut away, mut near): (Vec<Running>, Vec<Running>) =
        members.into_iter().partition(|it| it.id.0 > 3);
    away.extend(near.pop());
    let mut members = near;
    let back: Vec<u64> = away.iter().map(|it| it.id.0).collect();
    away.into_iter().for_each(kill);
    let raft = old.cluster.consensus();
    let change = tokio::spawn(async move {
        let both = ChangeMembers::AddVoterIds(BTreeSet::from([4, 5]));
        raft.change_membership(both, false).await
    });
    until("half done", || is_joint(&members[0].cluster)).await;
    kill(old);
    let cut_short = change.await;
    println!("the change was cut short: {cut_short:?}");
    for id in back {
        members.push(lab.start(id).await);
    }
    let at = leader(&members).await;
    println!("{} leads", members[at].id);
    until("finished", || {
        let done = |it: &Running| !is_joint(&it.cluster) && voters(&it.cluster) == [1, 2, 3, 4, 5];
        members.iter().all(done)
    })
    .await;
    commit(&members, "second").await;
    assert_equal_states(&members).await;
}
