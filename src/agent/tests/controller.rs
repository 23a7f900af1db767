//! A controller that does as the test says, behind real TLS on the loopback.

use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use futures::Stream;
use security::{Alpn, Ca, Clients, Credentials, Identity, Role};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use wire::transport::{self, Timers};
use wire::v1;
use wire::v1::agent_frame::Body;
use wire::v1::controller_frame::Body as Order;
use wire::v1::sessions_server::{Sessions, SessionsServer};

/// Longer than anything here takes on a busy machine; only a failing test waits for it.
pub const LONG: Duration = Duration::from_secs(60);
pub const CLUSTER: &str = "q1";
const VALIDITY: Duration = Duration::from_secs(3600);

type Frames = mpsc::UnboundedSender<Result<v1::ControllerFrame, Status>>;

struct Service(mpsc::UnboundedSender<(Frames, Streaming<v1::AgentFrame>)>);

#[tonic::async_trait]
impl Sessions for Service {
    type ConnectStream = Pin<Box<dyn Stream<Item = Result<v1::ControllerFrame, Status>> + Send>>;

    async fn connect(
        &self,
        request: Request<Streaming<v1::AgentFrame>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let (frames, outgoing) = mpsc::unbounded_channel();
        let session = (frames, request.into_inner());
        self.0
            .send(session)
            .map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(
            outgoing,
        ))))
    }
}

pub struct Controller {
    pub id: String,
    pub address: SocketAddr,
    sessions: mpsc::UnboundedReceiver<(Frames, Streaming<v1::AgentFrame>)>,
    server: JoinHandle<()>,
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.server.abort();
    }
}

pub fn identity(ca: &Ca, role: Role, id: &str, directory: &Path) {
    let identity = Identity::new(CLUSTER, role, id).unwrap();
    let issued = ca.issue(&identity, &[], VALIDITY).unwrap();
    issued.save(directory, ca.pem()).unwrap();
}

impl Controller {
    pub async fn listen(ca: &Ca, id: &str) -> Controller {
        let identity = Identity::new(CLUSTER, Role::Controller, id).unwrap();
        let issued = ca.issue(&identity, &[], VALIDITY).unwrap();
        let credentials =
            Credentials::from_pem(ca.pem(), &issued.cert_pem, &issued.key_pem).unwrap();
        let clients = Clients::required(&[Role::Agent]);
        let tls = security::server_config(&credentials, clients, Alpn::H2).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (told, sessions) = mpsc::unbounded_channel();
        let server = transport::server(Timers::default())
            .add_service(SessionsServer::new(Service(told)))
            .serve_with_incoming(transport::incoming(listener, tls));
        let server = tokio::spawn(async move { server.await.unwrap() });
        Controller {
            id: id.to_owned(),
            address,
            sessions,
            server,
        }
    }

    /// The next session that is opened, and what the agent says of itself.
    pub async fn session(&mut self) -> (Session, v1::Hello) {
        let next = timeout(LONG, self.sessions.recv()).await;
        let (frames, incoming) = next.expect("nobody came").expect("the server lives");
        let mut session = Session {
            controller: self.id.clone(),
            frames,
            incoming,
            sent: 0,
            heard: 0,
            term: 1,
            nonce: 0,
        };
        let Some(Body::Hello(hello)) = session.next().await else {
            panic!("a session begins with Hello");
        };
        (session, hello)
    }

    /// A session that was taken.
    pub async fn welcomed(&mut self) -> (Session, v1::Hello) {
        let (mut session, hello) = self.session().await;
        session.welcome(&[]);
        (session, hello)
    }

    /// A session of which this controller is the leader, and whose agent has a lease.
    pub async fn leading(&mut self, term: u64) -> (Session, Vec<v1::Fence>) {
        let (mut session, _) = self.welcomed().await;
        let known = session.lead(term).await;
        session.grant().await;
        (session, known)
    }
}

pub struct Session {
    controller: String,
    frames: Frames,
    incoming: Streaming<v1::AgentFrame>,
    sent: u64,
    heard: u64,
    pub term: u64,
    /// Of the last renewal.
    nonce: u64,
}

