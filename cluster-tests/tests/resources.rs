//! What a machine has beyond slots: it is found, given to one task at a time, and told by `why`; under the next leader too.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use cluster_tests::cluster::Cli;
use cluster_tests::{faults, traffic, wait};
use serde_json::{Value, json};
use tokio::test;
use wire::v1;

use crate::site::{PATIENCE, Site};

const GIB: u64 = 1_024;

/// A driver's tool that lists two GPUs.
pub fn a_driver(directory: &Path) -> String {
    let tool = directory.join("nvidia-smi");
    let lines = "#!/bin/sh\necho 'GPU-large, 24576'\necho 'GPU-small, 16384'\n";
    std::fs::write(&tool, lines).unwrap();
    std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = std::env::var("PATH").unwrap();
    format!("{}:{path}", directory.display())
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn gpus_are_found_given_to_one_task_at_a_time_and_under_the_next_leader_too() {
    let tools = tempfile::tempdir().unwrap();
    let path = a_driver(tools.path());
    let site = Site::start("gpus", |options| {
        options.agents(1).environment("PATH", &path)
    });
    let site = site.await;
    let cli = site.cluster.cli();
    let agent = cli.json(&["agent", "get", "a1"]).await.unwrap();
    assert_eq!(agent["supply"]["gpu_vram_mib"], json!([24_576, 16_384]));
    let nothing = json!({ "cpu_milli": 0, "memory_mib": 0, "gpus": 0 });
    assert_eq!(agent["taken"], nothing);

    let on_gpus = |gpus: u32, vram_mib: u64| v1::TaskSpec {
        gpus,
        vram_mib,
        ..traffic::process(["sh", "-c", "echo $CUDA_VISIBLE_DEVICES; exec sleep 3600"])
    };
    let one = running(&site, on_gpus(1, 0)).await;
    let large = running(&site, on_gpus(1, 20 * GIB)).await;
    assert_eq!((one.gpus, large.gpus), (vec![1], vec![0]));
    let waits = site.submit(on_gpus(2, 0)).await;
    let id = format!("t{waits}");
    let why = cli.json(&["task", "why", &id]).await.unwrap();
    let told = why["summary"].as_str().unwrap();
    assert!(
        told.contains("It asks for 2 GPUs; the most that is free is 0 GPUs, on a1."),
        "{told}"
    );
    let shown = cli.expect(&["agent", "get", "a1"]).await.unwrap().text();
    assert!(shown.contains("2 of 2 GPUs (24 GiB, 16 GiB)"), "{shown}");

    let leader = site.cluster.leader().await.unwrap();
    faults::kill(&site.cluster, &leader).await.unwrap();
    // The next leader knows from the log who has which.
    let cancel = async |id: u64| {
        let id = format!("t{id}");
        cli.expect(&["task", "cancel", &id]).await.unwrap()
    };
    cancel(one.id).await;
    let share = running(&site, on_gpus(0, 10 * GIB)).await;
    assert_eq!(share.gpus, [1]);
    assert_eq!(site.get(waits).await.state(), v1::TaskState::Queued);
    cancel(share.id).await;
    cancel(large.id).await;
    let is_running = |task: &v1::Task| task.state() == v1::TaskState::Running;
    let both = site.until(waits, "running", PATIENCE, is_running).await;
    assert_eq!(both.gpus, [1, 0], "the smaller one first");
    let said = cli.expect(&["task", "logs", &id]).await.unwrap().text();
    assert_eq!(said, "GPU-small,GPU-large\n");
    let shown = cli.expect(&["task", "get", &id]).await.unwrap().text();
    assert!(shown.contains("1 and 0 of a1"), "{shown}");
    site.cluster.stop().await.unwrap();
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_and_processors_are_what_the_settings_say_and_nobody_is_promised_more() {
    let site = Site::start("promises", |options| options.agents(1).slots(8)).await;
    let cli = site.cluster.cli();
    let settings = site.cluster.directory().join("a1.toml");
    faults::kill(&site.cluster, "a1").await.unwrap();
    let told = "\n[agent]\nmemory_mib = 1024\ncpu_milli = 2000\n";
    let known = std::fs::read_to_string(&settings).unwrap();
    std::fs::write(&settings, known + told).unwrap();
    site.cluster.restart("a1").await.unwrap();
    let has_said = async || {
        let agent = cli.json(&["agent", "get", "a1"]).await.unwrap();
        match agent["supply"]["memory_mib"] == 1_024 {
            true => Ok(()),
            false => Err(agent["supply"].to_string()),
        }
    };
    wait::until("a1 said what it has", PATIENCE, has_said)
        .await
        .unwrap();
    let submit = async |words: &[&str]| {
        let words = [&["task", "submit"], words, &["--", "sleep", "3600"]].concat();
        let task = cli.json(&words).await.unwrap();
        task["id"].as_str().unwrap().to_owned()
    };
    let first = submit(&["--memory", "600MiB", "--cpu", "0.5"]).await;
    let second = submit(&["--memory", "600MiB"]).await;
    let third = submit(&["--cpu", "1.6"]).await;
    let fourth = submit(&["--cpu", "1.5", "--memory", "400MiB"]).await;
    let why = async |id: &str| {
        let why = cli.json(&["task", "why", id]).await.unwrap();
        why["summary"].as_str().unwrap().to_owned()
    };
    let number = |id: &str| id[1..].parse::<u64>().unwrap();
    let is_running = |task: &v1::Task| task.state() == v1::TaskState::Running;
    for id in [&first, &fourth] {
        site.until(number(id), "running", PATIENCE, is_running)
            .await;
    }
    let told = why(&second).await;
    assert!(told.contains("1 has too little memory free"), "{told}");
    assert!(told.contains("600 MiB of memory"), "{told}");
    let told = why(&third).await;
    assert!(
        told.contains("1 has too few processors free. It asks for 1.6 CPUs"),
        "{told}"
    );
    let plan = ["task", "plan", "--memory", "2GiB", "--", "true"];
    let plan = cli.json(&plan).await.unwrap();
    let told = plan["summary"].as_str().unwrap();
    assert!(
        told.contains("no agent that it could run on has more than 1 GiB of memory"),
        "{told}"
    );
    let agent = cli.json(&["agent", "get", "a1"]).await.unwrap();
    let taken = json!({ "cpu_milli": 2_000, "memory_mib": 1_000, "gpus": 0 });
    assert_eq!(agent["taken"], taken);

    // Given back with the end of what had it.
    cli.expect(&["task", "cancel", &first]).await.unwrap();
    site.until(number(&second), "running", PATIENCE, is_running)
        .await;

    refuses_what_can_not_be(cli).await;
    let tasks = cli.json(&["task", "list"]).await.unwrap();
    assert_eq!(tasks["items"].as_array().map(Vec::len), Some(4));
    assert_eq!(tasks["next"], Value::Null);
    site.cluster.stop().await.unwrap();
}

async fn running(site: &Site, spec: v1::TaskSpec) -> v1::Task {
    let id = site.submit(spec).await;
    let is_running = |task: &v1::Task| task.state() == v1::TaskState::Running;
    site.until(id, "running", PATIENCE, is_running).await
}

async fn refuses_what_can_not_be(cli: &Cli) {
    for (words, part) in [
        (vec!["--cpu", "0"], "leave it out"),
        (vec!["--cpu", "some"], "500m"),
        (vec!["--gpus", "1000"], "64 GPUs"),
        (vec!["--memory", "0"], "memory limit of 0"),
    ] {
        let words = [vec!["task", "submit"], words, vec!["--", "true"]].concat();
        let refused = cli.run(&words).await.unwrap();
        assert_eq!(refused.code, Some(1), "{words:?}");
        assert!(
            refused.stderr.contains(part),
            "{words:?}: {}",
            refused.stderr
        );
    }
    let asked = [
        "task", "submit", "--gpus", "1", "--model", "m", "--prompt", "p",
    ];
    let refused = cli.run(&asked).await.unwrap();
    assert!(refused.stderr.contains("back end"), "{}", refused.stderr);
}
