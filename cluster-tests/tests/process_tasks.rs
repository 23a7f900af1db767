//! What a task's process may do, and how it ends: output, timeouts, cancels, programs that are not there.

use std::time::Duration;

use cluster_tests::cluster::finish;
use cluster_tests::faults::{self, process};
use cluster_tests::traffic;
use cluster_tests::wait;
use tokio::io::AsyncReadExt;
use tokio::test;
use wire::v1::{self, TaskState};

use crate::site::Site;

/// Kept of each stream with a result.
const TAIL: usize = 64 * 1024;
const LARGE: usize = 10 * 1000 * 1000;
/// SIGTERM, 10 s of grace, SIGKILL, and the report.
const ENDED: Duration = Duration::from_secs(20);

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn output_comes_back_byte_for_byte_however_long_or_binary() {
    let site = Site::start("output", |options| options).await;
    let cli = site.cluster.cli();

    // Every byte there is, twice, and no line end.
    let bytes = "i=0; while [ $i -lt 512 ]; do printf \"\\\\$(printf %03o $((i % 256)))\"; i=$((i+1)); done";
    let ran = cli
        .expect(&["task", "run", "--", "sh", "-c", bytes])
        .await
        .unwrap();
    let all: Vec<u8> = (0..=255).chain(0..=255).collect();
    assert_eq!(ran.stdout, all);

    let script = format!("head -c {LARGE} /dev/zero | tr '\\0' x; echo the end; echo apart >&2");
    let task = site.submit(traffic::process(["sh", "-c", &script])).await;
    let ended = site.wait(task).await;
    let result = ended.result.clone().unwrap();
    let whole = LARGE + "the end\n".len();
    assert_eq!(
        (result.truncated, result.stdout_bytes),
        (true, whole as u64)
    );
    assert_eq!(result.stdout.len(), TAIL);
    assert!(result.stdout.ends_with(b"xxxthe end\n"));
    assert_eq!(result.stderr, "apart\n");
    let logs = cli
        .expect(&["task", "logs", &format!("t{task}")])
        .await
        .unwrap();
    assert_eq!(logs.stdout.len(), whole, "{}", logs.stderr);
    site.progress
        .say(format!("{whole} bytes came back in {:.1?}", logs.took));

    let run = cli
        .expect(&["task", "run", "--", "sh", "-c", &script])
        .await
        .unwrap();
    assert_eq!(run.stdout.len(), whole);
    assert_eq!(run.stderr, "apart\n");
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_go_on_when_the_controller_that_gave_them_dies() {
    let site = Site::start("logs-failover", |options| options).await;
    // More than what pipes and windows hold, so that most of it is still to come.
    let script = format!("head -c {} /dev/zero | tr '\\0' x; echo the end", 3 * LARGE);
    let task = site.submit(traffic::process(["sh", "-c", &script])).await;
    site.wait(task).await;
    let leader = site.cluster.leader().await.unwrap();
    // The agents' sessions stay as they are when a follower dies.
    let mut controllers = site.cluster.layout().unwrap().controllers;
    controllers.sort_by_key(|controller| controller.id == leader);
    let addresses = controllers.iter().map(|controller| &*controller.grpc);
    let addresses = addresses.collect::<Vec<_>>().join(",");
    let id = format!("t{task}");
    let mut logs = site
        .cluster
        .cli()
        .start(&["task", "logs", "--addr", &addresses, &id])
        .unwrap();
    let mut first = vec![b'-'; TAIL];
    logs.stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut first)
        .await
        .unwrap();
    assert!(first.iter().all(|byte| *byte == b'x'));
    faults::kill(&site.cluster, &controllers[0].id)
        .await
        .unwrap();
    let ended = finish("task logs".to_owned(), logs).await.unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let whole = first.len() + ended.stdout.len();
    assert_eq!(whole, 3 * LARGE + "the end\n".len(), "{}", ended.stderr);
    assert!(ended.stdout.ends_with(b"xthe end\n"));
    site.restart(&controllers[0].id).await;
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_cannot_run_says_why() {
    let site = Site::start("cannot-run", |options| options).await;
    let cli = site.cluster.cli();
    let cases: [(&[&str], &str); 4] = [
        (
            &["--", "no-such-program-anywhere"],
            "no-such-program-anywhere",
        ),
        (&["--", "/etc/hostname"], "/etc/hostname"),
        (
            &["--cwd", "/no/such/directory", "--", "true"],
            "/no/such/directory",
        ),
        (&["--", "sh", "-c", "exit 7"], "7"),
    ];
    for (arguments, why) in cases {
        let run: Vec<&str> = ["task", "submit", "-o", "quiet"]
            .iter()
            .chain(arguments)
            .copied()
            .collect();
        let id = cli.expect(&run).await.unwrap().text().trim().to_owned();
        let waited = cli.run(&["task", "wait", &id]).await.unwrap();
        assert_eq!(waited.code, Some(3), "{arguments:?}: {}", waited.stderr);
        let task = cli.json(&["task", "get", &id]).await.unwrap();
        assert_eq!(task["state"], "failed", "{task}");
        assert!(
            task["reason"].as_str().unwrap().contains(why),
            "{why}: {task}"
        );
        let exit_code = &task["result"]["exit_code"];
        assert_eq!(exit_code.as_i64(), (why == "7").then_some(7), "{task}");
    }
    let propagated = cli
        .run(&[
            "task",
            "run",
            "--propagate-exit",
            "--",
            "sh",
            "-c",
            "echo out; exit 7",
        ])
        .await
        .unwrap();
    assert_eq!(
        (propagated.code, propagated.text().as_str()),
        (Some(7), "out\n")
    );
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timeout_and_a_cancel_end_a_task_with_all_its_children() {
    let site = Site::start("endings", |options| options).await;
    // The shell's child, and one that left the group's foreground and ignores the polite signal.
    let family = |mark: &str| format!("(trap '' TERM; sleep {mark}) & sleep {mark}; wait");
    let timed = v1::TaskSpec {
        timeout_ms: 2_000,
        ..traffic::process(["sh".to_owned(), "-c".to_owned(), family("7001.5")])
    };
    let timed = site.submit(timed).await;
    let cancelled = site
        .submit(traffic::process([
            "sh".to_owned(),
            "-c".to_owned(),
            family("7002.5"),
        ]))
        .await;
    site.until_running(cancelled).await;
    wait::until_now("the children", ENDED, || {
        match process::marked("7002.5").len() {
            0..3 => Err("they are not there yet"),
            _ => Ok(()),
        }
    })
    .await
    .unwrap();
    let id = format!("t{cancelled}");
    site.cluster
        .cli()
        .expect(&["task", "cancel", &id])
        .await
        .unwrap();
    assert_eq!(site.wait(cancelled).await.state(), TaskState::Cancelled);
    let ended = site.wait(timed).await;
    assert_eq!(ended.state(), TaskState::Failed);
    assert!(ended.reason.contains("timed out"), "{}", ended.reason);
    for mark in ["7001.5", "7002.5"] {
        wait::until_now(
            "the end of the children",
            ENDED,
            || match process::marked(mark).as_slice() {
                [] => Ok(()),
                left => Err(format!("{left:?} still run")),
            },
        )
        .await
        .unwrap();
    }
}
