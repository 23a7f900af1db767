//! Two clusters that are mixed up: nobody of one gets into the other, and each is told why.

use std::fs;
use std::path::Path;
use std::time::Duration;

use cluster_tests::cluster::{self, Cluster, Completed, Options, finish};
use cluster_tests::report::Progress;
use cluster_tests::traffic;
use security::Role;
use tokio::process::Command;
use tokio::test;
use tonic::Code;
use wire::v1;
use wire::v1::tasks_client::TasksClient;

use crate::site::Site;

/// For a process that has to refuse: it does so at once, or hangs.
const REFUSED: Duration = Duration::from_secs(15);

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_of_another_cluster_gets_in() {
    let ours = Site::start("ours", |options| options.agents(1)).await;
    let small = Options {
        controllers: 1,
        ..Options::new("theirs").agents(1)
    };
    let theirs = Cluster::start(small).await.unwrap();
    let (us, them) = (ours.cluster.layout().unwrap(), theirs.layout().unwrap());
    assert_ne!(us.cluster_id, them.cluster_id);
    let before = ours.converged().await;

    // A client, with the binary and with a bare connection.
    let mixed = mixed_context(&ours.cluster, &theirs);
    let asked = ours
        .cluster
        .cli()
        .with_context(&mixed)
        .run(&["task", "list"])
        .await
        .unwrap();
    assert_refused(&asked, &ours.progress, "a client");
    let tls = cluster::grpc_tls(&theirs.credentials().unwrap()).unwrap();
    let mut client = TasksClient::new(cluster::channel(&us.controllers[0].grpc, &tls));
    let status = client
        .list(v1::ListTasksRequest::default())
        .await
        .unwrap_err();
    assert!(
        matches!(
            status.code(),
            Code::Unavailable | Code::Unknown | Code::Unauthenticated
        ),
        "{status}"
    );

    // An agent of theirs that was pointed at us.
    let stranger = ours.cluster.scratch().join("stranger-agent");
    cluster::issue(&them, Role::Agent, "a9", &stranger.join("identity")).unwrap();
    let addresses = ours.cluster.addresses().unwrap().join(",");
    let said = run_briefly(
        &ours.cluster,
        &["agent", "run", "--id", "a9", "--controller", &addresses],
        &stranger,
    )
    .await;
    assert_names_the_reason(&said, &ours.progress, "an agent");

    // A controller of theirs that asks to join us.
    let stranger = ours.cluster.scratch().join("stranger-controller");
    cluster::issue(&them, Role::Controller, "c9", &stranger.join("identity")).unwrap();
    let said = run_briefly(
        &ours.cluster,
        &[
            "controller",
            "run",
            "--id",
            "c9",
            "--listen",
            "127.0.0.1:19970",
            "--join",
            &addresses,
        ],
        &stranger,
    )
    .await;
    assert_names_the_reason(&said, &ours.progress, "a controller");

    let after = ours.cluster.until_whole().await.unwrap();
    assert_eq!(after.members.len(), 3);
    assert_eq!((after.term, after.leader), (before.term, before.leader));
    let agents = ours.cluster.cli().json(&["agent", "list"]).await.unwrap();
    assert_eq!(agents["items"].as_array().unwrap().len(), 1, "{agents}");
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_opens_only_what_its_role_may() {
    let site = Site::start("roles", |options| options.agents(0)).await;
    let layout = site.cluster.layout().unwrap();
    // An agent's certificate submits nothing.
    let directory = site.cluster.scratch().join("agent-identity");
    let agent = cluster::issue(&layout, Role::Agent, "a7", &directory).unwrap();
    let tls = cluster::grpc_tls(&agent).unwrap();
    let mut client = TasksClient::new(cluster::channel(&layout.controllers[0].grpc, &tls));
    let refused = client
        .submit(traffic::submit(traffic::process(["true"])))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    // The peers' port speaks to no client.
    let admin = cluster::grpc_tls(&site.cluster.credentials().unwrap()).unwrap();
    let mut peer = TasksClient::new(cluster::channel(&layout.controllers[0].raft, &admin));
    let refused = peer
        .list(v1::ListTasksRequest::default())
        .await
        .unwrap_err();
    assert!(
        matches!(refused.code(), Code::Unavailable | Code::Unknown),
        "{refused}"
    );
    site.progress.say(format!("refused: {refused}"));
}

/// Their certificate, our addresses.
fn mixed_context(ours: &Cluster, theirs: &Cluster) -> std::path::PathBuf {
    let context = theirs.context().unwrap();
    let addresses: Vec<String> = ours
        .addresses()
        .unwrap()
        .iter()
        .map(|address| format!("\"{address}\""))
        .collect();
    let text = format!(
        "addresses = [{}]\nca = {:?}\ncert = {:?}\nkey = {:?}\n",
        addresses.join(", "),
        context.ca,
        context.cert,
        context.key
    );
    let path = ours.scratch().join("mixed.toml");
    fs::write(&path, text).unwrap();
    path
}

/// Runs a process that has no business here for a while, or until it gives up; what it said.
async fn run_briefly(cluster: &Cluster, arguments: &[&str], data_dir: &Path) -> Completed {
    let mut command: Command = cluster.cli().command(arguments);
    let child = command.arg("--data-dir").arg(data_dir).spawn().unwrap();
    let pid = i32::try_from(child.id().unwrap()).unwrap();
    let ended = tokio::spawn(finish(arguments.join(" "), child));
    let stop = tokio::time::sleep(REFUSED);
    tokio::pin!(ended, stop);
    tokio::select! {
        ended = &mut ended => return ended.unwrap().unwrap(),
        () = stop => {}
    }
    cluster_tests::faults::process::send(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    ended.await.unwrap().unwrap()
}

fn assert_refused(done: &Completed, progress: &Progress, who: &str) {
    assert_ne!(done.code, Some(0));
    assert_names_the_reason(done, progress, who);
}

/// Somewhere it has to say that this is another cluster, or another authority.
fn assert_names_the_reason(done: &Completed, progress: &Progress, who: &str) {
    let said = format!("{}{}", done.stderr, done.text()).to_lowercase();
    let words = [
        "another cluster",
        "other cluster",
        "not issued by",
        "certificate",
        "cluster",
    ];
    assert!(
        words.iter().any(|word| said.contains(word)),
        "{who} was not told why: {said}"
    );
    let line = done
        .stderr
        .lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .unwrap_or_default();
    progress.say(format!(
        "{who}: {}",
        line.chars().take(160).collect::<String>()
    ));
}
