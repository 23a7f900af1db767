//! The program, as a person starts it: what it prints, what it leaves, and how it ends.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime};

use cluster_tests::binary::newer_source;
use cluster_tests::faults::process::{Doing, living_in, send};
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::test;

use crate::site::turn;

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let told = Command::new(env!("CARGO_BIN_EXE_cluster-tests"))
        .args(arguments)
        .output();
    let Output {
        status,
        stdout,
        stderr,
    } = told.expect("the build made it");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it writes text");
    (status.code(), text(stdout), text(stderr))
}

#[test]
async fn what_cannot_be_run_is_refused_at_once_with_what_there_is() {
    for (arguments, says) in [
        (&["--scenario", "nonsense"][..], "leader-kill"),
        (&["--nodes", "4"], "3 or 5"),
        (&["--minutes", "0"], "more than 0"),
        (&["--agents", "1"], "2 to"),
    ] {
        let (code, _, stderr) = run(arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(says), "{arguments:?}: {stderr}");
    }
    let (code, stdout, _) = run(&["--list"]);
    assert_eq!(code, Some(0));
    assert!(
        stdout.contains("kill-leader") && stdout.contains("soak"),
        "{stdout}"
    );
}

/// One that can't begin is not one that can't be had here.
#[test]
async fn several_runs_of_which_none_can_begin_are_invalid_and_each_is_told() {
    let mut program = Command::new(env!("CARGO_BIN_EXE_cluster-tests"));
    program.args(["--scenario", "calm", "--minutes", "6", "--seed", "7"]);
    let told = program.env("QUORATE_BIN", "/nonexistent").output();
    let told = told.expect("the build made it");
    let text = String::from_utf8_lossy(&told.stdout);
    assert_eq!(told.status.code(), Some(3), "{text}");
    assert!(
        text.contains("2 INVALID") && text.contains("--seed 8"),
        "{text}"
    );
}

#[test]
async fn a_binary_is_stale_once_a_file_is_newer_that_cargo_lists_for_it() {
    let directory = tempfile::tempdir().expect("there is room");
    let file = |name: &str, age: u64| {
        let path = directory.path().join(name);
        std::fs::write(&path, "").expect("it can be written");
        let at = SystemTime::now() - Duration::from_secs(age);
        let opened = std::fs::File::options().write(true).open(&path);
        let set = opened.and_then(|file| file.set_modified(at));
        set.expect("its time can be set");
        path
    };
    let (binary, lib) = (file("quorate", 50), file("lib.rs", 90));
    let spaced = file("with a space.rs", 90);
    let listed = |path: &Path| path.display().to_string().replace(' ', "\\ ");
    let list = format!(
        "{}: {} {}\n",
        listed(&binary),
        listed(&lib),
        listed(&spaced)
    );
    std::fs::write(directory.path().join("quorate.d"), list).expect("it can be written");
    assert_eq!(newer_source(&binary), None);
    file("with a space.rs", 10);
    assert_eq!(newer_source(&binary), Some(spaced));
    std::fs::remove_file(directory.path().join("quorate.d")).expect("it is there");
    assert_eq!(newer_source(&binary), None, "nothing is known of it");
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn the_seed_comes_first_and_the_verdict_and_the_way_to_do_it_again_last() {
    let _turn = turn().await;
    let reports = tempfile::tempdir().unwrap();
    let directory = reports.path().to_str().unwrap();
    let calm = [
        "--scenario",
        "calm",
        "--minutes",
        "0.07",
        "--seed",
        "7",
        "--report",
        directory,
    ];
    let (code, stdout, stderr) = run(&calm);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert!(stdout.starts_with("seed 7\n"), "{stdout}");
    let again = "cargo run -p cluster-tests -- --scenario calm --seed 7 --minutes 0.07 --nodes 3";
    let last: Vec<&str> = stdout.lines().rev().take(4).collect();
    assert!(last.iter().any(|line| line.contains(again)), "{stdout}");
    let read = || -> Value {
        let json = std::fs::read(reports.path().join("calm-7.json")).unwrap();
        serde_json::from_slice(&json).unwrap()
    };
    let report = read();
    assert_eq!(report["verdict"], "VALID");
    let quorate = report["versions"]["quorate"].as_str().unwrap();
    assert!(quorate.contains("SHA-256"), "{quorate}");
    let page = std::fs::read_to_string(reports.path().join("calm-7.html")).unwrap();
    assert!(page.contains("VALID"));

    let planted = [&calm[..], &["--planted", "epoch-not-the-index"]].concat();
    let (code, stdout, stderr) = run(&planted);
    assert_eq!(code, Some(1), "{stdout}{stderr}");
    assert!(stdout.contains("VIOLATED") && read()["verdict"] == "VIOLATED");
    assert!(stdout.contains("--planted epoch-not-the-index"), "{stdout}");
}

/// Somebody lets each process go on that the run has stopped.
#[test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_whose_faults_have_no_effect_is_invalid_however_well_the_cluster_does() {
    let _turn = turn().await;
    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let reports = place.path().join("reports");
    let mut program = Command::new(env!("CARGO_BIN_EXE_cluster-tests"));
    program.args(["--scenario", "pause-10x", "--minutes", "0.1", "--seed", "7"]);
    program.args(["--report", reports.to_str().unwrap()]);
    program.env("QUORATE_TEST_DIR", place.path());
    let mut program = program.stdout(Stdio::piped()).spawn().unwrap();
    let mut gone_on = 0;
    while program.try_wait().unwrap().is_none() {
        let stopped = living_in(place.path())
            .into_iter()
            .filter(|process| process.doing == Doing::Stopped);
        for process in stopped {
            gone_on += i32::from(send(process.pid, Signal::SIGCONT).is_ok());
        }
        // Late enough for the program to see that it stands, and long before it was to go on.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let told = program.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&told.stdout);
    assert!(gone_on > 0, "{text}");
    assert_eq!(told.status.code(), Some(3), "{text}");
    let report: Value =
        serde_json::from_slice(&std::fs::read(reports.join("pause-10x-7.json")).unwrap()).unwrap();
    assert_eq!(report["verdict"], "INVALID", "{text}");
    let findings = report["findings"].as_array().unwrap();
    let broken = findings
        .iter()
        .map(|it| it["violations"].as_array().unwrap().len());
    assert_eq!(broken.sum::<usize>(), 0, "{text}");
    assert!(text.contains("pause-10x: c"), "which one, and why: {text}");
}
