//! A whole agent, driven by controllers that do as a test says: real TLS, real processes, real
//! files.

mod controller;
mod crashes;
mod lease;
mod readers;
mod recovery;
mod sessions;
mod speed;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::{End, Namespace, TaskSpec};
use security::{Ca, Role};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use wire::v1;
use wire::v1::agent_frame::Body;
use wire::v1::controller_frame::Body as Order;

use crate::{Config, Error};
use controller::{CLUSTER, Controller, LONG};

/// A directory with everything that an agent needs, and the authority that made it.
struct Home {
    dir: tempfile::TempDir,
    ca: Ca,
}

impl Home {
    fn new() -> Home {
        let dir = tempfile::tempdir().unwrap();
        let ca = Ca::create(CLUSTER).unwrap();
        controller::identity(&ca, Role::Agent, "a1", &dir.path().join("identity"));
        Home { dir, ca }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn config(&self, controller: &Controller) -> Config {
        Config {
            id: "a1".into(),
            controllers: vec![controller.address.to_string()],
            data_dir: self.path("data"),
            identity: Some(self.path("identity")),
            slots: 4,
            // No driver's tool is asked.
            gpus: Some(Vec::new()),
            labels: [("zone".to_owned(), "here".to_owned())].into(),
            grace_seconds: 30,
            ..Config::default()
        }
    }

    fn start(&self, controller: &Controller) -> Agent {
        Agent::start(self.config(controller))
    }
}

struct Agent {
    shutdown: CancellationToken,
    run: JoinHandle<Result<(), Error>>,
    journal: PathBuf,
}

impl Agent {
    fn start(config: Config) -> Agent {
        let shutdown = CancellationToken::new();
        let journal = config.data_dir.join("journal");
        let run = tokio::spawn(crate::run(config, shutdown.clone()));
        Agent {
            shutdown,
            run,
            journal,
        }
    }

    async fn stopped(&mut self) {
        let outcome = timeout(LONG, &mut self.run).await;
        outcome.expect("it should have stopped").unwrap().unwrap();
    }

