//! Controllers that die together, hang, or lose their disk.

use std::fs;
use std::time::Duration;

use cluster_tests::checkers;
use cluster_tests::cluster;
use cluster_tests::faults::{self, process};
use cluster_tests::traffic;
use cluster_tests::wait;
use nix::sys::signal::Signal;
use security::Role;
use tokio::test;
use tonic::Code;
use wire::v1;
use wire::v1::tasks_client::TasksClient;

use crate::site::{PATIENCE, Site, assert_succeeded};

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn all_controllers_killed_at_once_come_back_with_everything() {
    let site = Site::start("all-killed", |options| options).await;
    let load = site.flowing_load(8).await;
    site.until_more(&load, 50).await;
    let ids: Vec<String> = site
        .cluster
        .layout()
        .unwrap()
        .controllers
        .into_iter()
        .map(|one| one.id)
        .collect();
    faults::kill_together(&site.cluster, &ids).await.unwrap();
    site.progress
        .say(format!("{} killed at once", ids.join(", ")));
    for id in &ids {
        site.cluster.restart(id).await.unwrap();
    }
    site.cluster.until_whole().await.unwrap();
    site.until_more(&load, 50).await;
    site.judge(load, 100).await;
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_leader_is_replaced_and_never_answers_from_the_past() {
    let site = Site::start("stopped-leader", |options| options).await;
    let load = site.flowing_load(4).await;
    let leader = site.cluster.leader().await.unwrap();
    let address = site
        .cluster
        .layout()
        .unwrap()
        .controller(&leader)
        .unwrap()
        .grpc
        .clone();
    let pid = faults::stop(&site.cluster, &leader).await.unwrap();
    let others: Vec<String> = site
        .cluster
        .addresses()
        .unwrap()
        .into_iter()
        .filter(|other| *other != address)
        .collect();
    let caller = traffic::Caller::new(&others, &site.tls);
    let request = traffic::submit(traffic::process(["echo", "decided without you"]));
    let decided = caller
        .submit(&request, PATIENCE)
        .await
        .unwrap()
        .task
        .unwrap()
        .id;
    site.progress
        .say(format!("{leader} stopped; the others accepted t{decided}"));

    faults::continue_stopped(&leader, pid).await.unwrap();
    let mut past = TasksClient::new(cluster::channel(&address, &site.tls));
    // It may say that it can't tell. It may not say that there is no such task.
    let found = wait::until("an answer of the one that was stopped", PATIENCE, || {
        let mut past = past.clone();
        async move {
            match past
                .get(v1::GetTaskRequest {
                    id: decided,
                    stale: false,
                })
                .await
            {
                Ok(reply) => Ok(Ok(reply.into_inner())),
                Err(status) if status.code() == Code::NotFound => Ok(Err(status)),
                Err(status) => Err(status.to_string()),
            }
        }
    })
    .await
    .unwrap();
    assert_eq!(found.unwrap().task.unwrap().id, decided);
    let whole = site.cluster.until_whole().await.unwrap();
    site.progress
        .say(format!("it came back: {}", whole.describe()));
    assert_succeeded(&site.wait(decided).await);
    drop(
        past.get(v1::GetTaskRequest {
            id: decided,
            stale: true,
        })
        .await
        .unwrap(),
    );
    site.judge(load, 20).await;
}

/// What is left of a member's data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// Its log is gone: a disk was cleaned too well.
    Identity,
    /// Everything is gone, and somebody made a new certificate for the old name.
    NewIdentity,
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_data_is_lost_does_not_vote_under_its_old_id() {
    let site = Site::start("lost-data", |options| options.agents(1)).await;
    let leader = site.cluster.leader().await.unwrap();
    let mut others: Vec<String> = site
        .cluster
        .layout()
        .unwrap()
        .controllers
        .into_iter()
        .map(|one| one.id)
        .collect();
    others.retain(|id| *id != leader);
    let [lost, spare] = <[String; 2]>::try_from(others).unwrap();

    faults::kill(&site.cluster, &lost).await.unwrap();
    for left in [Left::Identity, Left::NewIdentity] {
        lose_data(&site, &lost, left);
        // Whether it refuses to start, or runs and is ignored: it must not count.
        let started = site.cluster.restart(&lost).await;
        site.progress.say(match &started {
            Ok(()) => format!("{lost} was started with {left:?}"),
            Err(error) => format!("{lost} was not started with {left:?}: {error}"),
        });
        let ran = started.is_err_and(|error| error.to_string().contains("runs already"));
        assert!(!ran, "INVALID: it was not tried");
        let task = site.submit(traffic::process(["true"])).await;
        assert_succeeded(&site.wait(task).await);

        faults::kill(&site.cluster, &spare).await.unwrap();
        let request = traffic::submit(traffic::process(["true"]));
        let two = site.caller.submit(&request, Duration::from_secs(8)).await;
        let two = two.expect_err("one member and one without a past made a quorum");
        site.progress.say(format!(
            "{leader} alone commits nothing: {}",
            two.status.message()
        ));

        site.cluster.restart(&spare).await.unwrap();
        let accepted = site
            .caller
            .submit(&request, PATIENCE)
            .await
            .unwrap()
            .task
            .unwrap()
            .id;
        assert_succeeded(&site.wait(accepted).await);
        if site.cluster.member(&lost).unwrap().pid.is_some() {
            faults::kill(&site.cluster, &lost).await.unwrap();
        }
    }
}

fn lose_data(site: &Site, id: &str, left: Left) {
    let directory = site.cluster.member(id).unwrap().data_dir;
    assert!(
        directory.join("log").is_dir() || left == Left::NewIdentity,
        "INVALID: there is no log"
    );
    match left {
        Left::Identity => {
            fs::remove_dir_all(directory.join("log")).unwrap();
            fs::remove_file(directory.join("node.json")).unwrap();
            // It has none so early.
            let _removed = fs::remove_dir_all(directory.join("snapshots"));
        }
        Left::NewIdentity => {
            fs::remove_dir_all(&directory).unwrap();
            let layout = site.cluster.layout().unwrap();
            cluster::issue(&layout, Role::Controller, id, &directory.join("identity")).unwrap();
        }
    }
    site.progress
        .say(format!("{id} has lost its data, left is: {left:?}"));
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_member_takes_the_place_of_a_lost_one_with_the_command_line_alone() {
    let site = Site::start("replaced", |options| options.agents(1)).await;
    let cli = site.cluster.cli();
    let layout = site.cluster.layout().unwrap();
    let lost = site.a_follower().await;
    for _ in 0..20 {
        let task = site.submit(traffic::process(["true"])).await;
        assert_succeeded(&site.wait(task).await);
    }
    faults::kill(&site.cluster, lost).await.unwrap();
    fs::remove_dir_all(site.cluster.member(lost).unwrap().data_dir).unwrap();

    // The same machine, so the same addresses; all else is new.
    let data_dir = site.cluster.scratch().join("c4");
    let (identity, ca) = (
        data_dir.join("identity"),
        cluster::authority_directory(&layout).unwrap(),
    );
    let (identity, ca) = (identity.to_string_lossy(), ca.to_string_lossy());
    let mut create = vec!["cert", "create", "--role", "controller", "--id", "c4"];
    create.extend(["--name", "127.0.0.1", "--ca", &ca, "--out", &identity]);
    cli.expect(&create).await.unwrap();
    let data_dir = data_dir.to_string_lossy();
    let listen = layout.controller(lost).unwrap().grpc.clone();
    let others = layout.controllers.iter().filter(|one| one.id != lost);
    let join = others.map(|one| one.grpc.as_str()).collect::<Vec<_>>();
    let join = join.join(",");
    let run = [
        "controller",
        "run",
        "--data-dir",
        &data_dir,
        "--listen",
        &listen,
    ];
    let asking: Vec<&str> = run.into_iter().chain(["--join", &join]).collect();
    let log = || {
        let path = site.cluster.scratch().join("c4.log");
        fs::File::options()
            .create(true)
            .append(true)
            .open(path)
            .unwrap()
    };
    let start = |arguments: &[&str]| cli.command(arguments).stderr(log()).spawn().unwrap();
    let mut child = start(&asking);
    until_like_others(&site, "c4", lost).await;
    site.progress
        .say("c4 is a voter and has applied everything");

    // Three of four are a majority now, and there are no more than three.
    let pid = i32::try_from(child.id().unwrap()).unwrap();
    process::send(pid, Signal::SIGSTOP).unwrap();
    let request = traffic::submit(traffic::process(["true"]));
    let without = site.caller.submit(&request, Duration::from_secs(8)).await;
    let without = without.expect_err("two of four made a quorum");
    site.progress.say(format!(
        "without it nothing commits: {}",
        without.status.message()
    ));
    process::send(pid, Signal::SIGCONT).unwrap();
    let accepted = site.caller.submit(&request, PATIENCE).await.unwrap();
    assert_succeeded(&site.wait(accepted.task.unwrap().id).await);

    let transfer = ["cluster", "transfer-leadership", "c4"];
    cli.expect(&transfer).await.unwrap();
    assert_eq!(site.cluster.leader().await.unwrap(), "c4");
    let task = site.submit(traffic::process(["true"])).await;
    assert_succeeded(&site.wait(task).await);

    // It needs nobody's word any more to come back.
    child.kill().await.unwrap();
    let _running = start(&run);
    until_like_others(&site, "c4", lost).await;
    let task = site.submit(traffic::process(["true"])).await;
    assert_succeeded(&site.wait(task).await);
}

/// Waits until a voter has applied what the others have, but for the one that is gone; its state is theirs.
async fn until_like_others(site: &Site, id: &str, gone: &str) {
    let status = wait::until(&format!("{id} to be like the others"), PATIENCE, || async {
        let status = site.cluster.status().await;
        let status = status.map_err(|error| error.to_string())?;
        let mut living = status.clone();
        living.members.retain(|member| member.id != gone);
        let is_voter = status.member(id).is_some_and(|one| one.role == "voter");
        match is_voter && status.leader().is_some() && checkers::is_converged(&living) {
            true => Ok(living),
            false => Err(status.describe()),
        }
    })
    .await
    .unwrap();
    assert_eq!(status.members.len(), 3);
    assert_eq!(checkers::check_hashes([&status]), []);
}
