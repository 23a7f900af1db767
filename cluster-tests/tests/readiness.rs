//! The two probes when the quorum goes and comes back: alive all the while, ready only with a quorum.

use std::time::{Duration, Instant};

use cluster_tests::cluster::{get, https_tls};
use cluster_tests::{faults, wait};
use tokio::test;

use crate::site::{PATIENCE, Site};

/// For the first probe that says so: an election timeout, the second in which a quorum may answer, and
/// the quarter of one for which the last answer may be used again; with room for a busy machine.
const NOTICED: Duration = Duration::from_secs(5);
/// For one answer, ready or not: a probe that hangs is as bad as a wrong one.
const ANSWERED: Duration = Duration::from_secs(3);

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_a_controller_is_alive_and_not_ready_and_says_why() {
    let site = Site::start("readiness", |options| options.agents(0)).await;
    let leader = site.cluster.leader().await.unwrap();
    let ids = ["c1", "c2", "c3"].map(str::to_owned);
    let followers: Vec<String> = ids.into_iter().filter(|id| *id != leader).collect();
    let follower = followers[0].clone();
    // Once the one that is left led, once it followed; dead ones refuse, stopped ones never answer.
    let dead = [leader.clone(), followers[1].clone()];
    for id in [&leader, &follower] {
        until_ready(&site, id).await;
    }

    faults::kill_together(&site.cluster, &dead).await.unwrap();
    until_not_ready(&site, &follower).await;
    for id in &dead {
        site.cluster.restart(id).await.unwrap();
    }
    until_ready(&site, &follower).await;

    let leader = site.cluster.leader().await.unwrap();
    let mut stopped = Vec::new();
    for id in ["c1", "c2", "c3"].iter().filter(|id| **id != leader) {
        let pid = faults::stop(&site.cluster, id).await.unwrap();
        stopped.push((*id, pid));
    }
    until_not_ready(&site, &leader).await;
    for (id, pid) in stopped {
        faults::continue_stopped(id, pid).await.unwrap();
        until_ready(&site, id).await;
    }
    until_ready(&site, &leader).await;
}

async fn until_not_ready(site: &Site, id: &str) {
    let begun = Instant::now();
    let why = wait::until("`/readyz` to be 503", NOTICED, || async {
        match probe(site, id).await {
            (503, why) => Ok(why),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap();
    let took = begun.elapsed();
    let why = why.strip_prefix("not ready: ").unwrap().trim_end();
    assert!(
        ["no leader", "quorum"]
            .iter()
            .any(|part| why.contains(part)),
        "{why}"
    );
    site.progress
        .say(format!("{id}, after {took:.1?} without a quorum: {why}"));
}

async fn until_ready(site: &Site, id: &str) {
    wait::until(&format!("{id} to be ready"), PATIENCE, || async {
        match probe(site, id).await {
            (200, said) => {
                assert_eq!(said, "ready\n");
                Ok(())
            }
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap();
}

/// What `/readyz` says, after `/healthz` has said that the process runs.
async fn probe(site: &Site, id: &str) -> (u16, String) {
    let address = site
        .cluster
        .layout()
        .unwrap()
        .controller(id)
        .unwrap()
        .https
        .clone();
    let tls = https_tls(&site.cluster.credentials().unwrap()).unwrap();
    let health = get(&address, "/healthz", &tls).await.unwrap();
    assert_eq!(health, (200, "ok\n".to_owned()));
    let begun = Instant::now();
    let ready = get(&address, "/readyz", &tls).await.unwrap();
    let took = begun.elapsed();
    assert!(took < ANSWERED, "{id} took {took:.1?} for {ready:?}");
    ready
}
