//! Two clusters that are mixed up: nobody of one gets into the other, and each is told why.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use cluster_tests::cluster::{self, Cluster, Options};
use cluster_tests::traffic;
use cluster_tests::wait;
use security::Role;
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
    assert_eq!(asked.code, Some(1), "{}", asked.stderr);
    assert!(names_the_reason(&asked.stderr), "{}", asked.stderr);
    ours.progress
        .say(format!("a client: {}", asked.stderr.trim_end()));
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
    let said = until_it_says_why(
        &ours.cluster,
        &["agent", "run", "--id", "a9", "--controller", &addresses],
        &stranger,
    )
    .await;
    ours.progress.say(format!("an agent: {said}"));

    // A controller of theirs that asks to join us.
    let stranger = ours.cluster.scratch().join("stranger-controller");
    cluster::issue(&them, Role::Controller, "c9", &stranger.join("identity")).unwrap();
    let said = until_it_says_why(
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
    ours.progress.say(format!("a controller: {said}"));

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

/// Runs a process that has no business here, until it has said why it gets nowhere.
async fn until_it_says_why(cluster: &Cluster, arguments: &[&str], data_dir: &Path) -> String {
    let log = data_dir.join("stderr");
    let file = fs::File::create(&log).unwrap();
    let mut command = cluster.cli().command(arguments);
    command
        .arg("--data-dir")
        .arg(data_dir)
        .stdout(Stdio::null())
        .stderr(file);
    let mut child = command.spawn().unwrap();
    let line = wait::until_now("the reason of a refusal", REFUSED, || {
        let said = fs::read_to_string(&log).unwrap_or_default();
        said.lines()
            .find(|line| names_the_reason(line))
            .map(str::to_owned)
            .ok_or(said)
    })
    .await
    .unwrap();
    child.kill().await.unwrap();
    line
}

/// It has to say that this is another cluster, or another authority.
fn names_the_reason(line: &str) -> bool {
    let line = line.to_lowercase();
    ["not issued by the ca", "other cluster"]
        .iter()
        .any(|words| line.contains(words))
}
