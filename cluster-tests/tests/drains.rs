//! Agents that people take out of work: what they hold, what they get, and who remembers it.

use std::time::Duration;

use cluster_tests::cluster::finish;
use cluster_tests::traffic;
use cluster_tests::{faults, wait};
use serde_json::{Value, json};
use tokio::test;
use tokio::time::Instant;
use wire::v1::{self, TaskState};

use crate::shape::{assert_agent, assert_refused, in_every_form};
use crate::site::{PATIENCE, Site, assert_succeeded};

/// Of the drain; its leader dies well before.
const DEADLINE: Duration = Duration::from_secs(20);
/// An election and the answers of a busy machine; longer than what `true` and a kill take.
const SLACK: Duration = Duration::from_secs(25);

async fn agent(site: &Site, id: &str) -> Value {
    site.cluster
        .cli()
        .json(&["agent", "get", id])
        .await
        .unwrap()
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_goes_on_with_its_deadline_when_the_leader_dies() {
    let site = Site::start("drain", |options| options.slots(2)).await;
    let cli = site.cluster.cli();
    let mut held = Vec::new();
    for once in [false, false, true, true] {
        let spec = v1::TaskSpec {
            at_most_once: once,
            ..site.executions.task("sleep 3600")
        };
        let task = site.submit(spec).await;
        held.push((once, site.until_running(task).await));
    }
    held.retain(|(_, task)| task.agent == "a1");
    assert_eq!(held.len(), 2, "INVALID: a1 is not full");

    let begun = Instant::now();
    let drain = "agent drain a1 --yes --reason kernel --deadline";
    let drain = format!("{drain} {}s", DEADLINE.as_secs());
    let drain: Vec<&str> = drain.split(' ').collect();
    let draining = cli.start(&drain).unwrap();
    wait::until("a1 to be draining", PATIENCE, || async {
        let agent = cli
            .json(&["agent", "get", "a1"])
            .await
            .map_err(|error| error.to_string())?;
        if agent["state"] == "draining" {
            Ok(())
        } else {
            Err(agent.to_string())
        }
    })
    .await
    .unwrap();
    let leader = site.cluster.leader().await.unwrap();
    faults::kill(&site.cluster, &leader).await.unwrap();
    let drained = finish(drain.join(" "), draining).await.unwrap();
    assert_eq!(drained.code, Some(0), "{}", drained.stderr);
    let took = begun.elapsed();
    site.progress.say(format!(
        "a1 was empty {took:.1?} after the drain began, {leader} dead meanwhile"
    ));
    assert!(took >= DEADLINE && took < DEADLINE + SLACK, "{took:?}");

    for (once, task) in &held {
        let task = site.get(task.id).await;
        let wanted = if *once {
            TaskState::Unknown
        } else {
            TaskState::Queued
        };
        assert_eq!(task.state(), wanted, "{}", task.reason);
        assert!(
            task.reason.contains("the agent is being drained"),
            "{}",
            task.reason
        );
    }
    let shown = in_every_form(cli, &["agent", "get", "a1"], "drained", &["a1"]).await;
    assert_agent(&shown);
    assert_eq!(shown["cordon"]["reason"], "kernel");
    assert_eq!(shown["cordon"]["drain"]["overdue"], true);

    // What waits goes to it again once it is open.
    cli.expect(&["agent", "uncordon", "a1"]).await.unwrap();
    for (_, task) in held.iter().filter(|(once, _)| !once) {
        assert_eq!(site.until_running(task.id).await.agent, "a1");
    }
    site.restart(&leader).await;
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cordoned_agent_gets_nothing_whatever_becomes_of_it() {
    let site = Site::start("cordon", |options| options.agents(1)).await;
    let cli = site.cluster.cli();
    let running = site.submit(traffic::process(["sleep", "5"])).await;
    site.until_running(running).await;
    let cordon = ["agent", "cordon", "a1", "--reason", "its disk is slow"];
    let agent_json = in_every_form(cli, &cordon, "a1 gets no new work", &["a1"]).await;
    assert_eq!(
        (&agent_json["state"], &agent_json["busy"]),
        (&json!("cordoned"), &json!(1))
    );
    let task = site.submit(traffic::process(["true"])).await;
    assert_succeeded(&site.wait(running).await);

    faults::kill(&site.cluster, "a1").await.unwrap();
    site.cluster.restart("a1").await.unwrap();
    wait::until("a1 to be back", PATIENCE, || async {
        let agent = cli
            .json(&["agent", "get", "a1"])
            .await
            .map_err(|error| error.to_string())?;
        let back = agent["connected"] == true && agent["state"] == "cordoned";
        if back { Ok(()) } else { Err(agent.to_string()) }
    })
    .await
    .unwrap();
    let leader = site.cluster.leader().await.unwrap();
    faults::kill(&site.cluster, &leader).await.unwrap();
    site.cluster.leader().await.unwrap();
    site.cluster.restart(&leader).await.unwrap();
    let id = format!("t{task}");
    let why = cli.json(&["task", "why", &id]).await.unwrap();
    assert_eq!(why["agents_now"][0]["refused"], "it is cordoned", "{why}");
    assert_eq!(site.get(task).await.state(), TaskState::Queued);
    cli.expect(&["agent", "uncordon", "a1"]).await.unwrap();
    assert_succeeded(&site.wait(task).await);
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn what_makes_no_sense_of_an_agent_is_refused_and_one_that_is_gone_is_forgotten() {
    let site = Site::start("agent-orders", |options| options.agents(2)).await;
    let cli = site.cluster.cli();
    for verb in ["cordon", "uncordon", "remove", "drain"] {
        let unknown = ["agent", verb, "a9", "--yes"];
        assert_refused(cli, &unknown, 2, "no_such_agent").await;
        assert_refused(cli, &["agent", verb, "no/agent", "--yes"], 1, "usage").await;
        assert_refused(cli, &["agent", verb, "--yes"], 1, "usage").await;
    }
    let long = "x".repeat(2_000);
    assert_refused(
        cli,
        &["agent", "cordon", "a1", "--reason", &long],
        1,
        "over_limit",
    )
    .await;
    assert_refused(cli, &["agent", "drain", "a1"], 1, "usage").await;
    for deadline in ["soon", "-1s", "0.5ns"] {
        let drain = format!("--deadline={deadline}");
        assert_refused(cli, &["agent", "drain", "a1", "--yes", &drain], 1, "usage").await;
    }
    assert_refused(
        cli,
        &["agent", "drain", "a1", "--yes", "--deadline", "31d"],
        1,
        "invalid",
    )
    .await;
    assert_refused(cli, &["agent", "remove", "a1"], 1, "refused").await;
    assert_eq!(
        agent(&site, "a1").await["cordon"],
        Value::Null,
        "nothing was done"
    );

    let drained = in_every_form(
        cli,
        &["agent", "drain", "a1", "--yes"],
        "holds nothing",
        &["a1"],
    )
    .await;
    assert_eq!(drained["state"], "drained");
    // It would only register again.
    assert_refused(cli, &["agent", "remove", "a1"], 1, "refused").await;
    faults::kill(&site.cluster, "a1").await.unwrap();
    wait::until("a1 to be forgotten", PATIENCE, || async {
        let removed = cli
            .run(&["agent", "remove", "a1"])
            .await
            .map_err(|error| error.to_string())?;
        if removed.code == Some(0) {
            Ok(())
        } else {
            Err(removed.stderr)
        }
    })
    .await
    .unwrap();
    assert_refused(cli, &["agent", "get", "a1"], 2, "no_such_agent").await;
    site.restart("a1").await;
    assert_eq!(
        agent(&site, "a1").await["cordon"],
        Value::Null,
        "it is a new one"
    );
}
