//! Ctrl-C at the command line, at moments that a person would choose and at others.

use std::fs::{self, File};
use std::process::Stdio;
use std::time::{Duration, Instant};

use cluster_tests::cluster::{finish, interrupt};
use cluster_tests::faults::process;
use cluster_tests::traffic;
use cluster_tests::wait;
use rand::Rng;
use tokio::io::AsyncReadExt;
use tokio::test;
use wire::v1::TaskState;

use crate::site::{PATIENCE, Site, assert_succeeded};

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_cancels_a_run_and_only_leaves_a_wait() {
    let site = Site::start("interrupts", |options| options).await;
    let cli = site.cluster.cli();

    let mut run = cli
        .start(&["task", "run", "--", "sh", "-c", "echo begun; sleep 7003.5"])
        .unwrap();
    let mut stdout = run.stdout.take().unwrap();
    let mut begun = [0; 6];
    stdout.read_exact(&mut begun).await.unwrap();
    assert_eq!(&begun, b"begun\n");
    interrupt(&run).unwrap();
    let ended = finish("task run".to_owned(), run).await.unwrap();
    assert_eq!(ended.code, Some(130), "{}", ended.stderr);
    assert_eq!(process::marked("7003.5"), [0; 0]);
    site.progress
        .say(format!("the run was cancelled in {:.1?}", ended.took));

    let task = site.submit(traffic::process(["sleep", "7004.5"])).await;
    site.until_running(task).await;
    let wait = cli.start(&["task", "wait", &format!("t{task}")]).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    interrupt(&wait).unwrap();
    let ended = finish("task wait".to_owned(), wait).await.unwrap();
    assert_eq!(ended.code, Some(130), "{}", ended.stderr);
    assert_eq!(site.get(task).await.state(), TaskState::Running);
    site.caller.cancel(task, PATIENCE).await.unwrap();
    site.wait(task).await;
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_ctrl_c_in_a_run_cancels_and_the_second_leaves_it_and_says_which_task() {
    let site = Site::start("detached", |options| options.agents(1)).await;
    let gate = site.cluster.scratch().join("gate");
    // It hears the cancel, and takes its time over it.
    let script = "trap '' TERM; echo begun >&2; until [ -e \"$0\" ]; do sleep 0.05; done";
    let stderr = site.cluster.scratch().join("run.err");
    let said = || fs::read_to_string(&stderr).unwrap();
    let path = gate.to_string_lossy();
    let run = site
        .cluster
        .cli()
        .command(["task", "run", "--", "sh", "-c", script, &path])
        .stderr(Stdio::from(File::create(&stderr).unwrap()))
        .spawn()
        .unwrap();
    let until_said = |words: &'static str| {
        wait::until_now(words, PATIENCE, move || match said().contains(words) {
            true => Ok(()),
            false => Err(said()),
        })
    };
    until_said("begun\n").await.unwrap();
    interrupt(&run).unwrap();
    until_said("cancelling t1; Ctrl-C again detaches\n")
        .await
        .unwrap();
    interrupt(&run).unwrap();
    let ended = finish("task run".to_owned(), run).await.unwrap();
    assert_eq!((ended.code, ended.text().as_str()), (Some(130), ""));
    let last = said().lines().last().unwrap().to_owned();
    assert_eq!(
        last,
        "detached from t1; it may still run: `quorate task wait t1`"
    );
    site.progress.say(last);

    // However soon the second one came, the first one counts.
    let task = site.get(1).await;
    assert!(task.cancel_requested, "{task:?}");
    site.until_running(1).await;
    fs::write(&gate, "").unwrap();
    assert_eq!(site.wait(1).await.state(), TaskState::Cancelled);
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_in_the_middle_of_a_submit_leaves_a_task_or_none() {
    const ROUNDS: u32 = 25;
    let site = Site::start("odd-moments", |options| options).await;
    let cli = site.cluster.cli();
    // How long one takes here, so that the moments lie before, in and after everything it does.
    let begun = Instant::now();
    cli.expect(&["task", "submit", "--", "true"]).await.unwrap();
    let usual = begun.elapsed();
    let (mut accepted, mut interrupted) = (0, 0);
    for round in 0..ROUNDS {
        let request = format!("odd-{round}");
        let arguments = [
            "task",
            "submit",
            "-o",
            "quiet",
            "--request-id",
            &request,
            "--",
            "echo",
            "once",
        ];
        let submit = cli.command(arguments).stdin(Stdio::null()).spawn().unwrap();
        let moment = usual.mul_f64(rand::rng().random_range(0.0..1.5));
        tokio::time::sleep(moment).await;
        let sent = interrupt(&submit).is_ok();
        let ended = finish("task submit".to_owned(), submit).await.unwrap();
        // By the signal itself where it came before anybody could listen for it.
        assert!(
            matches!(ended.code, Some(0 | 130) | None),
            "after {moment:?}: {:?} {}",
            ended.code,
            ended.stderr
        );
        interrupted += u32::from(sent && ended.code != Some(0));
        // Asking again with the same id gives the task, whether there was one or not.
        let again = [
            "task",
            "submit",
            "--request-id",
            &request,
            "--",
            "echo",
            "once",
        ];
        let task = cli.json(&again).await.unwrap();
        if ended.code == Some(0) {
            accepted += 1;
            assert_eq!(ended.text().trim(), task["id"], "round {round}");
        }
        let id = task["id"].as_str().unwrap()[1..].parse().unwrap();
        let done = site.wait(id).await;
        assert_succeeded(&done);
        assert_eq!(done.attempt, 1);
    }
    site.progress.say(format!(
        "{ROUNDS} submits: {accepted} accepted, {interrupted} interrupted"
    ));
    let list = wait::until("the list", PATIENCE, || {
        cli.json(&["task", "list", "--limit", "1000"])
    });
    assert_eq!(
        list.await.unwrap()["items"].as_array().unwrap().len(),
        1 + ROUNDS as usize
    );
}
