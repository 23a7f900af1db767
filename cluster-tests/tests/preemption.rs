//! A task gets the place of another one, with real processes: what has to end is ended, and only then the other begins, also
//! where it takes a while and the leader dies meanwhile; then what had to end goes on.

use std::path::Path;

use cluster_tests::{faults, traffic, wait};
use tokio::test;
use wire::v1;

use crate::resources::a_driver;
use crate::site::{PATIENCE, Site};

/// The first time it never ends by itself, and takes 3 s to end when it is told to; the second time it does.
fn victim(notes: &Path) -> v1::TaskSpec {
    let script = format!(
        "cd {}; if [ -e notes ]; then echo again >> notes; exit 0; fi; echo began >> notes; \
         trap 'sleep 3; echo ended >> notes; exit 0' TERM; sleep 3600 & wait",
        notes.display()
    );
    v1::TaskSpec {
        preemptible: true,
        class: "batch".into(),
        gpus: 1,
        ..traffic::process(["sh", "-c", &script])
    }
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_gets_the_gpu_of_another_once_that_has_ended_though_the_leader_dies_meanwhile() {
    let tools = tempfile::tempdir().unwrap();
    let path = a_driver(tools.path());
    // Slots there are enough of: that one is free does not mean that what it needs is.
    let site = Site::start("preemption", |options| {
        options.agents(1).slots(4).environment("PATH", &path)
    });
    let site = site.await;
    let cli = site.cluster.cli();
    let low = site.submit(victim(tools.path())).await;
    site.until_running(low).await;
    let script = format!("echo instead >> {}/notes", tools.path().display());
    let urgent = [
        "--class", "critical", "--gpus", "2", "--", "sh", "-c", &script,
    ];

    let plan = [&["task", "plan"][..], &urgent].concat();
    let plan = cli.json(&plan).await.unwrap();
    let told = plan["summary"].as_str().unwrap();
    assert!(
        told.ends_with(&format!("Task t{low} would be preempted for it.")),
        "{told}"
    );

    let submit = [&["task", "submit"][..], &urgent].concat();
    let high = cli.json(&submit).await.unwrap()["id"].clone();
    let high = high.as_str().unwrap();
    let id = format!("t{low}");
    let yields = async || {
        let why = cli.json(&["task", "why", &id]).await.unwrap();
        let told = why["summary"].as_str().unwrap().to_owned();
        let ends = format!("It has to end: preempted by task {high}, waiting for a1 to end it.");
        match told.ends_with(&ends) {
            true => Ok(()),
            false => Err(told),
        }
    };
    wait::until("the first one yields", PATIENCE, yields)
        .await
        .unwrap();
    let why = cli.json(&["task", "why", high]).await.unwrap();
    assert_eq!(why["strategy"], "preemption");
    let told = why["summary"].as_str().unwrap();
    assert!(
        told.ends_with(&format!(
            "It begins once {id} ended there, whose place it got."
        )),
        "{told}"
    );

    let leader = site.cluster.leader().await.unwrap();
    faults::kill(&site.cluster, &leader).await.unwrap();
    let number = high[1..].parse().unwrap();
    assert_eq!(site.wait(number).await.state(), v1::TaskState::Succeeded);
    let again = site.wait(low).await;
    assert_eq!(again.state(), v1::TaskState::Succeeded);
    assert_eq!(again.attempt, 2);
    let notes = std::fs::read_to_string(tools.path().join("notes")).unwrap();
    assert_eq!(notes, "began\nended\ninstead\nagain\n");

    let shown = cli.expect(&["task", "get", &id]).await.unwrap().text();
    let is_told = |line: &str| line.split_whitespace().eq(["preemptible", "yes"]);
    assert!(shown.lines().any(is_told), "{shown}");
    site.cluster.stop().await.unwrap();
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_be_preempted_is_a_choice_and_nothing_that_is_at_most_once() {
    let site = Site::start("preemptible", |options| options.agents(1).slots(1)).await;
    let cli = site.cluster.cli();
    let submit = async |words: &[&str]| {
        let words = [&["task", "submit"], words, &["--", "sleep", "3600"]].concat();
        let task = cli.json(&words).await.unwrap();
        task["id"].as_str().unwrap().to_owned()
    };
    let number = |id: &str| id[1..].parse::<u64>().unwrap();
    let stays = submit(&["--class", "scavenger"]).await;
    site.until_running(number(&stays)).await;
    let waits = submit(&["--class", "critical"]).await;
    let why = cli.json(&["task", "why", &waits]).await.unwrap();
    let told = why["summary"].as_str().unwrap();
    assert!(told.contains("1 has no free slot"), "{told}");
    let both = [
        "task",
        "submit",
        "--preemptible",
        "--at-most-once",
        "--",
        "true",
    ];
    let refused = cli.run(&both).await.unwrap();
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("exclude each other"),
        "{}",
        refused.stderr
    );
    assert_eq!(
        site.get(number(&stays)).await.state(),
        v1::TaskState::Running
    );
    site.cluster.stop().await.unwrap();
}
