//! Machines that come in by a token: with one command, once, and to nobody but the cluster that it names.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cluster_tests::cluster::{self, Cluster, finish};
use cluster_tests::wait;
use futures::StreamExt;
use security::{Alpn, Binding, Ca, Clients, Credentials, Identity, JoinToken, OwnKey, Role};
use tokio::process::Child;
use tokio::test;
use wire::client::Settings;
use wire::status::Code;
use wire::v1;

use crate::membership::{free_ports, until_voters};
use crate::shape::items;
use crate::site::{PATIENCE, Site};

/// For a command that has to refuse.
const REFUSED: Duration = Duration::from_secs(15);

async fn token(cluster: &Cluster, more: &[&str]) -> String {
    let mut create = vec!["join-token", "create", "-o", "quiet"];
    create.extend(more);
    let made = cluster.cli().expect(&create).await.unwrap();
    made.text().trim().to_owned()
}

/// Starts a process as a person would on another machine; its log goes to a file beside its directory.
fn start(cluster: &Cluster, dir: &Path, arguments: &[&str]) -> Child {
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(log_of(dir));
    let data_dir = dir.to_string_lossy();
    let command = arguments.iter().copied().chain(["--data-dir", &data_dir]);
    cluster
        .cli()
        .command(command)
        .stderr(log.unwrap())
        .spawn()
        .unwrap()
}

fn log_of(dir: &Path) -> PathBuf {
    dir.with_extension("log")
}

fn said(dir: &Path) -> String {
    fs::read_to_string(log_of(dir)).unwrap_or_default()
}

async fn until_ready(cluster: &Cluster, agent: &str) {
    wait::until(&format!("{agent} to be ready"), PATIENCE, || async {
        let shown = cluster.cli().json(&["agent", "get", agent]).await;
        match shown {
            Ok(shown) if shown["state"] == "ready" => Ok(()),
            Ok(shown) => Err(shown["state"].to_string()),
            Err(error) => Err(error.to_string()),
        }
    })
    .await
    .unwrap();
}

async fn ended(child: Child) -> cluster::Completed {
    let end = tokio::time::timeout(REFUSED, finish("join".to_owned(), child)).await;
    end.expect("it ends by itself").unwrap()
}

/// The one command that makes an agent.
fn agent_run<'a>(secret: &'a str, at: &'a str, id: &'a str) -> [&'a str; 8] {
    [
        "agent",
        "run",
        "--join",
        secret,
        "--controller",
        at,
        "--id",
        id,
    ]
}

async fn until_it_has_the_key(dir: &Path) {
    let key = dir.join("ca/ca.key");
    wait::until_now("it to have the CA's key", PATIENCE, || match key.exists() {
        true => Ok(()),
        false => Err(said(dir)),
    })
    .await
    .unwrap();
}

