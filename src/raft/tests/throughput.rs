//! How much a cluster commits. Not a test of correctness: run it by name, in release.
//!
//! `cargo test --release -p quorate-raft --lib throughput -- --ignored --nocapture`

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use model::Timestamp;
use tokio::time::Instant;

use super::harness::{Lab, leader, register};
use crate::Cluster;

const SPAN: Duration = Duration::from_secs(4);

async fn proposer(
    cluster: Cluster,
    name: String,
    until: Instant,
    done: Arc<AtomicU64>,
) -> Vec<Duration> {
    let mut took = Vec::new();
    while Instant::now() < until {
        let started = Instant::now();
        cluster
            .propose(vec![register(&name)], Timestamp(0))
            .await
            .unwrap();
        took.push(started.elapsed());
        done.fetch_add(1, Ordering::Relaxed);
    }
    took
}

async fn reader(cluster: Cluster, until: Instant) -> u64 {
    let mut count = 0;
    while Instant::now() < until {
        cluster.read(|state| state.last_applied()).await.unwrap();
        count += 1;
    }
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn throughput_of_three_members() {
    let mut lab = Lab::new("throughput");
    let mut members = lab.cluster(3).await;
    let at = leader(&members).await;
    for member in &mut members {
        // Somebody has to read the events.
        let (_, closed) = tokio::sync::mpsc::channel(1);
        let mut events = std::mem::replace(&mut member.events, closed);
        tokio::spawn(async move { while events.recv().await.is_some() {} });
    }
    for in_flight in [1, 16, 64, 256] {
        let (done, until) = (Arc::new(AtomicU64::new(0)), Instant::now() + SPAN);
        let before = members[at].cluster.metrics();
        let proposers = (0..in_flight).map(|number| {
            let cluster = members[at].cluster.clone();
            tokio::spawn(proposer(cluster, format!("a{number}"), until, done.clone()))
        });
        let took = futures::future::join_all(proposers.collect::<Vec<_>>()).await;
        let mut took: Vec<_> = took.into_iter().flat_map(Result::unwrap).collect();
        took.sort_unstable();
        let after = members[at].cluster.metrics();
        let syncs = after.store.syncs - before.store.syncs;
        let entries = after.store.entries - before.store.entries;
        println!(
            "{in_flight:>3} in flight: {:.0} commits/s, p50 {:?}, p99 {:?}, {:.0} syncs/s, {:.1} entries a sync",
            took.len() as f64 / SPAN.as_secs_f64(),
            took[took.len() / 2],
            took[took.len() * 99 / 100],
            syncs as f64 / SPAN.as_secs_f64(),
            entries as f64 / syncs as f64,
        );
    }
    for (place, member) in [("leader", at), ("follower", (at + 1) % 3)] {
        let until = Instant::now() + SPAN;
        let readers = (0..64).map(|_| tokio::spawn(reader(members[member].cluster.clone(), until)));
        let counts = futures::future::join_all(readers.collect::<Vec<_>>()).await;
        let total: u64 = counts.into_iter().map(Result::unwrap).sum();
        println!(
            "64 readers on the {place}: {:.0} reads/s",
            total as f64 / SPAN.as_secs_f64()
        );
    }
    let elections: u64 = members
        .iter()
        .map(|it| it.cluster.metrics().term_changes)
        .max()
        .unwrap();
    println!("most term changes seen by a member: {elections}");
}
