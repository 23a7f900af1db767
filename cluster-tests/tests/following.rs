//! Commands that pass a task's output on, while the controllers that serve them die.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use cluster_tests::cluster::{Completed, finish};
use cluster_tests::faults::{self, sockets};
use cluster_tests::wait;
use tokio::process::Child;
use tokio::test;
use wire::v1::TaskState;

use crate::site::{PATIENCE, Site};

/// Lines that have to come between two faults, so that each meets a stream that flows.
const FLOWING: usize = 20;

/// Counts on stdout and on stderr until there is a file `$0`; then it says how far it came, and fails.
const SCRIPT: &str = "i=0; until [ -e \"$0\" ]; do i=$((i+1)); echo \"out $i\"; echo \"err $i\" >&2; \
                      sleep 0.02; done; echo \"the end after $i\"; exit 7";

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn output_is_whole_in_order_and_once_though_follower_and_leader_die_under_it() {
    let site = Site::start("following", |options| options).await;
    let gate = site.cluster.scratch().join("gate");
    let leader = site.cluster.leader().await.unwrap();
    let layout = site.cluster.layout().unwrap();
    let address = |id: &str| layout.controller(id).unwrap().grpc.clone();
    let follower = if leader == "c1" { "c2" } else { "c1" };

    let argv = ["sh", "-c", SCRIPT, &gate.to_string_lossy()].map(str::to_owned);
    let words = ["task", "run", "--propagate-exit", "--"].map(str::to_owned);
    let run = Follower::start(
        &site,
        "run",
        &first(&site, &leader),
        words.iter().chain(&argv),
    );
    run.until_more(FLOWING).await;
    let list = site.cluster.cli().json(&["task", "list"]).await.unwrap();
    let id = list["items"][0]["id"].as_str().unwrap().to_owned();
    let words = ["task", "logs", "-f", &id].map(str::to_owned);
    let logs = Follower::start(&site, "logs", &first(&site, follower), words.iter());
    logs.until_more(FLOWING).await;

    logs.must_hang_on(&address(follower));
    faults::kill(&site.cluster, follower).await.unwrap();
    site.progress
        .say(format!("{follower} killed, from which `task logs -f` read"));
    logs.until_more(FLOWING).await;
    run.until_more(FLOWING).await;
    site.restart(follower).await;

    run.must_hang_on(&address(&leader));
    faults::kill(&site.cluster, &leader).await.unwrap();
    site.progress.say(format!(
        "{leader} killed, the leader, from which `task run` read"
    ));
    run.until_more(FLOWING).await;
    logs.until_more(FLOWING).await;

    fs::write(&gate, "").unwrap();
    let (ran, read) = (run.end().await, logs.end().await);
    assert_eq!(ran.code, Some(7), "{}", ran.stderr);
    assert_eq!(read.code, Some(0), "{}", read.stderr);
    let lines = assert_whole(&ran);
    assert_eq!(assert_whole(&read), lines);
    site.progress.say(format!("{lines} lines came, each once"));
    let task = site.wait(id[1..].parse().unwrap()).await;
    assert_eq!((task.state(), task.attempt), (TaskState::Failed, 1));
}

/// A context that asks this controller first.
fn first(site: &Site, id: &str) -> PathBuf {
    let context = site.cluster.context().unwrap();
    let layout = site.cluster.layout().unwrap();
    let mut controllers = layout.controllers;
    controllers.sort_by_key(|one| one.id != id);
    let addresses: Vec<String> = controllers.into_iter().map(|one| one.grpc).collect();
    let text = format!(
        "addresses = {addresses:?}\nca = {:?}\ncert = {:?}\nkey = {:?}\n",
        context.ca, context.cert, context.key
    );
    let path = site.cluster.scratch().join(format!("{id}-first.toml"));
    fs::write(&path, text).unwrap();
    path
}

/// A command whose output can be looked at while it runs.
struct Follower {
    name: &'static str,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Follower {
    fn start<'a>(
        site: &Site,
        name: &'static str,
        context: &Path,
        arguments: impl Iterator<Item = &'a String>,
    ) -> Follower {
        let file = |stream: &str| site.cluster.scratch().join(format!("{name}.{stream}"));
        let (stdout, stderr) = (file("out"), file("err"));
        let cli = site.cluster.cli().with_context(context);
        let child = cli
            .command(arguments)
            .stdout(Stdio::from(File::create(&stdout).unwrap()))
            .stderr(Stdio::from(File::create(&stderr).unwrap()))
            .spawn()
            .unwrap();
        Follower {
            name,
            child,
            stdout,
            stderr,
        }
    }

    fn lines(&self) -> usize {
        fs::read_to_string(&self.stdout).unwrap().lines().count()
    }

    async fn until_more(&self, more: usize) {
        let wanted = self.lines() + more;
        let what = format!("{more} more lines of `task {}`", self.name);
        wait::until_now(&what, PATIENCE, || match self.lines() {
            lines if lines >= wanted => Ok(()),
            lines => Err(format!("{} are missing", wanted - lines)),
        })
        .await
        .unwrap();
    }

    /// INVALID where it is not connected to the controller that is about to die.
    fn must_hang_on(&self, address: &str) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        let peers = sockets::peers(pid);
        assert!(
            peers.iter().any(|peer| peer == address),
            "INVALID: `task {}` is connected to {peers:?}, not to {address}",
            self.name
        );
    }

    async fn end(self) -> Completed {
        let ended = finish(format!("task {}", self.name), self.child).await;
        Completed {
            stdout: fs::read(&self.stdout).unwrap(),
            stderr: fs::read_to_string(&self.stderr).unwrap(),
            ..ended.unwrap()
        }
    }
}

/// Gives how often it counted.
fn assert_whole(done: &Completed) -> usize {
    let lines = done.stderr.lines().count();
    let numbered = |word: &str| {
        (1..=lines)
            .map(|at| format!("{word} {at}\n"))
            .collect::<String>()
    };
    assert_eq!(done.stderr, numbered("err"), "{}", done.command);
    let end = format!("the end after {lines}\n");
    assert_eq!(done.text(), numbered("out") + &end, "{}", done.command);
    lines
}