impl Session {
    /// The next thing that it says; nothing where it ended the session.
    pub async fn next(&mut self) -> Option<Body> {
        let frame = timeout(LONG, self.incoming.message()).await;
        let frame = frame.expect("it says nothing").ok()??;
        assert_eq!(frame.seq, self.heard + 1, "frames are counted from 1");
        assert!(frame.ack <= self.sent);
        self.heard = frame.seq;
        Some(frame.body.expect("agents say something in each frame"))
    }

    /// The next frame that says what is wanted. Others may come between, and renewals are granted.
    pub async fn hear<T>(&mut self, mut wanted: impl FnMut(&Body) -> Option<T>) -> T {
        loop {
            let body = self.next().await.expect("it ended the session");
            if let Some(found) = wanted(&body) {
                return found;
            }
            if let Body::Renew(v1::Renew { nonce }) = body
                && self.nonce > 0
            {
                self.say(Order::RenewAck(v1::RenewAck { nonce }));
            }
        }
    }

    pub fn say(&mut self, order: Order) {
        let seq = self.sent + 1;
        self.say_numbered(seq, order);
    }

    pub fn say_numbered(&mut self, seq: u64, order: Order) {
        self.sent = seq;
        let frame = v1::ControllerFrame {
            seq,
            ack: self.heard,
            generation: 1,
            term: self.term,
            body: Some(order),
        };
        // The agent may have gone.
        drop(self.frames.send(Ok(frame)));
    }

    /// Says nothing but how much was heard.
    pub fn acknowledge(&mut self) {
        self.sent += 1;
        let frame = v1::ControllerFrame {
            seq: self.sent,
            ack: self.heard,
            generation: 1,
            term: self.term,
            body: None,
        };
        drop(self.frames.send(Ok(frame)));
    }

    /// Tells it of these other controllers, too.
    pub fn welcome(&mut self, others: &[&Controller]) {
        let addresses = |controller: &&Controller| v1::Addresses {
            grpc: controller.address.to_string(),
            ..v1::Addresses::default()
        };
        self.say(Order::Welcome(v1::Welcome {
            cluster_id: CLUSTER.to_owned(),
            controllers: others.iter().map(addresses).collect(),
            controller: self.controller.clone(),
            controller_ids: others.iter().map(|other| other.id.clone()).collect(),
        }));
    }

    /// Says that it leads, and hears what the agent holds.
    pub async fn lead(&mut self, term: u64) -> Vec<v1::Fence> {
        self.term = term;
        self.say(Order::Leader(v1::Leader { leading: true }));
        self.hear(|body| match body {
            Body::Known(known) => Some(known.attempts.clone()),
            _ => None,
        })
        .await
    }

    /// Grants the lease that it asks for; from now on all of them.
    pub async fn grant(&mut self) {
        let nonce = self
            .hear(|body| match body {
                Body::Renew(renew) => Some(renew.nonce),
                _ => None,
            })
            .await;
        self.nonce = nonce;
        self.say(Order::RenewAck(v1::RenewAck { nonce }));
    }

    pub fn assign(&mut self, fence: v1::Fence, spec: &model::TaskSpec) {
        self.say(Order::Assign(v1::Assign {
            fence: Some(fence),
            spec: Some(Box::new(spec.into())),
            gpus: Vec::new(),
            after: Vec::new(),
            attempt: 1,
        }));
    }

    pub async fn started(&mut self) -> v1::Fence {
        self.hear(|body| match body {
            Body::Started(started) => started.fence,
            _ => None,
        })
        .await
    }

    pub async fn verdict(&mut self) -> model::Verdict {
        let verdict = self
            .hear(|body| match body {
                Body::Verdict(verdict) => Some(verdict.clone()),
                _ => None,
            })
            .await;
        model::Verdict::try_from(verdict).unwrap()
    }

    pub fn settle(&mut self, fence: v1::Fence) {
        self.say(Order::VerdictAck(v1::VerdictAck {
            fence: Some(fence),
            disposition: v1::Disposition::Accepted.into(),
        }));
    }

    /// Until the agent ends it.
    pub async fn ended(&mut self) {
        while self.next().await.is_some() {}
    }
}
