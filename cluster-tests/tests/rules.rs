//! Rules that people make by hand: they hold from their entry on, at every controller and under the next leader, `why` tells
//! them, and what they kept waiting goes once they are over.

use cluster_tests::cluster::Cli;
use cluster_tests::{faults, traffic};
use serde_json::{Value, json};
use tokio::test;
use wire::v1;

use crate::shape::{RULE, assert_keys};
use crate::site::{PATIENCE, Site};

async fn add(cli: &Cli, words: &[&str]) -> Value {
    let words = [&["policy", "rule-add"], words, &["--reason", "a test"]].concat();
    cli.json(&words).await.unwrap()
}

fn sleeper(namespace: &str) -> v1::TaskSpec {
    v1::TaskSpec {
        namespace: namespace.to_owned(),
        ..traffic::process(["sleep", "3600"])
    }
}

async fn why(site: &Site, task: u64) -> Value {
    let id = format!("t{task}");
    let cli = site.cluster.cli();
    cli.json(&["task", "why", &id]).await.unwrap()
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_holds_at_every_controller_and_under_the_next_leader_until_it_is_taken_back() {
    let site = Site::start("rules", |options| options.agents(3).slots(2)).await;
    let cli = site.cluster.cli();
    let rule = add(
        cli,
        &[
            "exclude",
            "--agent",
            "a1",
            "--agent",
            "a2",
            "--namespace",
            "blue",
        ],
    )
    .await;
    assert_keys(&rule, &RULE);
    assert_eq!(
        (&rule["agents"], &rule["agents_now"]),
        (&json!(["a1", "a2"]), &json!(2))
    );
    assert_eq!(
        (&rule["most"], &rule["expires_at"]),
        (&Value::Null, &Value::Null)
    );
    let id = rule["id"].as_str().unwrap().to_owned();

    refuses_what_an_exclusion_wins_over(cli, &id).await;

    // Whoever is asked has the rule, and takes tasks by it.
    for controller in ["c1", "c2", "c3"] {
        let address = site.cluster.controller(controller).unwrap().grpc;
        let listed = cli
            .json(&["policy", "rules", "--addr", &address])
            .await
            .unwrap();
        assert_eq!(listed["items"][0]["id"], Value::from(id.as_str()));
        assert_eq!(listed["items"].as_array().map(Vec::len), Some(1));
    }
    for _ in 0..2 {
        let task = site.submit(sleeper("blue")).await;
        assert_eq!(site.until_running(task).await.agent, "a3");
    }
    let blue = site.submit(sleeper("blue")).await;
    // Nobody else is held up.
    let red = site.submit(sleeper("red")).await;
    site.until_running(red).await;
    let told = why(&site, blue).await;
    let summary = told["summary"].as_str().unwrap();
    assert!(
        summary.contains("2 have a rule against such tasks"),
        "{summary}"
    );
    let words = format!("Rule {id}: exclude tasks of namespace blue from a1, a2 (admin: a test).");
    assert!(summary.contains(&words), "{summary}");

    let leader = site.cluster.leader().await.unwrap();
    faults::kill(&site.cluster, &leader).await.unwrap();
    let red = site.submit(sleeper("red")).await;
    site.until_running(red).await;
    assert_eq!(site.get(blue).await.state(), v1::TaskState::Queued);
    let gone = cli
        .expect(&["policy", "rule-remove", &id])
        .await
        .unwrap()
        .text();
    assert!(
        gone.starts_with(&format!("{id} holds no more: exclude")),
        "{gone}"
    );
    site.until_running(blue).await;
    let again = cli.run(&["policy", "rule-remove", &id]).await.unwrap();
    assert_eq!(again.code, Some(2), "{}", again.stderr);
    site.cluster.stop().await.unwrap();
}

/// A rule excludes blue tasks from `a1`.
async fn refuses_what_an_exclusion_wins_over(cli: &Cli, rule: &str) {
    let words = [
        "pin",
        "--agent",
        "a1",
        "--namespace",
        "blue",
        "--reason",
        "x",
    ];
    let words = [&["policy", "rule-add"], &words[..]].concat();
    let refused = cli.run(&words).await.unwrap();
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    let remedy = format!("rule-remove {rule}");
    for part in ["an exclusion wins over a pin", &remedy] {
        assert!(refused.stderr.contains(part), "{}", refused.stderr);
    }
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_ends_by_itself_and_what_waited_for_that_goes() {
    let site = Site::start("rules-end", |options| options.agents(2).slots(2)).await;
    let cli = site.cluster.cli();
    let pinned = ["pin", "--agent", "a2", "--namespace", "blue", "--ttl", "1h"];
    let rule = add(cli, &pinned).await;
    assert!(rule["expires_at"].is_string(), "{rule}");
    let mut tasks = Vec::new();
    for _ in 0..3 {
        tasks.push(site.submit(sleeper("blue")).await);
    }
    let summary = why(&site, tasks[2]).await["summary"].to_string();
    assert!(
        summary.contains("1 is not among those to which a rule pins it"),
        "{summary}"
    );
    // Given again it is the same rule, with the new time.
    let shorter = ["pin", "--agent", "a2", "--namespace", "blue", "--ttl", "1s"];
    let again = add(cli, &shorter).await;
    assert_eq!(again["id"], rule["id"]);
    let third = site.until_running(tasks[2]).await;
    assert_eq!(third.agent, "a1");
    let listed = cli.json(&["policy", "rules"]).await.unwrap();
    assert_eq!(listed["items"], json!([]));
    site.cluster.stop().await.unwrap();
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn preferred_agents_are_taken_first_and_the_numbers_say_why() {
    let site = Site::start("rules-prefer", |options| options.agents(3).slots(2)).await;
    let cli = site.cluster.cli();
    add(cli, &["prefer", "--agent", "a2", "--namespace", "red"]).await;
    let mut on = Vec::new();
    for _ in 0..3 {
        let task = site.submit(sleeper("red")).await;
        on.push(site.until_running(task).await);
    }
    // It would have been another one's turn the second time.
    assert_eq!((on[0].agent.as_str(), on[1].agent.as_str()), ("a2", "a2"));
    assert_ne!(on[2].agent, "a2");
    let told = why(&site, on[1].id).await;
    let (winner, other) = (&told["decision"][0], &told["decision"][1]);
    assert_eq!(
        winner["terms"][0],
        json!({ "name": "unmet", "value": 0, "weight": 1_000_000_000 })
    );
    assert_eq!(other["terms"][0]["value"], 1_000);
    let summary = told["summary"].as_str().unwrap();
    assert!(
        summary.contains("a2, preferred, and the best by load and pace"),
        "{summary}"
    );
    // What a task prefers itself is shown, and holds nobody up where no agent has it.
    let words = [
        "task", "submit", "--prefer", "offers m", "--", "sleep", "3600",
    ];
    let shown = cli.expect(&words).await.unwrap().text();
    let task = on[2].id + 1;
    site.until_running(task).await;
    let told = why(&site, task).await;
    assert_eq!(told["decision"][0]["terms"][0]["value"], 1_000, "{shown}");
    let id = format!("t{task}");
    let shown = cli.expect(&["task", "get", &id]).await.unwrap().text();
    assert!(shown.contains("offers m"), "{shown}");
    let words = ["task", "run", "--prefer", "a in", "--", "true"];
    let refused = cli.run(&words).await.unwrap();
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("character 5"), "{}", refused.stderr);
    site.cluster.stop().await.unwrap();
}

/// What can't be a rule, the exit code, and a part of why, in a cluster of one agent without model servers.
const REFUSED: &[(&[&str], i32, &str)] = &[
    (
        &["exclude", "--agent", "a1", "--reason", "x"],
        1,
        "no agent would be left",
    ),
    (
        &["exclude", "--agent", "a7", "--reason", "x"],
        2,
        "there is no agent a7",
    ),
    (
        &["pin", "--require", "gpu=h100", "--reason", "x"],
        1,
        "no agent fits it",
    ),
    (
        &["pin", "--agent=a1", "--kind=inference", "--reason=x"],
        1,
        "no model server is reached by a1",
    ),
    (
        &["pin", "--require", "a in", "--reason", "x"],
        1,
        "character 5",
    ),
    (&["pin", "--reason", "x"], 1, "which agents?"),
    (&["pin", "--agent", "a1"], 1, "--reason"),
    (&["cap", "--agent", "a1", "--reason", "x"], 1, "--most"),
    (
        &["cap", "--most", "0", "--agent", "a1", "--reason", "x"],
        1,
        "0",
    ),
];

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cap_bounds_what_an_agent_holds_and_what_contradicts_is_refused() {
    let site = Site::start("rules-cap", |options| options.agents(1).slots(4)).await;
    let cli = site.cluster.cli();
    add(
        cli,
        &["cap", "--most", "1", "--agent", "a1", "--namespace", "blue"],
    )
    .await;
    let first = site.submit(sleeper("blue")).await;
    site.until_running(first).await;
    let second = site.submit(sleeper("blue")).await;
    let red = site.submit(sleeper("red")).await;
    site.until_running(red).await;
    let summary = why(&site, second).await["summary"].to_string();
    assert!(
        summary.contains("1 holds as many such tasks as a rule allows"),
        "{summary}"
    );
    cli.expect(&["task", "cancel", &format!("t{first}")])
        .await
        .unwrap();
    let is_running = |task: &v1::Task| task.state() == v1::TaskState::Running;
    site.until(second, "running", PATIENCE, is_running).await;

    for (words, code, part) in REFUSED {
        let words = [&["policy", "rule-add"], *words].concat();
        let refused = cli.run(&words).await.unwrap();
        let told = &refused.stderr;
        assert_eq!(refused.code, Some(*code), "{words:?}: {told}");
        assert!(told.contains(part), "{words:?}: {told}");
    }
    // Given again it is the same rule, with what was said last.
    let again = ["cap", "--most", "2", "--agent", "a1", "--namespace", "blue"];
    assert_eq!(add(cli, &again).await["most"], 2);
    let listed = cli.json(&["policy", "rules"]).await.unwrap();
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(1));
    site.cluster.stop().await.unwrap();
}
