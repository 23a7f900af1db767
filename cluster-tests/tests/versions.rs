//! Releases after one another: the directory that the one before left, and an entry that this one can't read.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use cluster_tests::binary;
use cluster_tests::cluster::{Cli, Workspace};
use cluster_tests::faults::{self, process};
use cluster_tests::report::Progress;
use cluster_tests::{traffic, wait};
use nix::sys::signal::Signal;
use security::{Ca, Identity, Role};
use serde_json::Value;
use tokio::process::Child;
use tokio::test;

use crate::bring_up::free_network;
use crate::data_dirs::{copied, elsewhere};
use crate::site::{Site, assert_succeeded, turn};
use crate::wal;

/// What release 0.1.0 left: see `scripts/previous-data-directory`.
const DIRECTORY: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/golden/v0.1.0/data-directory.txt"
);

/// For a leader, an agent, or the version.
const READY: Duration = Duration::from_secs(60);
/// For an orderly end.
const STOPPED: Duration = Duration::from_secs(20);

/// A controller on the directory of the release before, and those who use it.
struct Heir {
    workspace: Workspace,
    progress: Progress,
    cli: Cli,
    host: String,
    cluster_id: String,
    servers: Vec<Child>,
}

impl Heir {
    fn unpack() -> Heir {
        let workspace = Workspace::create("previous").unwrap();
        let data = workspace.path().join("c1");
        fs::create_dir(&data).unwrap();
        let unpacked = std::process::Command::new("sh")
            .args([
                "-c",
                "base64 -d \"$1\" | tar -C \"$2\" -xJ",
                "sh",
                DIRECTORY,
            ])
            .arg(&data)
            .status()
            .unwrap();
        assert!(unpacked.success(), "tar, xz and base64 are needed");
        let node = fs::read(data.join("node.json")).unwrap();
        let node: Value = serde_json::from_slice(&node).unwrap();
        let program = workspace.path().join("quorate");
        std::os::unix::fs::symlink(binary::find().unwrap(), &program).unwrap();
        let context = workspace.path().join("context.toml");
        let heir = Heir {
            cli: Cli::new(&program, &context, workspace.path()),
            progress: Progress::new("previous"),
            host: format!("{}1", free_network()),
            cluster_id: node["cluster_id"].as_str().unwrap().to_owned(),
            servers: Vec::new(),
            workspace,
        };
        heir.make_identities();
        heir
    }

    /// Those of then would have run out one day; the log knows names only.
    fn make_identities(&self) {
        let root = self.workspace.path();
        let ca = Ca::create(&self.cluster_id).unwrap();
        ca.save(&root.join("c1/ca")).unwrap();
        let host = [self.host.clone()];
        for (role, id, names, into) in [
            (Role::Controller, "c1", &host[..], "c1/identity"),
            (Role::Agent, "worker", &[], "worker/identity"),
            (Role::Client, "admin", &[], "admin"),
        ] {
            let identity = Identity::new(ca.cluster(), role, id).unwrap();
            let key = ca.issue(&identity, names, security::CERTIFICATE_VALIDITY);
            key.unwrap().save(&root.join(into), ca.pem()).unwrap();
        }
        let context = format!(
            "addresses = [\"{}:7400\"]\nca = \"admin/ca.pem\"\ncert = \"admin/cert.pem\"\nkey = \"admin/key.pem\"\n",
            self.host
        );
        fs::write(root.join("context.toml"), context).unwrap();
    }

    fn path(&self, name: &str) -> String {
        self.workspace
            .path()
            .join(name)
            .to_string_lossy()
            .into_owned()
    }

    fn serve(&mut self, name: &str, arguments: &[&str]) {
        let log = fs::File::create(self.path(&format!("{name}.log"))).unwrap();
        let mut command = self.cli.command(arguments);
        command.stdout(Stdio::null()).stderr(log);
        self.servers.push(command.spawn().unwrap());
    }

    async fn start(&mut self) {
        let (data, host) = (self.path("c1"), self.host.clone());
        self.serve(
            "c1",
            &["controller", "run", "--data-dir", &data, "--listen", &host],
        );
        self.until("a leader", |status| status.contains("leader c1"))
            .await;
    }

    async fn until(&self, what: &str, holds: impl Fn(&str) -> bool) {
        let reached = wait::until(what, READY, || async {
            let done = self.cli.run(&["cluster", "status"]).await;
            let done = done.map_err(|error| error.to_string())?;
            let text = format!("{}{}", done.text(), done.stderr);
            if holds(&text) { Ok(()) } else { Err(text) }
        });
        if let Err(error) = reached.await {
            let log = fs::read_to_string(self.path("c1.log")).unwrap();
            panic!("{error}\n{log}");
        }
    }

