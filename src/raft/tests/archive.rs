//! The archive in whole members: one that joins, and one that comes back, ends with the same segments; and what
//! is read does not depend on whom is asked.

use std::time::Duration;

use model::{ControllerId, Op, Retention, SystemCommand, TaskId, Timestamp};

use super::harness::{
    Lab, PATIENCE, Running, assert_equal_states, ended_task, has, kill, leader, register,
};
use super::membership::remove;

/// Submits and cancels so many tasks, one in an entry; their ids begin at `first`.
async fn end_tasks(member: &Running, first: u64, count: u64) {
    for id in first..first + count {
        let ops = ended_task(id, 5_000);
        member.cluster.propose(ops, Timestamp(0)).await.unwrap();
    }
}

async fn keep_little_in_memory(member: &Running) {
    let retention = Retention {
        hot_tasks: 3,
        segment_entries: 20,
        ..Retention::default()
    };
    let op = Op::System(SystemCommand::Retain(retention));
    member
        .cluster
        .propose(vec![op], Timestamp(0))
        .await
        .unwrap();
}

/// All archived tasks, and all events, as this member has them on its own.
async fn contents(member: &Running) -> (Vec<TaskId>, Vec<crate::EventsAt>) {
    let state = member.cluster.view();
    let page = member
        .cluster
        .archived_tasks(&state, TaskId(u64::MAX), 10_000)
        .await
        .unwrap();
    let events = member.cluster.events(0, 10_000).await.unwrap().unwrap();
    assert_eq!(events.next, state.last_applied() + 1);
    let ids = page.tasks.iter().map(|record| record.task.id).collect();
    (ids, events.entries)
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The first member of a cluster, with 150 ended tasks in a log that is purged behind a snapshot.
async fn purged(lab: &mut Lab) -> Running {
    let mut config = lab.config(1);
    config.snapshot_every = 40;
    let member = lab.start_with(config).await.unwrap();
    member.cluster.initialize().await.unwrap();
    keep_little_in_memory(&member).await;
    end_tasks(&member, 1, 150).await;
    until("the log was never cut", || {
        member.cluster.status().purged.is_some()
    })
    .await;
    member
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_joins_and_one_that_comes_back_end_with_the_same_segments() {
    let mut lab = Lab::new("segments");
    let mut members = vec![purged(&mut lab).await];

    members.push(lab.start(2).await);
    let addresses = lab.addresses(2);
    let first = &members[0].cluster;
    first.add_member(ControllerId(2), addresses).await.unwrap();
    end_tasks(&members[0], 151, 10).await;
    assert!(!has(&members[1].cluster, "nobody").await.unwrap());
    assert_equal_states(&members).await;
    assert!(members[1].cluster.status().snapshot.is_some());
    let wanted = contents(&members[0]).await;
    assert_eq!(wanted.0.len(), 157, "three are in memory");
    assert_eq!(contents(&members[1]).await, wanted);
    let state = members[0].cluster.view();
    assert!(state.segments().count() >= 7);
    let digests = |member: &Running| {
        let state = member.cluster.view();
        let all = state.all_segments().map(|it| it.content);
        all.collect::<Vec<_>>()
    };
    assert_eq!(digests(&members[0]), digests(&members[1]));

    let late = members.pop().unwrap();
    late.cluster.abandon();
    drop(late);
    members.push(lab.start(2).await);
    assert!(!has(&members[1].cluster, "nobody").await.unwrap());
    assert_equal_states(&members).await;
    assert_eq!(contents(&members[1]).await.0, wanted.0);
}

/// A snapshot says who the members were when it was taken.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_joins_gets_the_segments_though_all_that_its_snapshot_names_are_gone() {
    let mut lab = Lab::new("all-replaced");
    let mut members = vec![purged(&mut lab).await];
    members.push(lab.start(2).await);
    let addresses = lab.addresses(2);
    let first = &members[0].cluster;
    first.add_member(ControllerId(2), addresses).await.unwrap();
    remove(&members, 1).await.unwrap();
    kill(members.remove(0));
    leader(&members).await;
    let wanted = contents(&members[0]).await;

    members.push(lab.start(3).await);
    let addresses = lab.addresses(3);
    let added = members[0].cluster.add_member(ControllerId(3), addresses);
    let added = tokio::time::timeout(PATIENCE, added).await;
    added.expect("it never caught up").unwrap();
    assert!(!has(&members[1].cluster, "nobody").await.unwrap());
    assert_equal_states(&members).await;
    assert_eq!(contents(&members[1]).await.0, wanted.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_that_was_lost_is_fetched_again_after_a_start() {
    let mut lab = Lab::new("lost-segment");
    let mut members = lab.cluster(2).await;
    keep_little_in_memory(&members[0]).await;
    end_tasks(&members[0], 1, 60).await;
    assert_equal_states(&members).await;
    let wanted = contents(&members[0]).await;
    let first = members[1].cluster.view().segments().next().unwrap().first;
    // So that nothing tells the records again.
    members[1].cluster.snapshot().await.unwrap();
    until("no snapshot", || {
        members[1].cluster.status().snapshot.is_some()
    })
    .await;

    let hurt = members.pop().unwrap();
    hurt.cluster.shutdown().await;
    drop(hurt);
    let lost = lab.data_dir(2).join(format!("archive/{first:020}"));
    std::fs::remove_file(&lost).unwrap();
    members.push(lab.start(2).await);
    until("it was never fetched", || lost.exists()).await;
    assert!(!has(&members[1].cluster, "nobody").await.unwrap());
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let state = members[1].cluster.view();
        match members[1].cluster.archived_task(&state, TaskId(1)).await {
            Ok(Some(_)) => break,
            other => assert!(tokio::time::Instant::now() < deadline, "{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(contents(&members[1]).await.0, wanted.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_older_than_what_is_kept_are_refused_and_newer_ones_follow_the_log() {
    let mut lab = Lab::new("compacted");
    let members = lab.cluster(1).await;
    keep_little_in_memory(&members[0]).await;
    end_tasks(&members[0], 1, 50).await;
    let retention = Retention {
        max_bytes: 1,
        ..members[0].cluster.view().retention().clone()
    };
    let op = Op::System(SystemCommand::Retain(retention));
    members[0]
        .cluster
        .propose(vec![op, register("a1")], Timestamp(0))
        .await
        .unwrap();
    let oldest = members[0].cluster.view().archived_from();
    assert!(oldest > 0);
    assert_eq!(
        members[0].cluster.events(oldest - 1, 10).await.unwrap(),
        None
    );
    let page = members[0]
        .cluster
        .events(oldest, 1_000)
        .await
        .unwrap()
        .unwrap();
    assert!(page.entries.iter().all(|entry| entry.index >= oldest));
    let next = page.next;
    let cluster = members[0].cluster.clone();
    let waiting = tokio::spawn(async move {
        cluster.reached(next).await.unwrap();
        cluster.events(next, 10).await.unwrap().unwrap()
    });
    members[0]
        .cluster
        .propose(vec![register("a2")], Timestamp(0))
        .await
        .unwrap();
    let page = waiting.await.unwrap();
    assert_eq!(page.entries[0].index, next);
}
