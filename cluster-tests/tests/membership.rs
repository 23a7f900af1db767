//! Controllers that come and go while work flows: 3, 5, and 3 again, the leader among those that leave.

use std::fs;
use std::time::Duration;

use cluster_tests::checkers;
use cluster_tests::cluster::{self, Cli, finish};
use cluster_tests::wait;
use security::Role;
use tokio::process::Child;
use tokio::test;

use crate::shape::{assert_refused, items};
use crate::site::{PATIENCE, Site};

/// For a process that was removed to hear of it: others are asked every 3 s.
const HEARD: Duration = Duration::from_secs(30);

/// Starts a controller that joins, as a person would on another machine.
fn join(site: &Site, id: &str, port: u16) -> Child {
    let cli = site.cluster.cli();
    let layout = site.cluster.layout().unwrap();
    let data_dir = site.cluster.scratch().join(id);
    cluster::issue(&layout, Role::Controller, id, &data_dir.join("identity")).unwrap();
    let log = fs::File::create(site.cluster.scratch().join(format!("{id}.log"))).unwrap();
    let data_dir = data_dir.to_string_lossy();
    let listen = format!("127.0.0.1:{port}");
    let known: Vec<_> = layout
        .controllers
        .iter()
        .map(|one| one.grpc.as_str())
        .collect();
    let known = known.join(",");
    let run = [
        "controller",
        "run",
        "--data-dir",
        &data_dir,
        "--listen",
        &listen,
        "--join",
        &known,
    ];
    cli.command(run).stderr(log).spawn().unwrap()
}

/// Three ports in a row that nobody uses.
pub fn free_ports() -> u16 {
    let held = |port| std::net::TcpListener::bind(("127.0.0.1", port)).ok();
    let bases = (20_000..60_000u16).step_by(7);
    let mut free = bases.filter(|base| (0..3).map(|n| held(base + n)).all(|it| it.is_some()));
    free.nth(usize::try_from(std::process::id() % 1_000).unwrap())
        .unwrap()
}

pub async fn until_voters(cli: &Cli, wanted: &[&str]) {
    wait::until(
        &format!("{wanted:?} to be the voters"),
        PATIENCE,
        || async {
            let list = cli
                .json(&["cluster", "members"])
                .await
                .map_err(|error| error.to_string())?;
            let voters = items(&list)
                .iter()
                .filter(|one| one["role"] == "voter" && one["state"] != "unreachable");
            let mut ids: Vec<_> = voters.filter_map(|one| one["id"].as_str()).collect();
            ids.sort_unstable();
            if ids == wanted {
                Ok(())
            } else {
                Err(format!("{ids:?}"))
            }
        },
    )
    .await
    .unwrap();
}

/// Waits for a removed process to end by itself, and gives what it said.
async fn ended(site: &Site, id: &str, mut child: Child) -> String {
    let status = tokio::time::timeout(HEARD, child.wait()).await;
    let status = status.expect("it hears of it").unwrap();
    let said = fs::read_to_string(site.cluster.scratch().join(format!("{id}.log"))).unwrap();
    assert_eq!(status.code(), Some(1), "{said}");
    said
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn from_three_to_five_and_back_under_load_with_nothing_lost() {
    let site = Site::start("three-five-three", |options| options).await;
    let cli = site.cluster.cli();
    let load = site.flowing_load(16).await;
    let c4 = join(&site, "c4", free_ports());
    until_voters(cli, &["c1", "c2", "c3", "c4"]).await;
    let c5 = join(&site, "c5", free_ports());
    until_voters(cli, &["c1", "c2", "c3", "c4", "c5"]).await;
    site.progress.say("five voters");
    site.until_more(&load, 100).await;

    assert_refused(cli, &["cluster", "promote", "c9"], 1, "refused").await;
    assert_refused(cli, &["cluster", "remove", "c9", "--yes"], 1, "refused").await;
    assert_refused(cli, &["cluster", "remove", "c5"], 1, "usage").await;
    assert_refused(cli, &["cluster", "remove", "nobody", "--yes"], 1, "usage").await;
    assert_refused(cli, &["cluster", "transfer-leadership", "c9"], 1, "refused").await;
    let promoted = cli.json(&["cluster", "promote", "c5"]).await.unwrap();
    assert_eq!(
        items(&promoted).len(),
        5,
        "it is a voter already, which is fine"
    );

    // The leader itself, and another at the same moment by somebody else.
    let led = cli
        .json(&["cluster", "transfer-leadership", "c4"])
        .await
        .unwrap();
    assert_eq!(items(&led).len(), 5);
    assert_eq!(site.cluster.leader().await.unwrap(), "c4");
    let remove = |id: &'static str| {
        let command = ["cluster", "remove", id, "--yes"];
        let child = cli.start(&command).unwrap();
        finish(command.join(" "), child)
    };
    let (one, other) = tokio::join!(remove("c4"), remove("c5"));
    for done in [one.unwrap(), other.unwrap()] {
        assert_eq!(done.code, Some(0), "{}: {}", done.command, done.stderr);
    }
    until_voters(cli, &["c1", "c2", "c3"]).await;
    for (id, child) in [("c4", c4), ("c5", c5)] {
        let said = ended(&site, id, child).await;
        assert!(
            said.contains(&format!("{id} was removed from the cluster")),
            "{said}"
        );
        // To say it again is fine, and it does not come back.
        cli.expect(&["cluster", "remove", id, "--yes"])
            .await
            .unwrap();
    }
    site.until_more(&load, 100).await;
    site.judge(load, 300).await;
    let status = site.converged().await;
    assert_eq!(status.members.len(), 3);
    assert_eq!(checkers::check_hashes([&status]), []);
}
