//! History outlives the leader: tasks that left memory are read as before, whoever leads, and events are followed
//! over the kill without a gap.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::process::Stdio;
use std::time::Duration;

use cluster_tests::faults;
use cluster_tests::wait;
use serde_json::Value;
use tokio::test;

use crate::site::{PATIENCE, Site};

/// Tasks before and after the kill.
const TASKS: usize = 30;

/// Nothing finished stays in memory, and a segment is a few tasks long.
const SETTINGS: &str = "[controller]\narchive_hot_tasks = 0\narchive_segment_entries = 20\n";

async fn run_tasks(site: &Site) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    for _ in 0..TASKS {
        let submitted = ["task", "submit", "--", "echo", "kept"];
        let task = site.cluster.cli().json(&submitted).await;
        let task = task.expect("it is accepted");
        ids.insert(text(&task, "id"));
    }
    let words: Vec<&str> = ["task", "wait"]
        .into_iter()
        .chain(ids.iter().map(|id| &**id))
        .collect();
    let waited = site.cluster.cli().expect(&words).await;
    waited.expect("they succeed");
    ids
}

fn text(object: &Value, key: &str) -> String {
    let text = object[key].as_str();
    text.expect("it is a text").to_owned()
}

fn number(object: &Value, key: &str) -> u64 {
    object[key].as_u64().expect("it is a number")
}

fn parsed(text: &str) -> Vec<Value> {
    // The last line may be half written.
    let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
    whole
        .lines()
        .map(|line| serde_json::from_str(line).expect("it is JSON"))
        .collect()
}

fn key(event: &Value) -> (u64, u64) {
    (number(event, "index"), number(event, "n"))
}

fn ended(events: &[Value]) -> BTreeSet<String> {
    let ends = events.iter().filter(|event| event["type"] == "task_ended");
    ends.map(|event| text(event, "task")).collect()
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn archived_tasks_and_events_outlive_the_leader() {
    let site = Site::start("archive", |options| options).await;
    site.set_controllers(SETTINGS).await;
    let cli = site.cluster.cli();
    let out = site.cluster.scratch().join("events.out");
    let mut following = cli
        .command(["events", "--since", "0"])
        .stdout(Stdio::from(File::create(&out).unwrap()))
        .spawn()
        .unwrap();
    let mut ids = run_tasks(&site).await;

    let leader = site.cluster.leader().await.unwrap();
    faults::kill(&site.cluster, &leader).await.unwrap();
    site.progress.say(format!("{leader} killed, the leader"));
    for id in &ids {
        let task = cli.json(&["task", "get", id]).await.unwrap();
        assert_eq!(task["state"], "succeeded", "{task}");
        assert_eq!(task["result"]["stdout"], "kept\n", "{task}");
    }
    let one = ids.first().unwrap().clone();
    let why = cli.expect(&["task", "why", &one]).await.unwrap();
    assert!(why.text().contains("It succeeded"), "{}", why.text());
    let logs = cli.expect(&["task", "logs", &one]).await.unwrap();
    assert_eq!(logs.text(), "kept\n");
    ids.extend(run_tasks(&site).await);
    site.restart(&leader).await;
    site.converged().await;

    let list = cli
        .json(&["task", "list", "--limit", "1000"])
        .await
        .unwrap();
    let listed = list["items"].as_array().unwrap().iter();
    let listed: BTreeSet<String> = listed
        .map(|task| task["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(listed, ids);

    wait::until_now("the ends of all tasks in the events", PATIENCE, || {
        let seen = ended(&parsed(&fs::read_to_string(&out).unwrap()));
        match ids.is_subset(&seen) {
            true => Ok(()),
            false => Err(format!("{} of {}", seen.len(), ids.len())),
        }
    })
    .await
    .unwrap();
    following.start_kill().unwrap();
    tokio::time::timeout(Duration::from_secs(10), following.wait())
        .await
        .unwrap()
        .unwrap();
    let followed = parsed(&fs::read_to_string(&out).unwrap());
    assert!(
        followed
            .iter()
            .map(key)
            .is_sorted_by(|one, other| one < other)
    );

    // What was followed across the kill is what anybody reads afterwards.
    let whole = cli
        .expect(&["events", "--since", "0", "--until-now"])
        .await
        .unwrap();
    let whole = parsed(&whole.text());
    assert!(whole.len() >= followed.len());
    assert_eq!(whole[..followed.len()], followed[..]);
    site.progress
        .say(format!("{} events, none missing", followed.len()));
}
