//! One controller, wired: build, start, wait, and stop in reverse.
//!
//! ```text
//!   identity ─► ports ─► raft ─► hub, sessions, dispatcher ─► gRPC ─► HTTPS ─► found or join, vigil
//! ```
//!
//! Stopping: readiness off, leadership to another voter, waiting clients and sessions sent away,
//! requests under way answered, then the dispatcher, Raft and the ports. Whatever is not done in
//! time is cut: the log has everything that counts.

use std::sync::Arc;
use std::time::Duration;

use security::{Alpn, Clients, Credentials, KeyFiles, Role};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Status};
use tracing::{error, info};
use wire::transport::{self, MESSAGE_LIMIT, Timers};
use wire::v1::agents_server::AgentsServer;
use wire::v1::blobs_server::BlobsServer;
use wire::v1::cluster_server::ClusterServer;
use wire::v1::enrolments_server::EnrolmentsServer;
use wire::v1::identities_server::IdentitiesServer;
use wire::v1::join_tokens_server::JoinTokensServer;
use wire::v1::namespaces_server::NamespacesServer;
use wire::v1::policies_server::PoliciesServer;
use wire::v1::sessions_server::SessionsServer;
use wire::v1::tasks_server::TasksServer;

use crate::authority::{self, Authority};
use crate::bootstrap::{self, Start};
use crate::callers::{self, Callers};
use crate::config::{Config, Profile};
use crate::controller::Controller;
use crate::dispatcher::{Inputs, Loop, Signal};
use crate::error::Error;
use crate::gateway::Gateway;
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::others::Others;
use crate::pace::Pace;
use crate::ports::Ports;
use crate::sessions::{self, Registry};
use crate::vigil::{self, Clocks, Disks};
use crate::{https, limit, payloads, renewal, retention};

/// Runs a controller until `shutdown`, or until it can't go on.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    let mut node = Node::start(config).await?;
    let outcome = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        error = node.broken() => Err(error),
    };
    match &outcome {
        Ok(()) => info!("stopping"),
        Err(error) => error!(%error, "stopping"),
    }
    node.stop().await;
    outcome
}

/// A running controller.
pub(crate) struct Node {
    pub(crate) controller: Arc<Controller>,
    grpc: JoinHandle<Result<(), String>>,
    https: JoinHandle<Result<(), String>>,
    dispatcher: JoinHandle<()>,
    helpers: TaskTracker,
    /// Ends the dispatcher and the helpers.
    halt: CancellationToken,
}

impl Node {
    pub(crate) async fn start(config: Config) -> Result<Node, Error> {
        config.validate()?;
        let credentials = identity(&config)?;
        let Ports {
            grpc,
            raft,
            https,
            bound,
        } = Ports::bind(&config)?;
        let addresses = config.advertised(&bound)?;
        let start = Start {
            data_dir: config.data_dir.clone(),
            join: config.join_addresses(),
        };
        let cluster_id = credentials.trust().cluster();
        let member = member(&config, cluster_id, addresses.clone(), raft)?;
        let peers = raft::PeerTls::new(&credentials)?;
        let (cluster, events) = raft::Cluster::open(member, peers).await?;

        let (inputs, signals) = Inputs::channel();
        let (renewals, asked) = tokio::sync::mpsc::channel(limit::RENEWALS);
        let controller = Arc::new(Controller {
            id: config.id,
            addresses,
            cluster: cluster.clone(),
            hub: Arc::new(Hub::default()),
            sessions: Arc::new(Registry::default()),
            inputs: inputs.clone(),
            renewals,
            others: Others::new(credentials.clone(), config.grpc_overrides()),
            callers: Callers::default(),
            authority: Authority::open(&config.data_dir, credentials.trust()),
            credentials: credentials.clone(),
            pace: Pace::default(),
            long_answers: Semaphore::new(limit::LONG_ANSWERS),
            metrics: Arc::new(Metrics::default()),
            clocks: Clocks::default(),
            disks: Disks::default(),
            removed: CancellationToken::new(),
            started: tokio::time::Instant::now(),
            background: TaskTracker::new(),
            leaving: CancellationToken::new(),
            stopping: CancellationToken::new(),
        });
        let halt = CancellationToken::new();
        let dispatcher = tokio::spawn(dispatcher(&controller, events, signals).run(halt.clone()));
        let helpers = TaskTracker::new();
        helpers.spawn(sessions::confirm_leases(
            cluster,
            asked,
            inputs,
            halt.clone(),
        ));
        let grpc = tokio::spawn(serve_grpc(Arc::clone(&controller), grpc, &credentials)?);
        let https = tokio::spawn(serve_https(Arc::clone(&controller), https, &credentials)?);
        spawn_helpers(&helpers, &controller, start, &halt);
        let kept = config.retention();
        helpers.spawn(retention::keep(Arc::clone(&controller), kept, halt.clone()));
        let at = &controller.addresses;
        info!(id = %config.id, grpc = %at.grpc, raft = %at.raft, https = %at.https, "started");
        Ok(Node {
            controller,
            grpc,
            https,
            dispatcher,
            helpers,
            halt,
        })
    }

