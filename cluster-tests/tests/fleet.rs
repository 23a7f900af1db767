//! Many agents at once: nobody stands for election because of them, and they come back together.
//!
//! A debug build's protocol code is too slow for a thousand within a minute; `make bench-agents` does that.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster_tests::faults;
use cluster_tests::report::span;
use cluster_tests::traffic::bench_agent::Fleet;
use cluster_tests::traffic::{self, Load};
use tokio::test;

use crate::site::{PATIENCE, Site};

const AGENTS: u32 = 200;
const CONTROLLERS: usize = 3;
/// For all agents to be usable again after the leader died, and to be back at one that returned.
const BACK: Duration = Duration::from_secs(10);

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn many_agents_cause_no_election_and_are_all_back_soon_after_their_leader_died() {
    let site = Site::alone("fleet", |options| options.agents(0)).await;
    let size = AGENTS as usize;
    let fleet = Fleet::start(&site.cluster, AGENTS, 1).await.unwrap();
    let took = fleet.until_connected(CONTROLLERS, PATIENCE).await.unwrap();
    fleet.until_leased_after(0, PATIENCE).await.unwrap();
    site.cluster.until_agents_ready(size).await.unwrap();
    site.progress
        .say(format!("{AGENTS} agents connected in {}", span(took)));

    let before = site.cluster.status().await.unwrap();
    let sessions = fleet.counts().sessions;
    let load = Load {
        name: "load",
        in_flight: 8,
        spec: Arc::new(|_| traffic::process(["true"])),
        patience: PATIENCE,
        pause: Duration::ZERO,
    }
    .start(&site.caller);
    fleet.until_renewed(2, PATIENCE).await.unwrap();
    let status = site.cluster.status().await.unwrap();
    assert_eq!(status.term, before.term, "an election without a reason");
    assert_eq!(
        fleet.counts().sessions,
        sessions,
        "a session that was not kept"
    );

    let leader = site.cluster.leader().await.unwrap();
    let killed = faults::kill(&site.cluster, &leader).await.unwrap();
    fleet.until_leased_after(before.term, BACK).await.unwrap();
    let took = killed.at.elapsed();
    site.cluster.until_agents_ready(size).await.unwrap();
    let listed = killed.at.elapsed();
    assert!(listed <= BACK, "{} until all are ready", span(listed));
    site.progress
        .say(format!("{leader} killed: all leased after {}", span(took)));
    let after = site.cluster.status().await.unwrap();
    assert_eq!(after.term, before.term + 1, "more than one election");
    site.until_more(&load, 100).await;

    site.cluster.restart(&leader).await.unwrap();
    let began = Instant::now();
    fleet.until_connected(CONTROLLERS, BACK).await.unwrap();
    site.progress.say(format!(
        "{leader} started again: all connected after {}",
        span(began.elapsed())
    ));
    site.cluster.until_whole().await.unwrap();
    let last = site.cluster.status().await.unwrap();
    assert_eq!(last.term, after.term, "an election at its return");
    site.judge_against(load, || fleet.executions(), 200).await;
}