    async fn task(&self, id: &str) -> Value {
        self.cli.json(&["task", "get", id]).await.unwrap()
    }

    async fn stop(&mut self) {
        for mut child in self.servers.drain(..).rev() {
            let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap();
            process::send(pid, Signal::SIGTERM).unwrap();
            let ended = tokio::time::timeout(STOPPED, child.wait()).await;
            assert!(ended.expect("an orderly end").unwrap().success());
        }
    }
}

/// Found as it was left: in memory, in the archive, in the queue.
async fn assert_all_is_there(heir: &Heir) {
    let greeting = heir.task("t1").await;
    assert_eq!(
        (&greeting["name"], &greeting["state"]),
        (&"greeting".into(), &"succeeded".into())
    );
    assert_eq!(greeting["result"]["stdout"], "hello\n");
    for (id, state) in [("t2", "failed"), ("t3", "queued"), ("t4", "cancelled")] {
        assert_eq!(heir.task(id).await["state"], state, "{id}");
    }
    let last = heir.task("t95").await;
    assert_eq!(
        (&last["name"], &last["result"]["stdout"]),
        (&"last".into(), &"bye\n".into())
    );
    let listed = heir
        .cli
        .json(&["task", "list", "--limit", "1000"])
        .await
        .unwrap();
    assert_eq!(listed["items"].as_array().unwrap().len(), 95);
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn the_data_directory_of_the_release_before_opens_and_the_state_version_rises() {
    let _turn = turn().await;
    let mut heir = Heir::unpack();
    heir.start().await;
    assert_all_is_there(&heir).await;
    let agents = heir.cli.json(&["agent", "list"]).await.unwrap();
    assert_eq!(agents["items"][0]["id"], "worker");
    let get = [
        "task",
        "submit",
        "--name",
        "greeting",
        "--request-id",
        "greeting",
        "-o",
        "quiet",
        "--",
    ];
    let again = [&get[..], &["echo", "hello"]].concat();
    let known = heir.cli.expect(&again).await.unwrap();
    assert_eq!(known.text().trim(), "t1", "its request id is known");
    heir.until("version 2", |status| status.contains("state version 2"))
        .await;
    heir.progress.say("the version rose");

    let (data, host) = (heir.path("worker"), heir.host.clone());
    let agent = ["agent", "run", "--controller", &host, "--data-dir", &data];
    heir.serve("worker", &[&agent[..], &["--label", "zone=moon"]].concat());
    heir.cli
        .expect(&["agent", "uncordon", "worker"])
        .await
        .unwrap();
    let new = heir
        .cli
        .expect(&["task", "run", "--", "echo", "new"])
        .await
        .unwrap();
    assert_eq!(new.text(), "new\n");
    heir.cli.expect(&["task", "wait", "t3"]).await.unwrap();
    heir.stop().await;

    heir.start().await;
    heir.until("version 2", |status| status.contains("state version 2"))
        .await;
    assert_eq!(heir.task("t3").await["state"], "succeeded");
    assert_eq!(heir.task("t1").await["result"]["stdout"], "hello\n");
    heir.stop().await;
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_can_not_be_decoded_stops_its_controller_and_the_others_go_on() {
    let site = Site::start("undecodable", |options| options.agents(1)).await;
    for _ in 0..3 {
        let task = site.submit(traffic::process(["true".to_owned()])).await;
        assert_succeeded(&site.wait(task).await);
    }
    site.converged().await;
    let id = site.a_follower().await;
    faults::kill(&site.cluster, id).await.unwrap();
    let member = site.cluster.member(id).unwrap();
    let copy = copied(&site, &member);
    let index = wal::make_last_entry_unreadable(&copy.join("log"));
    let done = site.run_argv(&elsewhere(&member, &copy)).await;
    assert_eq!(done.code, Some(2), "{}", done.stderr);
    let error = done.stderr.lines().find(|line| line.starts_with("error: "));
    let error = error.expect("one line that says why");
    for part in [
        &format!("entry {index} can't be decoded"),
        "format 9 is not one that this release reads (it reads up to 1)",
        "run the release that wrote it, or a later one, on this data directory as it is",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert!(!done.stderr.contains("panicked"), "{}", done.stderr);
    site.progress.say(error);
    let task = site.submit(traffic::process(["true".to_owned()])).await;
    assert_succeeded(&site.wait(task).await);

    // Nothing was lost by it: with the entry as it was, the member goes on.
    site.restart(id).await;
    site.converged().await;
}