    /// Gone between two instructions, as if it were killed; its processes run on.
    async fn crash(self) {
        self.run.abort();
        assert!(self.run.await.unwrap_err().is_cancelled());
        // A killed process has no threads left that could write; wait for this one's.
        while is_open(&self.journal) {
            tokio::task::yield_now().await;
        }
    }
}

/// Whether this very program has the file open.
fn is_open(path: &Path) -> bool {
    let open = fs::read_dir("/proc/self/fd").unwrap();
    open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .any(|target| target == path)
}

fn fence(n: u64) -> v1::Fence {
    model::Fence {
        task: model::TaskId(n),
        generation: model::Generation(1),
        epoch: model::Epoch(n + 100),
    }
    .into()
}

fn sh(script: &str) -> TaskSpec {
    let command = ["sh", "-c", script].map(str::to_owned);
    TaskSpec::process(Namespace::new("default").unwrap(), command.to_vec())
}

/// A request to follow its stdout; the number is that of the request.
fn tail(fence: v1::Fence, id: u64, offset: u64) -> Order {
    Order::Tail(v1::Tail {
        id,
        fence: Some(fence),
        stream: v1::OutputStream::Stdout.into(),
        offset,
        follow: true,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_goes_all_the_way_from_its_assignment_to_a_settled_verdict() {
    let home = Home::new();
    let mut controller = Controller::listen(&home.ca, "c1").await;
    let mut agent = home.start(&controller);

    let (mut session, hello) = controller.welcomed().await;
    assert_eq!((hello.agent.as_str(), hello.slots), ("a1", 4));
    assert_eq!(hello.labels.len(), 1);
    assert_eq!(hello.incarnation.len(), 16);
    assert_eq!(hello.cluster_id, "", "it was never in a cluster");
    assert_eq!(session.lead(1).await, []);

    session.assign(fence(1), &sh("echo out; echo err >&2; sleep 0.5; exit 3"));
    session.grant().await;
    assert_eq!(session.started().await, fence(1));
    let verdict = session.verdict().await;
    assert_eq!(v1::Fence::from(verdict.fence), fence(1));
    let outcome = verdict.outcome;
    assert_eq!(outcome.end, End::Exited { code: 3 });
    assert_eq!(
        (&outcome.stdout[..], &outcome.stderr[..]),
        (&b"out\n"[..], &b"err\n"[..])
    );
    assert!(outcome.started_at.0 > 0 && outcome.finished_at >= outcome.started_at);
    assert_eq!(
        session.lead(2).await,
        [fence(1)],
        "held until it is settled"
    );
    session.settle(fence(1));
    assert_eq!(session.lead(3).await, []);

    agent.shutdown.cancel();
    agent.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_that_nobody_settled_is_said_again_on_the_next_session() {
    let home = Home::new();
    let mut controller = Controller::listen(&home.ca, "c1").await;
    let mut agent = home.start(&controller);
    let (mut session, _) = controller.leading(1).await;
    session.assign(fence(1), &sh("echo once"));
    let first = session.verdict().await;
    drop(session);

    let (mut session, hello) = controller.welcomed().await;
    assert_eq!((hello.cluster_id.as_str(), hello.generation), (CLUSTER, 1));
    assert_eq!(session.lead(1).await, [fence(1)]);
    assert_eq!(session.verdict().await, first);
    session.settle(fence(1));
    assert_eq!(session.lead(2).await, []);
    agent.shutdown.cancel();
    agent.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crashed_agent_reports_what_it_had_begun_and_never_starts_it_again() {
    let home = Home::new();
    let mut controller = Controller::listen(&home.ca, "c1").await;
    let agent = home.start(&controller);
    let (mut session, hello) = controller.welcomed().await;
    session.lead(1).await;
    session.grant().await;
    let note = home.path("note");
    let script = format!("echo $$ >> {0}; echo said; exec sleep 1000", note.display());
    session.assign(fence(1), &sh(&script));
    session.say(tail(fence(1), 1, 0));
    session
        .hear(|body| match body {
            Body::Output(output) if output.data.starts_with(b"said") => Some(()),
            _ => None,
        })
        .await;
    agent.crash().await;
    let pid: i32 = fs::read_to_string(&note).unwrap().trim().parse().unwrap();

    let mut agent = home.start(&controller);
    let (mut session, again) = controller.welcomed().await;
    assert_eq!(again.incarnation, hello.incarnation, "its journal is there");
    let left = crate::process::Table::read();
    let left = left.rows().iter().find(|row| row.pid == pid && !row.zombie);
    assert_eq!(left, None, "ended before anybody is told");
    assert_eq!(session.lead(2).await, [fence(1)]);
    session.grant().await;
    let verdict = session.verdict().await;
    assert!(
        matches!(verdict.outcome.end, End::Interrupted { .. }),
        "{verdict:?}"
    );
    assert_eq!(
        verdict.outcome.stdout, b"said\n",
        "what it wrote is not lost"
    );

    for settled in [false, true] {
        if settled {
            session.settle(fence(1));
        }
        session.assign(fence(1), &sh(&script));
    }
    session.assign(fence(2), &sh("sleep 0.5"));
    assert_eq!(session.started().await, fence(2), "and nothing before it");
    assert_eq!(fs::read_to_string(&note).unwrap().lines().count(), 1);
    agent.shutdown.cancel();
    session.verdict().await;
    session.settle(fence(2));
    agent.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_settled_does_not_start_again_after_a_restart() {
    let home = Home::new();
    let mut controller = Controller::listen(&home.ca, "c1").await;
    let mut agent = home.start(&controller);
    let (mut session, _) = controller.leading(1).await;
    session.assign(fence(1), &sh("true"));
    session.verdict().await;
    session.settle(fence(1));
    agent.shutdown.cancel();
    agent.stopped().await;

    let mut agent = home.start(&controller);
    let (mut session, known) = controller.leading(1).await;
    assert_eq!(known, []);
    session.assign(fence(1), &sh("true"));
    session.assign(fence(2), &sh("sleep 0.5"));
    assert_eq!(session.started().await, fence(2));
    session.verdict().await;
    session.settle(fence(2));
    agent.shutdown.cancel();
    agent.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_ends_the_process_and_says_so() {
    let home = Home::new();
    let mut controller = Controller::listen(&home.ca, "c1").await;
    let mut agent = home.start(&controller);
    let (mut session, _) = controller.leading(1).await;
    session.assign(fence(1), &sh("exec sleep 1000"));
    session.started().await;
    session.say(Order::Cancel(v1::Cancel {
        fence: Some(fence(1)),
        reason: "enough".into(),
        cause: v1::CancelCause::Cancelled.into(),
    }));
    assert_eq!(session.verdict().await.outcome.end, End::Killed);
    session.settle(fence(1));
    agent.shutdown.cancel();
    agent.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_agent_ends_its_work_and_waits_until_the_cluster_knows() {
    let home = Home::new();
    let mut controller = Controller::listen(&home.ca, "c1").await;
    let config = Config {
        slots: 1,
        ..home.config(&controller)
    };
    let mut agent = Agent::start(config);
    let (mut session, _) = controller.leading(1).await;
    session.assign(fence(1), &sh("exec sleep 1000"));
    session.started().await;
    session.assign(fence(2), &sh("true"));
    // Its answer proves that what was said before was heard.
    assert_eq!(session.lead(1).await.len(), 2);
    agent.shutdown.cancel();
    let declined = session.verdict().await;
    assert_eq!(v1::Fence::from(declined.fence), fence(2));
    assert!(matches!(declined.outcome.end, End::Declined { .. }));
    let interrupted = session
        .hear(|body| match body {
            Body::Verdict(verdict) if verdict.fence == Some(fence(1)) => Some(verdict.clone()),
            _ => None,
        })
        .await;
    let interrupted = model::Verdict::try_from(interrupted).unwrap();
    assert!(matches!(interrupted.outcome.end, End::Interrupted { .. }));
    assert!(!agent.run.is_finished());
    session.settle(fence(2));
    session.settle(fence(1));
    agent.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_controllers_are_learnt_and_only_the_leader_is_obeyed() {
    let home = Home::new();
    let mut first = Controller::listen(&home.ca, "c1").await;
    let mut second = Controller::listen(&home.ca, "c2").await;
    let mut agent = home.start(&first);
    let (mut follower, _) = first.session().await;
    follower.welcome(&[&second]);
    let (mut leader, _) = second.leading(1).await;
    follower.assign(fence(1), &sh("true"));
    leader.assign(fence(2), &sh("sleep 0.5"));
    assert_eq!(leader.started().await, fence(2));
    assert_eq!(follower.started().await, fence(2), "told to all of them");
    let verdict = leader.verdict().await;
    assert_eq!(v1::Fence::from(verdict.fence), fence(2));

    assert_eq!(follower.lead(2).await, [fence(2)], "it is elected");
    let verdict = follower.verdict().await;
    assert_eq!(v1::Fence::from(verdict.fence), fence(2));
    follower.settle(fence(2));
    assert_eq!(follower.lead(3).await, []);
    agent.shutdown.cancel();
    agent.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_or_a_repetition_ends_the_session_and_another_one_begins() {
    let home = Home::new();
    let mut controller = Controller::listen(&home.ca, "c1").await;
    let mut agent = home.start(&controller);
    for wrong in [3, 1] {
        let (mut session, _) = controller.welcomed().await;
        session.say_numbered(wrong, Order::Leader(v1::Leader { leading: true }));
        session.ended().await;
    }
    controller.leading(1).await;
    agent.shutdown.cancel();
    agent.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn output_is_followed_from_any_offset_while_it_is_written() {
    let home = Home::new();
    let mut controller = Controller::listen(&home.ca, "c1").await;
    let mut agent = home.start(&controller);
    let (mut session, _) = controller.leading(1).await;
    let go = home.path("go");
    let script = format!(
        "echo first; until [ -e {} ]; do sleep 0.02; done; echo last",
        go.display()
    );
    session.assign(fence(1), &sh(&script));
    session.started().await;
    session.say(tail(fence(1), 2, 2));
    let (mut seen, mut ended) = (Vec::new(), false);
    while !ended {
        let output = session
            .hear(|body| match body {
                Body::Output(output) => Some(output.clone()),
                _ => None,
            })
            .await;
        assert_eq!((output.id, output.offset), (2, 2 + seen.len() as u64));
        seen.extend(output.data);
        ended = output.end;
        if seen == b"rst\n" {
            fs::write(&go, "").unwrap();
        }
    }
    assert_eq!(seen, b"rst\nlast\n");
    session.say(tail(fence(9), 3, 0));
    let gone = session
        .hear(|body| match body {
            Body::Output(output) if output.id == 3 => Some(output.gone),
            _ => None,
        })
        .await;
    assert!(gone, "of what never ran here");
    session.settle(fence(1));
    agent.shutdown.cancel();
    agent.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_of_another_cluster_hears_nothing() {
    let home = Home::new();
    let stranger = Ca::create("q2").unwrap();
    let identity = security::Identity::new("q2", Role::Controller, "c1").unwrap();
    let issued = stranger.issue(&identity, &[], LONG).unwrap();
    let credentials =
        security::Credentials::from_pem(stranger.pem(), &issued.cert_pem, &issued.key_pem).unwrap();
    let clients = security::Clients::Optional;
    let tls = security::server_config(&credentials, clients, security::Alpn::H2).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(tls);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut true_one = Controller::listen(&home.ca, "c1").await;
    let mut config = home.config(&true_one);
    config
        .controllers
        .push(listener.local_addr().unwrap().to_string());
    let mut agent = Agent::start(config);
    let (stream, _) = timeout(LONG, listener.accept()).await.unwrap().unwrap();
    assert!(
        acceptor.accept(stream).await.is_err(),
        "it gives up in the handshake"
    );
    true_one.leading(1).await;
    agent.shutdown.cancel();
    agent.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_of_another_agent_is_refused_at_the_start() {
    let home = Home::new();
    let controller = Controller::listen(&home.ca, "c1").await;
    let config = Config {
        id: "a2".into(),
        ..home.config(&controller)
    };
    let outcome = crate::run(config, CancellationToken::new());
    let outcome = timeout(Duration::from_secs(10), outcome).await.unwrap();
    assert!(
        matches!(outcome, Err(Error::WrongIdentity { .. })),
        "{outcome:?}"
    );
}
