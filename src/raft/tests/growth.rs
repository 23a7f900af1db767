//! Members that come late, and logs that were cut behind a snapshot.

use std::time::Duration;

use model::{ControllerId, Timestamp};

use super::harness::{Lab, PATIENCE, assert_equal_states, has, register};
use crate::BatchKind;

#[tokio::test(flavor = "multi_thread")]
async fn a_late_member_gets_a_snapshot_and_then_the_log() {
    let mut lab = Lab::new("late");
    let mut config = lab.config(1);
    config.snapshot_every = 40;
    let mut members = vec![lab.start_with(config).await.unwrap()];
    members[0].cluster.initialize().await.unwrap();
    for number in 0..300 {
        let op = register(&format!("a{number}"));
        members[0]
            .cluster
            .propose(vec![op], Timestamp(0))
            .await
            .unwrap();
    }
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while members[0].cluster.status().purged.is_none() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "the log was never cut"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    members.push(lab.start(2).await);
    let addresses = lab.addresses(2);
    members[0]
        .cluster
        .add_member(ControllerId(2), addresses)
        .await
        .unwrap();
    assert!(has(&members[1].cluster, "a0").await.unwrap());
    assert!(has(&members[1].cluster, "a299").await.unwrap());
    let first = members[1].events.recv().await.unwrap();
    assert_eq!(first.kind, BatchKind::Snapshot, "{first:?}");
    assert!(members[1].cluster.status().snapshot.is_some());
    assert_equal_states(&members).await;
    let trails = [0, 1].map(|at: usize| members[at].cluster.state_hashes());
    assert_eq!(trails[0], trails[1], "a snapshot brings the last multiple");

    let late = members.pop().unwrap();
    late.cluster.shutdown().await;
    drop(late);
    members.push(lab.start(2).await);
    assert!(has(&members[1].cluster, "a299").await.unwrap());
    assert_equal_states(&members).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_leave_the_same_trail_of_hashes_and_find_their_own_again_after_a_restart() {
    let mut lab = Lab::new("trail");
    let mut members = lab.cluster(2).await;
    let proposals = (0..600).map(|_| {
        let op = register("a1");
        members[0].cluster.propose(vec![op], Timestamp(0))
    });
    futures::future::try_join_all(proposals).await.unwrap();
    assert_equal_states(&members).await;
    let trails = [0, 1].map(|at: usize| members[at].cluster.state_hashes());
    assert_eq!(trails[0], trails[1]);
    let applied = members[0].cluster.status().applied;
    assert_eq!(
        trails[0].keys().copied().collect::<Vec<_>>(),
        [256, 512, applied]
    );

    let late = members.pop().unwrap();
    late.cluster.shutdown().await;
    drop(late);
    members.push(lab.start(2).await);
    assert!(has(&members[1].cluster, "a1").await.unwrap());
    assert_equal_states(&members).await;
    let again = members[1].cluster.state_hashes();
    assert_eq!(
        [again[&256], again[&512]],
        [trails[0][&256], trails[0][&512]]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn few_large_entries_are_reason_enough_for_a_snapshot() {
    let mut lab = Lab::new("large");
    let mut config = lab.config(1);
    config.snapshot_bytes = 256 << 10;
    let member = lab.start_with(config).await.unwrap();
    member.cluster.initialize().await.unwrap();
    let mut metrics = member.cluster.metrics();
    for entry in 0..20 {
        let ops = (0..1_000).map(|number| register(&format!("a{entry}-{number}")));
        member
            .cluster
            .propose(ops.collect(), Timestamp(0))
            .await
            .unwrap();
        metrics = member.cluster.metrics();
    }
    assert!(metrics.store.bytes > 1 << 20, "{metrics:?}");
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while member.cluster.status().snapshot.is_none() {
        assert!(tokio::time::Instant::now() < deadline, "no snapshot");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_come_in_the_order_of_the_log_and_proposals_in_that_of_the_calls() {
    let mut lab = Lab::new("order");
    let mut members = lab.cluster(1).await;
    let member = &mut members[0];
    let proposals = (0..300).map(|number| {
        member
            .cluster
            .propose(vec![register(&format!("a{number}"))], Timestamp(0))
    });
    let committed = futures::future::try_join_all(proposals).await.unwrap();
    assert!(committed.is_sorted_by_key(|done| done.index));
    let mut last = member.events.recv().await.unwrap();
    while last.index < committed[299].index {
        let batch = member.events.recv().await.unwrap();
        assert!(
            batch.index == last.index + 1 && batch.stamp >= last.stamp,
            "{batch:?} after {last:?}"
        );
        last = batch;
    }
}
