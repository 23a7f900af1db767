//! Sessions with controllers that take them, and then are no good.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use model::{AgentId, AgentProfile, Incarnation};
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::timeout;
use wire::v1;
use wire::v1::agent_frame::Body;

use super::Home;
use super::controller::{CLUSTER, Controller, LONG};
use crate::output::{Limits, Logs};
use crate::session::{self, Context, Event, Unsaid};

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_takes_sessions_and_closes_them_is_dialled_more_and_more_slowly() {
    let home = Home::new();
    let mut controller = Controller::listen(&home.ca, "c1").await;
    let mut agent = home.start(&controller);
    let begun = Instant::now();
    for _ in 0..6 {
        drop(controller.welcomed().await);
    }
    // 50, 100, 200, 400 and 800 ms between them, less a random quarter at most.
    let waited = begun.elapsed();
    assert!(waited >= Duration::from_millis(1_550 * 3 / 4), "{waited:?}");
    agent.shutdown.cancel();
    agent.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_given_up_ends_though_the_controller_reads_nothing() {
    let home = Home::new();
    let mut controller = Controller::listen(&home.ca, "c1").await;
    let (events, mut told) = unbounded_channel();
    let limits = Limits {
        dir: home.path("logs"),
        per_attempt: 1 << 20,
        total: 1 << 20,
        retention: LONG,
    };
    let context = Context {
        profile: AgentProfile {
            id: AgentId::new("a1").unwrap(),
            incarnation: Incarnation([7; 16]),
            slots: 1,
            labels: BTreeMap::new(),
            version: String::new(),
            limits: String::new(),
            backends: Vec::new(),
            protocol: model::AgentProtocol::NEWEST,
            supply: None,
        },
        cluster_id: CLUSTER.to_owned(),
        identity_dir: home.path("identity"),
        logs: Arc::new(Logs::start(limits).unwrap()),
        events,
        next_session: AtomicU64::new(1),
        generation: AtomicU64::new(0),
        offered: tokio::sync::watch::channel(Vec::new()).1,
    };
    let link = session::keep(Arc::new(context), controller.address.to_string());
    let link = tokio::spawn(link);
    let (_reads_nothing, _) = controller.welcomed().await;
    let Ok(Some(Event::Opened { voice, .. })) = timeout(LONG, told.recv()).await else {
        panic!("it was welcome");
    };
    // Far more than the connection takes: the session waits in the middle of a frame.
    let frame = || {
        Body::Output(v1::Output {
            data: vec![0; 32 * 1024].into(),
            ..v1::Output::default()
        })
    };
    let full = loop {
        if let Err(error) = voice.say(frame()) {
            break error;
        }
    };
    assert_eq!(full, Unsaid::Full);
    drop(voice);
    let closed = timeout(LONG, told.recv()).await;
    assert!(matches!(closed, Ok(Some(Event::Closed { .. }))));
    link.abort();
}
