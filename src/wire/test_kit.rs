//! For tests: a small real cluster's worth of certificates, and gRPC servers over real TLS on loopback
//! whose answers a test decides.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, Stream};
use security::{Alpn, Ca, Clients, Credentials, Expected, Identity, Role};
use tokio::runtime::Runtime;
use tokio_rustls::rustls::{ClientConfig, ServerConfig};
use tonic::{Request, Response, Status, Streaming};

use crate::transport::{Timers, incoming, server};
use crate::v1;
use crate::v1::tasks_server::{Tasks, TasksServer};

/// One certificate authority.
pub(crate) struct Pki(Ca);

impl Pki {
    pub(crate) fn new() -> Self {
        Self(Ca::create("q1").unwrap())
    }

    pub(crate) fn credentials(&self, role: Role, id: &str) -> Credentials {
        let identity = Identity::new(self.0.cluster(), role, id).unwrap();
        let issued = self
            .0
            .issue(&identity, &[], security::CERTIFICATE_VALIDITY)
            .unwrap();
        Credentials::from_pem(self.0.pem(), &issued.cert_pem, &issued.key_pem).unwrap()
    }

    pub(crate) fn server(&self, clients: Clients) -> Arc<ServerConfig> {
        let own = self.credentials(Role::Controller, "c1");
        security::server_config(&own, clients, Alpn::H2).unwrap()
    }

    pub(crate) fn client(&self, role: Role, id: &str) -> Arc<ClientConfig> {
        let expected = Expected::any(Role::Controller);
        security::client_config(&self.credentials(role, id), expected, Alpn::H2).unwrap()
    }

    pub(crate) fn anonymous(&self) -> Arc<ClientConfig> {
        let trust = security::Trust::from_pem(self.0.pem().as_bytes(), "test").unwrap();
        let expected = Expected::any(Role::Controller);
        security::anonymous_client_config(&trust, expected, Alpn::H2).unwrap()
    }
}

/// An address at which nobody listens, and no other test will: each of the hosts 127.0.0.2 and up is for
/// one use of its own, so that no socket of another test can get the port meanwhile.
pub(crate) fn free_address() -> String {
    static HOSTS: AtomicU8 = AtomicU8::new(2);
    let host = Ipv4Addr::new(127, 0, 0, HOSTS.fetch_add(1, Ordering::Relaxed));
    let listener = std::net::TcpListener::bind((host, 0)).unwrap();
    listener.local_addr().unwrap().to_string()
}

/// A gRPC server on a runtime of its own, so that ending it is as sudden as the death of a process: its
/// connections are gone as well.
pub(crate) struct Running {
    pub(crate) address: String,
    runtime: Option<Runtime>,
}

impl Running {
    pub(crate) fn start(tls: Arc<ServerConfig>, tasks: Fake) -> Self {
        Self::start_at("127.0.0.1:0", tls, tasks, Timers::default())
    }

    pub(crate) fn start_at(at: &str, tls: Arc<ServerConfig>, tasks: Fake, timers: Timers) -> Self {
        let at: SocketAddr = at.parse().unwrap();
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(at).unwrap();
        let address = socket.local_addr().unwrap().to_string();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let entered = runtime.enter();
        let listener = socket.listen(1024).unwrap();
        drop(entered);
        let service = TasksServer::new(tasks);
        runtime.spawn(async move {
            let incoming = incoming(listener, tls).with_timers(timers);
            server(timers)
                .add_service(service)
                .serve_with_incoming(incoming)
                .await
                .unwrap();
        });
        Self {
            address,
            runtime: Some(runtime),
        }
    }

    /// Once this returns, the address is free.
    pub(crate) fn kill(mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A runtime can't be waited for within another.
            let waiting = std::thread::spawn(|| runtime.shutdown_timeout(Duration::from_secs(10)));
            waiting.join().unwrap();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

type Answer<Reply> = Result<Response<Reply>, Status>;
type Handler<Message, Reply> =
    Arc<dyn Fn(Request<Message>) -> BoxFuture<'static, Answer<Reply>> + Send + Sync>;
type Stream1<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A task service that answers what a test puts in, and is unimplemented for the rest.
pub(crate) struct Fake {
    pub(crate) submit: Handler<v1::SubmitRequest, v1::SubmitReply>,
    pub(crate) get: Handler<v1::GetTaskRequest, v1::TaskReply>,
    pub(crate) wait: Handler<v1::WaitTaskRequest, v1::TaskReply>,
    pub(crate) cancel: Handler<v1::CancelTaskRequest, v1::TaskReply>,
    pub(crate) watch: Handler<v1::WatchTaskRequest, Stream1<v1::TaskReply>>,
}

pub(crate) fn handler<Message, Reply, F, Fut>(answer: F) -> Handler<Message, Reply>
where
    F: Fn(Request<Message>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Answer<Reply>> + Send + 'static,
{
    Arc::new(move |request| answer(request).boxed())
}

fn nothing<Message: 'static, Reply: 'static>() -> Handler<Message, Reply> {
    handler(|_| async { Err(Status::unimplemented("not in this test")) })
}

impl Default for Fake {
    fn default() -> Self {
        Self {
            submit: nothing(),
            get: nothing(),
            wait: nothing(),
            cancel: nothing(),
            watch: nothing(),
        }
    }
}

#[tonic::async_trait]
impl Tasks for Fake {
    type LogsStream = Stream1<v1::LogChunk>;
    type SubmitAllStream = Stream1<v1::SubmitAllReply>;
    type WatchStream = Stream1<v1::TaskReply>;

    async fn submit(&self, request: Request<v1::SubmitRequest>) -> Answer<v1::SubmitReply> {
        (self.submit)(request).await
    }

    async fn submit_all(
        &self,
        _: Request<Streaming<v1::SubmitRequest>>,
    ) -> Answer<Self::SubmitAllStream> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn get(&self, request: Request<v1::GetTaskRequest>) -> Answer<v1::TaskReply> {
        (self.get)(request).await
    }

    async fn wait(&self, request: Request<v1::WaitTaskRequest>) -> Answer<v1::TaskReply> {
        (self.wait)(request).await
    }

    async fn watch(&self, request: Request<v1::WatchTaskRequest>) -> Answer<Self::WatchStream> {
        (self.watch)(request).await
    }

    async fn list(&self, _: Request<v1::ListTasksRequest>) -> Answer<v1::ListTasksReply> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn cancel(&self, request: Request<v1::CancelTaskRequest>) -> Answer<v1::TaskReply> {
        (self.cancel)(request).await
    }

    async fn why(&self, _: Request<v1::WhyRequest>) -> Answer<v1::WhyReply> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn plan(&self, _: Request<v1::PlanRequest>) -> Answer<v1::WhyReply> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn logs(&self, _: Request<v1::LogsRequest>) -> Answer<Self::LogsStream> {
        Err(Status::unimplemented("not in this test"))
    }
}
