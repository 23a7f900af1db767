//! Bad input: each kind is a clear refusal with the right exit code, and changes nothing.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use cluster_tests::cluster::{Completed, Workspace, finish};
use cluster_tests::faults;
use cluster_tests::report::Progress;
use serde_json::Value;
use tokio::test;

use crate::site::{Site, assert_succeeded, with};

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_usage_is_refused_in_one_line_and_changes_nothing() {
    let site = Site::start("wrong-usage", |options| options.agents(1)).await;
    let big = "x".repeat(100_000);
    let env: Vec<String> = ["A", "B", "C"]
        .iter()
        .map(|name| format!("{name}={big}"))
        .collect();
    let cases: Vec<(Vec<&str>, &str)> = vec![
        (vec!["--no-such-flag"], "--no-such-flag"),
        (
            vec!["task", "submit", "--no-such-flag", "--", "true"],
            "--no-such-flag",
        ),
        (vec!["task", "frobnicate"], "frobnicate"),
        (vec!["task", "submit"], "command"),
        (
            vec!["task", "submit", "--timeout", "soon", "--", "true"],
            "soon",
        ),
        (
            vec!["task", "submit", "--require", "a in", "--", "true"],
            "at character 5",
        ),
        (
            vec!["task", "submit", "--require", "zone=größe in", "--", "true"],
            "at character 11",
        ),
        (
            vec![
                "task",
                "submit",
                "--at-most-once",
                "--retries",
                "2",
                "--",
                "true",
            ],
            "exclude",
        ),
        (
            vec![
                "task", "submit", "--env", &env[0], "--env", &env[1], "--env", &env[2], "--",
                "true",
            ],
            "262144",
        ),
        (vec!["task", "get", "seventeen"], "seventeen"),
    ];
    for (arguments, part) in cases {
        let done = site.cluster.cli().run(&arguments).await.unwrap();
        assert_one_line(&done, 1, part);
    }
    let missing = site
        .cluster
        .cli()
        .run(&["task", "get", "t999"])
        .await
        .unwrap();
    assert_one_line(&missing, 2, "t999");
    let json = site
        .cluster
        .cli()
        .run(&["task", "get", "t999", "-o", "json"])
        .await
        .unwrap();
    let error: Value = serde_json::from_str(&json.stderr).unwrap();
    assert_eq!(error["error"]["code"], "no_such_task", "{error}");
    let list = site.cluster.cli().json(&["task", "list"]).await.unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), 0);
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_context_is_refused_with_its_reason() {
    let site = Site::start("wrong-context", |options| options.agents(0)).await;
    let context = site.cluster.context().unwrap();
    let other = security::Ca::create("elsewhere").unwrap();
    let ca = site.cluster.scratch().join("other-ca.pem");
    fs::write(&ca, other.pem()).unwrap();
    let write = |name: &str, addresses: &str, ca: &Path, cert: &Path| {
        let path = site.cluster.scratch().join(name);
        let key = &context.key;
        let text =
            format!("addresses = [{addresses}]\nca = {ca:?}\ncert = {cert:?}\nkey = {key:?}\n");
        fs::write(&path, text).unwrap();
        path
    };
    let real = context
        .addresses
        .iter()
        .map(|address| format!("{address:?}"));
    let real = real.collect::<Vec<_>>().join(", ");
    let cases = [
        (write("ca.toml", &real, &ca, &context.cert), 1, "CA"),
        (
            write("cert.toml", &real, &context.ca, Path::new("/no/cert.pem")),
            1,
            "/no/cert.pem",
        ),
        (
            write("none.toml", "", &context.ca, &context.cert),
            1,
            "address",
        ),
        (
            site.cluster.scratch().join("missing.toml"),
            1,
            "missing.toml",
        ),
        // Nobody listens there.
        (
            write("dead.toml", "\"127.0.0.1:9\"", &context.ca, &context.cert),
            4,
            "127.0.0.1:9",
        ),
    ];
    for (path, code, part) in cases {
        let cli = site.cluster.cli().with_context(&path);
        let done = cli.run(&["cluster", "status"]).await.unwrap();
        assert_one_line(&done, code, part);
        site.progress.say(done.stderr.trim_end());
    }
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_a_submit_ends_with_4_and_can_be_asked_again() {
    let site = Site::start("no-quorum", |options| options.agents(1)).await;
    let cli = site.cluster.cli();
    let leader = site.cluster.leader().await.unwrap();
    let others: Vec<String> = ["c1", "c2", "c3"].map(str::to_owned).into();
    let mut dead: Vec<String> = others.into_iter().filter(|id| *id != leader).collect();
    faults::kill_together(&site.cluster, &dead).await.unwrap();

    let arguments = [
        "task",
        "submit",
        "--request-id",
        "once",
        "--",
        "echo",
        "at last",
    ];
    let done = cli.run(&arguments).await.unwrap();
    assert_one_line(&done, 4, "--request-id once");
    // What is missing is a quorum, whichever controller was asked last.
    assert_one_line(&done, 4, "1 of 3 controllers answers");
    site.progress.say(format!(
        "after {:.1?}: {}",
        done.took,
        done.stderr.trim_end()
    ));
    let status = cli.run(&["cluster", "status", "-o", "json"]).await.unwrap();
    let shown: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(shown["stale"], true, "{shown}");

    faults::kill(&site.cluster, &leader).await.unwrap();
    let done = cli.run(&arguments).await.unwrap();
    assert_one_line(&done, 4, "no controller answered");
    assert_one_line(&done, 4, "--request-id once");
    dead.push(leader);
    for id in &dead {
        site.cluster.restart(id).await.unwrap();
    }
    site.cluster.until_whole().await.unwrap();
    let first = cli.json(&arguments).await.unwrap();
    let second = cli.json(&arguments).await.unwrap();
    assert_eq!(first["id"], second["id"]);
    let id = first["id"].as_str().unwrap()[1..].parse().unwrap();
    assert_succeeded(&site.wait(id).await);
    let list = cli.json(&["task", "list"]).await.unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), 1, "{list}");
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_that_cannot_start_says_why_and_harms_nothing() {
    let site = Site::start("cannot-start", |options| options.agents(0)).await;
    let follower = site.a_follower().await;
    let member = site.cluster.member(follower).unwrap();
    let grpc = site
        .cluster
        .layout()
        .unwrap()
        .controller(follower)
        .unwrap()
        .grpc
        .clone();

    // The data directory is in use by the one that runs.
    let elsewhere = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let argv = with(&member.argv, "--listen", &elsewhere.to_string());
    let twice = site.run_argv(&argv).await;
    assert_says(&twice, &site.progress, &["another process", "LOCK"]);
    faults::kill(&site.cluster, follower).await.unwrap();

    let taken = TcpListener::bind(&grpc).unwrap();
    let port = site.run_argv(&member.argv).await;
    assert_says(&port, &site.progress, &[&grpc]);
    drop(taken);

    // Directories that are another's, in part or whole.
    let other = if follower == "c3" { "c2" } else { "c3" };
    let foreign = site.cluster.member(other).unwrap().data_dir;
    let copy = site.cluster.scratch().join("foreign");
    fs::create_dir_all(copy.join("identity")).unwrap();
    let take = |from: &Path, file: &str| fs::copy(from.join(file), copy.join(file)).unwrap();
    let argv = with(&member.argv, "--data-dir", &copy.to_string_lossy());
    let identity = ["identity/ca.pem", "identity/cert.pem", "identity/key.pem"];
    take(&foreign, "node.json");
    for file in identity {
        take(&foreign, file);
    }
    assert_says(&site.run_argv(&argv).await, &site.progress, &[other]);
    for file in identity {
        take(&member.data_dir, file);
    }
    assert_says(&site.run_argv(&argv).await, &site.progress, &[other]);
    fs::write(copy.join("node.json"), "{ not json").unwrap();
    assert_says(&site.run_argv(&argv).await, &site.progress, &["node.json"]);

    let file = site.cluster.scratch().join("a-file");
    fs::write(&file, "not a directory").unwrap();
    let argv = with(&member.argv, "--data-dir", &file.to_string_lossy());
    assert_says(&site.run_argv(&argv).await, &site.progress, &["a-file"]);

    site.restart(follower).await;
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_settings_are_errors() {
    let site = Site::start("settings", |options| options.agents(0)).await;
    let config = site.cluster.scratch().join("bad.toml");
    fs::write(&config, "[controller]\nheartbaet = \"100ms\"\n").unwrap();
    let path = config.to_string_lossy().into_owned();
    let cases: [&[&str]; 2] = [
        &["config", "validate", "--config", &path],
        &["controller", "run", "--config", &path],
    ];
    for arguments in cases {
        let done = site.cluster.cli().run(arguments).await.unwrap();
        assert_one_line(&done, 1, "heartbaet");
    }
    let mut command = site.cluster.cli().command(["config", "validate"]);
    let child = command.env("QUORATE_AGENT__SLOTZ", "3").spawn().unwrap();
    let done = finish("config validate".to_owned(), child).await.unwrap();
    assert_one_line(&done, 1, "SLOTZ");
    site.progress.say(done.stderr.trim_end());
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn dev_refuses_a_port_in_use() {
    let workspace = Workspace::create("port-in-use").unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let binary = cluster_tests::binary::find().unwrap();
    let context = workspace.path().join("none.toml");
    let cli = cluster_tests::cluster::Cli::new(&binary, &context, workspace.path());
    let directory = workspace.path().join("dev").to_string_lossy().into_owned();
    let port = port.to_string();
    let done = cli
        .run(&["dev", "--dir", &directory, "--base-port", &port])
        .await
        .unwrap();
    assert_one_line(&done, 1, &port);
}

fn assert_says(done: &Completed, progress: &Progress, any: &[&str]) {
    let line = done.stderr.lines().last().unwrap_or_default();
    assert_eq!(done.code, Some(1), "{}: {}", done.command, done.stderr);
    assert!(
        any.iter().any(|part| line.contains(part)),
        "none of {any:?} in {:?}",
        done.stderr
    );
    progress.say(line);
}

/// What, why, next step: on one line of stderr, nothing on stdout.
fn assert_one_line(done: &Completed, code: i32, part: &str) {
    let what = &done.command.chars().take(100).collect::<String>();
    assert_eq!(done.code, Some(code), "{what}: {}", done.stderr);
    assert_eq!(
        done.stderr.trim_end().lines().count(),
        1,
        "{what}: {}",
        done.stderr
    );
    assert!(
        done.stderr.contains(part),
        "{what}: no {part:?} in {}",
        done.stderr
    );
    assert_eq!(done.text(), "", "{what}");
}