    /// Why it can't go on; waits for that.
    async fn broken(&mut self) -> Error {
        let mut fatal = self.controller.cluster.fatal();
        let port_stopped = |port, ended: Result<Result<(), String>, tokio::task::JoinError>| {
            let reason = match ended {
                Ok(Ok(())) => "it ended by itself".into(),
                Ok(Err(reason)) => reason,
                Err(error) => error.to_string(),
            };
            Error::Stopped { port, reason }
        };
        tokio::select! {
            // What is fatal ends the dispatcher too; the reason has to be the one that tells more.
            biased;
            reason = fatal.wait_for(Option::is_some) => match reason.as_deref() {
                Ok(Some(reason)) => Error::Fatal(reason.to_string()),
                Ok(None) | Err(_) => Error::Fatal("consensus has ended".into()),
            },
            () = self.controller.removed.cancelled() => Error::Removed(self.controller.id),
            ended = &mut self.grpc => port_stopped("gRPC", ended),
            ended = &mut self.https => port_stopped("HTTPS", ended),
            ended = &mut self.dispatcher => Error::Fatal(match ended {
                Ok(()) => "the dispatcher has ended".into(),
                Err(error) => format!("the dispatcher failed: {error}"),
            }),
        }
    }

    /// In the reverse order of the start.
    pub(crate) async fn stop(self) {
        let Node {
            controller,
            grpc,
            https,
            dispatcher,
            helpers,
            halt,
        } = self;
        controller.leaving.cancel();
        let cluster = controller.cluster.clone();
        joined("handing over", cluster.hand_over()).await;
        controller.stopping.cancel();
        for session in controller.sessions.all() {
            session.close("the controller is shutting down");
        }
        controller.background.close();
        joined("background", controller.background.wait()).await;
        finished("gRPC", grpc).await;
        halt.cancel();
        finished("dispatcher", dispatcher).await;
        helpers.close();
        joined("helpers", helpers.wait()).await;
        finished("HTTPS", https).await;
        cluster.shutdown().await;
        info!("stopped");
    }
}

/// Waits for a task, but not for ever.
async fn finished<T>(what: &str, mut task: JoinHandle<T>) {
    // It may have ended, and been waited for, before: then there is nothing to wait for.
    if !task.is_finished() && tokio::time::timeout(limit::DRAIN, &mut task).await.is_err() {
        info!(what, "did not end in time, and is cut");
        task.abort();
    }
}

async fn joined(what: &str, all: impl Future<Output = ()>) {
    if tokio::time::timeout(limit::DRAIN, all).await.is_err() {
        info!(what, "did not end in time");
    }
}

fn identity(config: &Config) -> Result<Credentials, Error> {
    let path = config.data_dir.join("identity");
    let credentials = Credentials::load(&KeyFiles::in_directory(&path))?;
    let found = credentials.identity();
    if found.role() == Role::Controller && found.id() == config.id.to_string() {
        return Ok(credentials);
    }
    let found = format!("{} {}", found.role(), found.id());
    Err(Error::WrongIdentity {
        path,
        found,
        wanted: config.id,
    })
}

/// What goes on beside the ports, each until `halt`.
fn spawn_helpers(
    helpers: &TaskTracker,
    controller: &Arc<Controller>,
    start: Start,
    halt: &CancellationToken,
) {
    let (controller, halt) = (|| Arc::clone(controller), || halt.clone());
    let identity = start.data_dir.join("identity");
    helpers.spawn(bootstrap::enter(controller(), start, halt()));
    helpers.spawn(vigil::keep(controller(), halt()));
    helpers.spawn(vigil::disks::keep(controller(), halt()));
    helpers.spawn(payloads::tell_missing(controller(), halt()));
    helpers.spawn(authority::keep(controller(), halt()));
    helpers.spawn(renewal::keep(controller(), identity, halt()));
}

