//! The leader is killed under load, again and again.

use std::time::{Duration, Instant};

use cluster_tests::faults;
use cluster_tests::report::{Samples, span};
use cluster_tests::traffic::{self, Prober};
use tokio::test;

use crate::site::{PATIENCE, Site, assert_succeeded};

const KILLS: usize = 10;

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_killed_leaders_lose_no_acknowledged_submit() {
    let site = Site::start("ten-leaders", |options| options).await;
    let load = site.flowing_load(8).await;
    let prober = Prober::start(
        &site.cluster.addresses().unwrap(),
        &site.tls,
        &traffic::process(["true"]),
    );
    let mut outages = Vec::new();
    for number in 1..=KILLS {
        let before = site.cluster.until_whole().await.unwrap();
        let leader = site.cluster.leader().await.unwrap();
        let killed = faults::kill(&site.cluster, &leader).await.unwrap();
        let first = prober
            .committed_after_term(before.term, PATIENCE)
            .await
            .unwrap();
        let outage = first.at.duration_since(killed.at);
        let successor = site.cluster.leader().await.unwrap();
        assert_ne!(successor, leader, "INVALID: the killed leader still leads");
        site.until_more(&load, 10).await;
        site.restart(&leader).await;
        site.progress.say(format!(
            "{number}: {leader} killed, {successor} committed after {}, term {} to {}",
            span(outage),
            before.term,
            first.term
        ));
        outages.push(outage);
    }
    drop(prober);
    let outages = Samples::new(outages);
    site.progress.say(format!(
        "next commit after p50 {}, longest {}",
        span(outages.percentile(50)),
        span(outages.longest())
    ));
    site.judge(load, 200).await;
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn a_submit_repeated_after_a_failover_is_the_same_task() {
    let site = Site::start("same-request", |options| options).await;
    let request = traffic::submit(traffic::process(["echo", "once"]));
    let first = site.caller.submit(&request, PATIENCE).await.unwrap();
    let again = site.caller.submit(&request, PATIENCE).await.unwrap();
    assert!(again.duplicate && !first.duplicate);

    let leader = site.cluster.leader().await.unwrap();
    faults::kill(&site.cluster, &leader).await.unwrap();
    let begun = Instant::now();
    let after = site.caller.submit(&request, PATIENCE).await.unwrap();
    site.progress.say(format!(
        "asked again {} after the kill",
        span(begun.elapsed())
    ));
    let ids = [first, again, after.clone()].map(|reply| reply.task.unwrap().id);
    assert_eq!(ids, [ids[0]; 3]);
    assert!(after.duplicate);
    assert_succeeded(&site.wait(ids[0]).await);

    let mut other = request.clone();
    other.spec = Some(traffic::process(["echo", "something else"]));
    let refused = site
        .caller
        .submit(&other, Duration::from_secs(5))
        .await
        .unwrap_err();
    assert!(
        refused.status.message().contains(&request.request_id),
        "{refused}"
    );
}
