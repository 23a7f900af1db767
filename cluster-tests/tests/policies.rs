//! Policies: what an administrator sets holds at once, is told by `why`, and holds under the next leader.

use std::collections::BTreeMap;

use cluster_tests::traffic;
use cluster_tests::wait;
use cluster_tests::{cluster, faults};
use serde_json::Value;
use tokio::test;
use wire::v1;
use wire::v1::cluster_client::ClusterClient;

use crate::shape::{PLAN, assert_keys};
use crate::site::{PATIENCE, Site};

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_holds_for_the_next_task_and_under_the_next_leader_and_why_tells_it() {
    let site = Site::start("policies", |options| options.agents(3).slots(6)).await;
    let cli = site.cluster.cli();
    let said = cli
        .json(&["policy", "set", "--strategy", "binpack"])
        .await
        .unwrap();
    let said = said["items"].as_array().unwrap();
    assert_eq!(
        (said.len(), &said[0]["strategy"]),
        (1, &Value::from("binpack"))
    );
    assert_eq!(said[0]["namespace"], Value::Null);
    let asked = [
        "policy",
        "set",
        "--namespace",
        "even",
        "--strategy",
        "round_robin",
    ];
    cli.expect(&asked).await.unwrap();

    assert_eq!(counts(&running(&site, "default", 6).await), [6]);
    let even = running(&site, "even", 6).await;
    // One agent is full by now.
    assert_eq!(counts(&even), [3, 3]);
    let id = format!("t{}", even[0].id);
    let why = cli.json(&["task", "why", &id]).await.unwrap();
    assert_eq!(why["strategy"], "round_robin");
    assert_eq!(why["decision"][0]["terms"][0]["name"], "turn");
    for address in site.cluster.addresses().unwrap() {
        let words = ["task", "why", &id, "--addr", &address];
        assert_eq!(cli.json(&words).await.unwrap(), why, "{address}");
    }
    let text = cli.expect(&["task", "why", &id]).await.unwrap().stdout;
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("whose turn it was"), "{text}");

    let leader = site.cluster.leader().await.unwrap();
    faults::kill(&site.cluster, &leader).await.unwrap();
    let more = running(&site, "even", 2).await;
    assert_eq!(counts(&more), [1, 1]);
    let held = cli
        .json(&["policy", "get", "--namespace", "even"])
        .await
        .unwrap();
    let held = &held["items"][0];
    assert_eq!(
        (&held["strategy"], held["by"].is_string()),
        (&Value::from("round_robin"), true)
    );
    let inherited = [
        "policy",
        "set",
        "--namespace",
        "even",
        "--strategy",
        "inherit",
    ];
    let now = cli.json(&inherited).await.unwrap();
    assert_eq!(now["items"][0]["strategy"], "binpack");
    site.cluster.stop().await.unwrap();
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_says_what_a_submit_then_comes_to_and_submits_nothing() {
    let site = Site::start("plans", |options| options.agents(2).slots(1)).await;
    let cli = site.cluster.cli();
    let first = &running(&site, "default", 1).await[0];
    let plan = cli
        .json(&["task", "plan", "--", "sleep", "3600"])
        .await
        .unwrap();
    assert_keys(&plan, &PLAN);
    assert_ne!(plan["agent"], Value::from(first.agent.as_str()));
    let text = cli
        .expect(&["task", "plan", "--", "true"])
        .await
        .unwrap()
        .stdout;
    let text = String::from_utf8(text).unwrap();
    assert!(text.starts_with("It would be assigned to a"), "{text}");
    let second = &running(&site, "default", 1).await[0];
    assert_eq!(plan["agent"], Value::from(second.agent.as_str()));

    let full = cli.json(&["task", "plan", "--", "true"]).await.unwrap();
    assert_eq!(
        (&full["agent"], &full["queue_position"]),
        (&Value::Null, &Value::from(1))
    );
    let told = full["summary"].as_str().unwrap();
    let waits = "It would wait as number 1 in the queue: of 2 agents 2 have no free slot.";
    assert!(told.starts_with(waits), "{told}");
    let nowhere = ["task", "plan", "--require", "zone=moon", "--", "true"];
    let nowhere = cli.json(&nowhere).await.unwrap();
    let told = nowhere["summary"].as_str().unwrap();
    assert!(told.contains("2 do not satisfy its `require`"), "{told}");
    let refused = cli.run(&[
        "task",
        "plan",
        "--at-most-once",
        "--retries",
        "1",
        "--",
        "true",
    ]);
    assert_eq!(refused.await.unwrap().code, Some(1));
    let tasks = cli.json(&["task", "list"]).await.unwrap();
    assert_eq!(tasks["items"].as_array().unwrap().len(), 2);
    site.cluster.stop().await.unwrap();
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_and_for_how_long_is_told_by_class() {
    let site = Site::start("waits", |options| options.agents(1).slots(1)).await;
    let cli = site.cluster.cli();
    let spec = |class: &str, seconds: &str| v1::TaskSpec {
        class: class.to_owned(),
        ..traffic::process(["sleep", seconds])
    };
    let first = site.submit(spec("", "3600")).await;
    site.until_running(first).await;
    let last = site.submit(spec("batch", "0")).await;
    let queue = |status: Value| -> BTreeMap<String, (Value, Value)> {
        let classes = status["queue"].as_array().unwrap().iter();
        let of = |it: &Value| (it["tasks"].clone(), it["oldest_ms"].clone());
        classes
            .map(|it| (it["class"].as_str().unwrap().to_owned(), of(it)))
            .collect()
    };
    let seen = queue(cli.json(&["cluster", "status"]).await.unwrap());
    assert_eq!(seen.len(), 5, "{seen:?}");
    assert_eq!(seen["batch"].0, 1);
    // Nothing happens meanwhile, and time goes on: at a follower, too.
    let follower = site.a_follower().await;
    let address = site.cluster.controller(follower).unwrap().grpc;
    let client = ClusterClient::new(cluster::channel(&address, &site.tls));
    let before = seen["batch"].1.as_u64();
    wait::until("a wait to grow", PATIENCE, || {
        let mut client = client.clone();
        async move {
            let status = client.status(v1::StatusRequest {}).await;
            let queue = status
                .map_err(|status| status.to_string())?
                .into_inner()
                .queue;
            let batch = queue.iter().find(|it| it.class == "batch");
            match batch.and_then(|it| it.oldest_ms) > before {
                true => Ok(()),
                false => Err(format!("{queue:?}")),
            }
        }
    })
    .await
    .unwrap();
    let told = cli.expect(&["cluster", "status"]).await.unwrap().stdout;
    let told = String::from_utf8(told).unwrap();
    assert!(told.contains("1 batch task waits"), "{told}");
    cli.expect(&["task", "cancel", &format!("t{first}")])
        .await
        .unwrap();
    site.wait(last).await;

    let leader = site.cluster.leader().await.unwrap();
    let metrics = site.cluster.metrics(&leader).await.unwrap();
    let sum = |class: &str| metrics.get(&format!("quorate_queue_seconds_sum{{class=\"{class}\"}}"));
    // The one waited for the other, which waited for nothing.
    assert!(sum("batch") > sum("standard"), "{metrics:?}");
    assert!(sum("standard").is_some(), "{metrics:?}");
    site.cluster.stop().await.unwrap();
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_strategy_or_kind_is_refused_with_what_there_is() {
    let site = Site::start("no-policies", |options| options.agents(1)).await;
    let cli = site.cluster.cli();
    let refused = async |args: &[&str]| {
        let done = cli.run(args).await.unwrap();
        assert_eq!(done.code, Some(1), "{}", done.stderr);
        done.stderr
    };
    let told = refused(&["policy", "set", "--strategy", "random"]).await;
    assert!(
        told.contains("weighted_round_robin") && told.contains("inherit"),
        "{told}"
    );
    let told = refused(&["policy", "set", "--strategy", "spread", "--kind", "wasm"]).await;
    assert!(
        told.contains("process") && told.contains("inference"),
        "{told}"
    );
    let told = refused(&["policy", "set", "--namespace", "research"]).await;
    assert!(told.contains("--strategy"), "{told}");
    let all = cli.json(&["policy", "get"]).await.unwrap();
    let items = all["items"].as_array().unwrap();
    assert_eq!(
        (items.len(), &items[0]["strategy"]),
        (1, &Value::from("adaptive"))
    );
    site.cluster.stop().await.unwrap();
}

/// So many tasks that go on, once all of them run, submitted one after the other.
async fn running(site: &Site, namespace: &str, count: usize) -> Vec<v1::Task> {
    let mut tasks = Vec::new();
    for _ in 0..count {
        let spec = v1::TaskSpec {
            namespace: namespace.to_owned(),
            ..traffic::process(["sleep", "3600"])
        };
        let id = site.submit(spec).await;
        let is_running = |task: &v1::Task| task.state() == v1::TaskState::Running;
        tasks.push(site.until(id, "running", PATIENCE, is_running).await);
    }
    tasks
}

/// How many each agent has, of those that have any.
fn counts(tasks: &[v1::Task]) -> Vec<usize> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for task in tasks {
        *counts.entry(&task.agent).or_default() += 1;
    }
    counts.into_values().collect()
}
