//! The program, as a person starts it: what it prints, what it leaves, and how it ends.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;
use tokio::test;

use crate::site::turn;

fn program() -> PathBuf {
    let directory = std::env::current_exe().expect("it has a path");
    let directory = directory.parent().and_then(std::path::Path::parent);
    directory
        .expect("cargo puts it there")
        .join("cluster-tests")
}

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let told = Command::new(program()).args(arguments).output();
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