/// What Raft is told.
fn member(
    config: &Config,
    cluster_id: &str,
    addresses: model::Addresses,
    listener: std::net::TcpListener,
) -> Result<raft::Config, Error> {
    let data_dir = config.data_dir.clone();
    let mut member = raft::Config::new(config.id, cluster_id, data_dir, addresses, listener);
    if let Some(file) = raft::NodeFile::read(&config.data_dir)? {
        member.generation = file.generation;
    }
    member.timers = timers(config);
    member.peer_addresses = config.raft_overrides();
    member.snapshot_every = config.snapshot_every;
    member.keep_behind_snapshot = config.keep_behind_snapshot;
    Ok(member)
}

fn dispatcher(
    controller: &Controller,
    events: raft::EventStream,
    signals: tokio::sync::mpsc::Receiver<Signal>,
) -> Loop {
    Loop {
        cluster: controller.cluster.clone(),
        events,
        signals,
        hub: Arc::clone(&controller.hub),
        sessions: Arc::clone(&controller.sessions),
        metrics: Arc::clone(&controller.metrics),
    }
}

fn timers(config: &Config) -> raft::Timers {
    match config.timers {
        Profile::Lan => raft::Timers::default(),
        Profile::Wan => raft::Timers {
            heartbeat: Duration::from_millis(500),
            election_min: Duration::from_millis(1_500),
            election_max: Duration::from_millis(3_000),
        },
    }
}

fn serve_grpc(
    controller: Arc<Controller>,
    listener: TcpListener,
    credentials: &Credentials,
) -> Result<impl Future<Output = Result<(), String>> + use<>, Error> {
    let tls = security::server_config(credentials, Clients::Optional, Alpn::H2)?;
    let incoming = transport::incoming(listener, tls);
    let stopping = controller.stopping.clone();
    let gateway = Gateway(Arc::clone(&controller));
    let tasks = TasksServer::new(gateway.clone()).max_decoding_message_size(MESSAGE_LIMIT);
    let cluster = ClusterServer::new(gateway.clone()).max_decoding_message_size(MESSAGE_LIMIT);
    let agents = AgentsServer::new(gateway.clone()).max_decoding_message_size(MESSAGE_LIMIT);
    let blobs = BlobsServer::new(gateway.clone()).max_decoding_message_size(MESSAGE_LIMIT);
    let tokens = JoinTokensServer::new(gateway.clone());
    let namespaces =
        NamespacesServer::new(gateway.clone()).max_decoding_message_size(MESSAGE_LIMIT);
    let policies = PoliciesServer::new(gateway.clone()).max_decoding_message_size(MESSAGE_LIMIT);
    let identities = IdentitiesServer::new(gateway.clone());
    let enrolments =
        EnrolmentsServer::new(gateway).max_decoding_message_size(limit::ENROLMENT_BYTES);
    let sessions =
        SessionsServer::new(sessions::Service(controller)).max_decoding_message_size(MESSAGE_LIMIT);
    // All but one: who joins has no certificate yet.
    let server = transport::server(Timers::default())
        .add_service(known(tasks))
        .add_service(known(cluster))
        .add_service(known(agents))
        .add_service(known(blobs))
        .add_service(known(sessions))
        .add_service(known(tokens))
        .add_service(known(namespaces))
        .add_service(known(policies))
        .add_service(known(identities))
        .add_service(enrolments)
        .serve_with_incoming_shutdown(incoming, stopping.cancelled_owned());
    Ok(async move { server.await.map_err(|error| error.to_string()) })
}

/// The service for those who showed a certificate.
fn known<S>(service: S) -> InterceptedService<S, Interceptor> {
    InterceptedService::new(service, callers::refuse_strangers)
}

type Interceptor = fn(Request<()>) -> Result<Request<()>, Status>;

fn serve_https(
    controller: Arc<Controller>,
    listener: TcpListener,
    credentials: &Credentials,
) -> Result<impl Future<Output = Result<(), String>> + use<>, Error> {
    let tls = security::server_config(credentials, Clients::Optional, Alpn::Http1)?;
    let incoming = transport::incoming(listener, tls);
    let stopping = controller.stopping.clone();
    let served = https::serve(controller, incoming, stopping);
    Ok(async move { served.await.map_err(|error| error.to_string()) })
}