async fn killed(mut child: Child) {
    child.start_kill().unwrap();
    child.wait().await.unwrap();
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_joins_by_one_command_runs_a_task_and_goes_on_after_a_restart() {
    let site = Site::start("one-command", |options| options.agents(1)).await;
    let ours = &site.cluster;
    let first = ours.addresses().unwrap()[0].clone();
    let secret = token(ours, &["--role", "agent", "--label", "site=berlin"]).await;
    let dir = ours.scratch().join("machine");
    let run = agent_run(&secret, &first, "b1");
    let child = start(ours, &dir, &run);
    until_ready(ours, "b1").await;
    let there = [
        "task",
        "run",
        "--require",
        "site=berlin",
        "--",
        "echo",
        "hello",
    ];
    assert_eq!(ours.cli().expect(&there).await.unwrap().text(), "hello\n");
    let mode =
        std::os::unix::fs::MetadataExt::mode(&fs::metadata(dir.join("identity/key.pem")).unwrap());
    assert_eq!(mode & 0o777, 0o600);

    // The same command again is the same agent, whatever the token is worth by now.
    killed(child).await;
    let id = secret.split('.').nth(1).unwrap();
    ours.cli()
        .expect(&["join-token", "revoke", id])
        .await
        .unwrap();
    let before = fs::read(dir.join("identity/cert.pem")).unwrap();
    let child = start(ours, &dir, &run);
    let log = said(&dir).len();
    wait::until_now("it to say that it has joined", PATIENCE, || {
        match said(&dir).get(log.saturating_sub(1)..) {
            Some(text) if text.contains("has joined already") => Ok(()),
            _ => Err(said(&dir)),
        }
    })
    .await
    .unwrap();
    assert_eq!(fs::read(dir.join("identity/cert.pem")).unwrap(), before);
    assert_eq!(ours.cli().expect(&there).await.unwrap().text(), "hello\n");

    // A list shows the token and never its secret.
    let list = ours
        .cli()
        .expect(&["join-token", "list", "-o", "json"])
        .await
        .unwrap();
    let text = list.text();
    assert!(
        text.contains("revoked") && text.contains("\"b1\""),
        "{text}"
    );
    assert!(!text.contains(secret.split('.').nth(2).unwrap()), "{text}");
    killed(child).await;
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_that_was_cut_short_is_done_again_with_the_same_key_and_by_nobody_else() {
    let site = Site::start("cut-short", |options| options.agents(1)).await;
    let ours = &site.cluster;
    let first = ours.addresses().unwrap()[1].clone();
    let secret = token(ours, &["--role", "agent"]).await;
    let dir = ours.scratch().join("machine");
    let run = agent_run(&secret, &first, "b1");
    let child = start(ours, &dir, &run);
    until_ready(ours, "b1").await;
    killed(child).await;
    // As after a crash between the answer and its file.
    fs::remove_file(dir.join("identity/cert.pem")).unwrap();
    let child = start(ours, &dir, &run);
    until_ready(ours, "b1").await;
    killed(child).await;

    let other = ours.scratch().join("other");
    let run = agent_run(&secret, &first, "b2");
    let refused = ended(start(ours, &other, &run)).await;
    assert_eq!(refused.code, Some(1));
    assert!(
        said(&other).contains("does not accept the join token"),
        "{}",
        said(&other)
    );
    assert!(!other.join("identity/cert.pem").exists());
    let wrong_role = [
        "controller",
        "run",
        "--join",
        &secret,
        "--controller",
        &first,
    ];
    let wrong_role = [&wrong_role[..], &["--listen", "127.0.0.1:0"]].concat();
    let refused = ended(start(ours, &ours.scratch().join("controller"), &wrong_role)).await;
    assert_eq!(refused.code, Some(1));
}

/// One machine's try, repeated for as long as it is only told to wait.
async fn enrol(
    address: String,
    token: JoinToken,
    dir: PathBuf,
    name: String,
) -> Result<String, Code> {
    let key = OwnKey::load_or_create(&dir).unwrap();
    let request = key.request().unwrap();
    let tls = security::pinned_client_config(&token.pin, Alpn::H2).unwrap();
    loop {
        let make = |binding| v1::EnrolRequest {
            token: token.id.clone(),
            role: "agent".to_owned(),
            name: name.clone(),
            proof: token
                .secret
                .prove(Binding(binding), &request)
                .to_vec()
                .into(),
            request: request.clone().into(),
            hosts: Vec::new(),
        };
        match wire::client::enrol(&address, tls.clone(), Settings::default(), make).await {
            Ok(reply) => return Ok(reply.cert_pem),
            Err(failure) if failure.code == Code::Unauthenticated => return Err(failure.code),
            // Too many at once from one address, or an answer that came too late.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn of_fifty_machines_that_race_with_one_token_one_gets_a_certificate() {
    let site = Site::start("race", |options| options.agents(1)).await;
    let ours = &site.cluster;
    let secret: JoinToken = token(ours, &["--role", "agent"]).await.parse().unwrap();
    let addresses = ours.addresses().unwrap();
    let begun = Instant::now();
    let tries = (0..50).map(|number| {
        let address = addresses[number % addresses.len()].clone();
        let dir = ours.scratch().join(format!("machine{number}"));
        tokio::spawn(enrol(address, secret.clone(), dir, format!("m{number}")))
    });
    let tries: Vec<_> = tries.collect();
    let outcomes = tokio::time::timeout(PATIENCE, futures::future::join_all(tries))
        .await
        .unwrap();
    let outcomes: Vec<_> = outcomes.into_iter().map(Result::unwrap).collect();
    let certificates = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    site.progress
        .say(format!("50 tries took {:.1?}", begun.elapsed()));
    assert_eq!(certificates, 1);
    assert!(
        outcomes
            .iter()
            .filter_map(|it| it.as_ref().err())
            .all(|code| *code == Code::Unauthenticated)
    );
    let list = ours.cli().json(&["join-token", "list"]).await.unwrap();
    assert_eq!(
        items(&list)[0]["admitted"].as_array().unwrap().len(),
        1,
        "{list}"
    );
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_wrong_pin_nothing_is_sent() {
    let site = Site::start("rogue", |options| options.agents(1)).await;
    let ours = &site.cluster;
    let secret = token(ours, &["--role", "agent"]).await;
    // It has a CA of the same name, and says that it is a controller.
    let rogue = Ca::create(&ours.layout().unwrap().cluster_id).unwrap();
    let identity = Identity::new(rogue.cluster(), Role::Controller, "c1").unwrap();
    let issued = rogue
        .issue(&identity, &[], Duration::from_secs(3600))
        .unwrap();
    let own = Credentials::from_pem(rogue.pem(), &issued.cert_pem, &issued.key_pem).unwrap();
    let tls = security::server_config(&own, Clients::Optional, Alpn::H2).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut incoming = wire::transport::incoming(listener, tls);
    let shaken = tokio::spawn(async move { incoming.next().await.is_some() });

    let dir = ours.scratch().join("machine");
    let run = agent_run(&secret, &address, "b1");
    let refused = ended(start(ours, &dir, &run)).await;
    assert_eq!(refused.code, Some(1));
    let text = said(&dir);
    assert!(
        text.contains("the key that the token names") && text.contains("nothing was sent"),
        "{text}"
    );
    assert!(
        !shaken.is_finished(),
        "no handshake ended, so no byte of a request came"
    );
    shaken.abort();
    let list = ours.cli().json(&["join-token", "list"]).await.unwrap();
    assert_eq!(items(&list)[0]["uses_left"], 1, "{list}");
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_joins_by_one_command_and_lets_others_in_when_the_first_is_gone() {
    let site = Site::start("fourth", |options| options.agents(1)).await;
    let ours = &site.cluster;
    let known = ours.addresses().unwrap()[1].clone();
    let secret = token(ours, &["--role", "controller", "--validity", "20s"]).await;
    let dir = ours.scratch().join("fourth");
    let listen = format!("127.0.0.1:{}", free_ports());
    let run = [
        "controller",
        "run",
        "--join",
        &secret,
        "--controller",
        &known,
        "--listen",
        &listen,
    ];
    let child = start(ours, &dir, &run);
    until_voters(ours.cli(), &["c1", "c2", "c3", "c4"]).await;
    let joined = Instant::now();
    until_it_has_the_key(&dir).await;
    ours.cli()
        .expect(&[
            "dev",
            "kill",
            "c1",
            "--dir",
            &ours.directory().to_string_lossy(),
        ])
        .await
        .unwrap();

    let secret = token(ours, &["--role", "agent", "--validity", "15s"]).await;
    let machine = ours.scratch().join("machine");
    let agent = agent_run(&secret, &listen, "b1");
    let agent = start(ours, &machine, &agent);
    until_ready(ours, "b1").await;
    let certificate = || fs::read(machine.join("identity/cert.pem")).unwrap();
    let first = certificate();

    // Both outlive the certificates that they came with.
    wait::until_now("the first certificates to be over", PATIENCE, || {
        let left = Duration::from_secs(23).checked_sub(joined.elapsed());
        left.map_or(Ok(()), |left| Err(format!("{left:?} left")))
    })
    .await
    .unwrap();
    assert_ne!(certificate(), first);
    let there = ["cluster", "members", "--addr", &listen];
    ours.cli().expect(&there).await.unwrap();
    killed(agent).await;
    let agent = [
        "agent",
        "run",
        "--data-dir",
        &machine.to_string_lossy(),
        "--controller",
        &listen,
    ];
    let agent = ours.cli().command(agent).spawn().unwrap();
    until_ready(ours, "b1").await;
    site.progress.say(said(&dir));
    killed(agent).await;
    killed(child).await;
}
