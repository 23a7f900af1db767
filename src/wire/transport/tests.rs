//! Accepting and dialling over real sockets on loopback.

use std::sync::Arc;
use std::time::Duration;

use security::{Clients, Role};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::*;
use crate::test_kit::{Fake, Pki, Running, free_address, handler};
use crate::v1;
use crate::v1::tasks_client::TasksClient;

/// Far more than anything here takes, and less than a person waits.
const SOON: Duration = Duration::from_secs(20);

/// A server that answers with the name of whoever asks, or of nobody.
fn who_asks() -> Fake {
    Fake {
        get: handler(|request: Request<v1::GetTaskRequest>| async move {
            let peer = request.extensions().get::<PeerInfo>().unwrap();
            assert!(peer.address.ip().is_loopback());
            let name = peer
                .certificate
                .as_deref()
                .map(|der| security::identify(der).unwrap().0);
            let agent = name
                .map(|identity| identity.to_string())
                .unwrap_or_default();
            let task = v1::Task {
                agent,
                ..v1::Task::default()
            };
            Ok(Response::new(v1::TaskReply {
                position: None,
                task: Some(task),
            }))
        }),
        ..Fake::default()
    }
}

async fn ask(channel: Channel) -> Result<String, Status> {
    let get = async {
        TasksClient::new(channel)
            .get(v1::GetTaskRequest::default())
            .await
    };
    let reply = timeout(SOON, get).await.expect("every request ends")?;
    Ok(reply.into_inner().task.unwrap().agent)
}

fn short() -> Timers {
    Timers {
        connect: Duration::from_millis(300),
        handshake: Duration::from_millis(300),
        keepalive_interval: Duration::from_millis(100),
        keepalive_timeout: Duration::from_millis(200),
        ..Timers::default()
    }
}

async fn failure_of(channel: Channel) -> DialFailure {
    let status = ask(channel).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);
    dial_error(&status)
        .expect("no connection was made")
        .failure
        .clone()
}

#[tokio::test]
async fn a_handler_learns_whose_certificate_was_shown() {
    let pki = Pki::new();
    let server = Running::start(pki.server(Clients::Optional), who_asks());
    let agent = channel(
        &server.address,
        pki.client(Role::Agent, "a1"),
        Timers::default(),
    );
    assert_eq!(ask(agent).await.unwrap(), "spiffe://q1/agent/a1");
    let nobody = channel(&server.address, pki.anonymous(), Timers::default());
    assert_eq!(ask(nobody).await.unwrap(), "");
}

#[tokio::test]
async fn a_refused_certificate_is_a_failed_dial_and_no_lost_request() {
    let pki = Pki::new();
    let controllers = Clients::required(&[Role::Controller]);
    let server = Running::start(pki.server(controllers), who_asks());
    let refused = |tls| failure_of(channel(&server.address, tls, Timers::default()));
    let DialFailure::ClientRefused(reason) = refused(pki.client(Role::Agent, "a1")).await else {
        panic!("an agent is refused");
    };
    assert!(reason.contains("role"), "{reason}");
    let DialFailure::ClientRefused(reason) = refused(pki.anonymous()).await else {
        panic!("nobody is refused");
    };
    assert!(reason.contains("required"), "{reason}");
    let allowed = pki.client(Role::Controller, "c2");
    let allowed = channel(&server.address, allowed, Timers::default());
    assert_eq!(ask(allowed).await.unwrap(), "spiffe://q1/controller/c2");
}

#[tokio::test]
async fn a_server_of_another_cluster_is_refused_in_words() {
    let server = Running::start(Pki::new().server(Clients::Optional), who_asks());
    let tls = Pki::new().client(Role::Client, "admin");
    let failure = failure_of(channel(&server.address, tls, Timers::default())).await;
    assert!(failure.is_lasting());
    assert!(
        failure
            .to_string()
            .contains("not issued by the CA of cluster q1"),
        "{failure}"
    );
}

#[tokio::test]
async fn refused_silent_and_plain_peers_are_told_apart() {
    let tls = Pki::new().anonymous();
    let free = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let dial = |address: &str| failure_of(channel(address, Arc::clone(&tls), short()));
    assert_eq!(dial(&free).await, DialFailure::Refused);
    assert_eq!(
        probe(&free, short()).await.unwrap_err().failure,
        DialFailure::Refused
    );

    // The kernel accepts, and no process ever answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap().to_string();
    assert_eq!(
        dial(&address).await,
        DialFailure::TimedOut(short().handshake)
    );
    assert_eq!(probe(&address, short()).await, Ok(()));

    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = plain.local_addr().unwrap().to_string();
    let answering = tokio::spawn(async move {
        let (mut tcp, _) = plain.accept().await.unwrap();
        tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
        tcp.read_to_end(&mut Vec::new()).await
    });
    assert!(
        dial(&address)
            .await
            .to_string()
            .contains("does not speak TLS")
    );
    drop(answering.await.unwrap());
}

#[tokio::test]
async fn what_is_no_address_is_called_so() {
    for address in ["", "host-without-port", "127.0.0.1:port", "127.0.0.1:99999"] {
        let failure = failure_of(channel(address, Pki::new().anonymous(), short())).await;
        assert_eq!(failure, DialFailure::BadAddress, "{address:?}");
    }
}

#[tokio::test]
async fn silent_connections_delay_nobody_however_many_they_are() {
    let pki = Pki::new();
    let timers = Timers {
        handshake: SOON / 2,
        ..Timers::default()
    };
    let tls = pki.server(Clients::Optional);
    let server = Running::start_at("127.0.0.1:0", tls, who_asks(), timers);
    let dial = || {
        channel(
            &server.address,
            pki.client(Role::Agent, "a1"),
            Timers::default(),
        )
    };
    let mut silent = Vec::new();
    while silent.len() < PENDING_HANDSHAKES / 2 {
        silent.push(TcpStream::connect(&server.address).await.unwrap());
    }
    let begun = Instant::now();
    ask(dial()).await.unwrap();
    assert!(begun.elapsed() < timers.handshake, "{:?}", begun.elapsed());
    while silent.len() < PENDING_HANDSHAKES * 3 / 2 {
        silent.push(TcpStream::connect(&server.address).await.unwrap());
    }
    ask(dial()).await.unwrap();
    assert!(begun.elapsed() < timers.handshake, "{:?}", begun.elapsed());
    // It hung up on the oldest of them to make room, and on the others by itself.
    for mut tcp in silent {
        timeout(SOON, tcp.read_to_end(&mut Vec::new()))
            .await
            .unwrap()
            .unwrap();
    }
}

#[tokio::test]
async fn strangers_who_stay_make_room_for_others_and_leave_the_known_alone() {
    let pki = Pki::new();
    let tls = pki.server(Clients::Optional);
    let server = Running::start_at("127.0.0.1:0", tls, who_asks(), Timers::default());
    let known = channel(
        &server.address,
        pki.client(Role::Agent, "a1"),
        Timers::default(),
    );
    ask(known.clone()).await.unwrap();
    let connector = TlsConnector::from(pki.anonymous());
    let mut idle = Vec::new();
    for _ in 0..=STRANGERS {
        let tcp = TcpStream::connect(&server.address).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        idle.push(connector.connect(name, tcp).await.unwrap());
    }
    let mut first = idle.remove(0);
    let gone = timeout(SOON, first.read_to_end(&mut Vec::new())).await;
    gone.expect("the first stranger had to go").ok();
    let another = channel(&server.address, pki.anonymous(), Timers::default());
    assert_eq!(ask(another).await.unwrap(), "");
    assert_ne!(ask(known).await.unwrap(), "");
}

#[tokio::test]
async fn a_channel_connects_again_after_its_server_came_back() {
    let pki = Pki::new();
    let tls = pki.server(Clients::Optional);
    let address = free_address();
    let start = || Running::start_at(&address, Arc::clone(&tls), who_asks(), Timers::default());
    let server = start();
    let channel = channel(&address, pki.client(Role::Agent, "a1"), Timers::default());
    ask(channel.clone()).await.unwrap();
    server.kill();
    while ask(channel.clone()).await.is_ok() {}
    let _server = start();
    let again = async { while ask(channel.clone()).await.is_err() {} };
    timeout(SOON, again).await.expect("it is back");
}

#[tokio::test]
async fn requests_behind_a_dead_peer_fail_together() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let channel = channel(&address, Pki::new().anonymous(), short());
    let begun = Instant::now();
    let requests = (0..100).map(|_| ask(channel.clone()));
    for result in futures::future::join_all(requests).await {
        assert!(dial_error(&result.unwrap_err()).is_some());
    }
    // One after the other they would take 30 s.
    assert!(
        begun.elapsed() < 10 * short().handshake,
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn a_peer_that_goes_silent_in_the_middle_is_noticed_by_keepalive() {
    let pki = Pki::new();
    let held = Arc::new(Notify::new());
    let arrived = Arc::clone(&held);
    let fake = Fake {
        get: handler(move |_| {
            let arrived = Arc::clone(&arrived);
            async move {
                arrived.notify_one();
                std::future::pending().await
            }
        }),
        ..Fake::default()
    };
    let server = Running::start(pki.server(Clients::Optional), fake);
    let wire = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = wire.local_addr().unwrap().to_string();
    let target = server.address.clone();
    // A cable that is cut once the request is through: bytes vanish, and no end is seen.
    let cable = tokio::spawn(async move {
        let (mut near, _) = wire.accept().await.unwrap();
        let mut far = TcpStream::connect(target).await.unwrap();
        tokio::select! {
            _ = copy_bidirectional(&mut near, &mut far) => panic!("the cable was not cut"),
            () = held.notified() => {}
        }
        (near, far)
    });
    let begun = Instant::now();
    let tls = pki.client(Role::Agent, "a1");
    let timers = Timers {
        handshake: SOON,
        ..short()
    };
    let status = ask(channel(&address, tls, timers)).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);
    assert!(
        dial_error(&status).is_none(),
        "it may have arrived: {status}"
    );
    assert!(begun.elapsed() < SOON / 2);
    drop(cable.await.unwrap());
}

#[tokio::test]
async fn messages_up_to_the_limit_pass_and_larger_ones_are_refused() {
    let pki = Pki::new();
    let fake = Fake {
        get: handler(|request: Request<v1::GetTaskRequest>| async move {
            let length = usize::try_from(request.get_ref().id).unwrap();
            let task = v1::Task {
                reason: "x".repeat(length),
                ..v1::Task::default()
            };
            Ok(Response::new(v1::TaskReply {
                position: None,
                task: Some(task),
            }))
        }),
        ..Fake::default()
    };
    let server = Running::start(pki.server(Clients::Optional), fake);
    let tls = pki.client(Role::Client, "admin");
    let mut client = TasksClient::new(channel(&server.address, tls, Timers::default()));
    let mut get = async |id: usize| {
        let id = u64::try_from(id).unwrap();
        client.get(v1::GetTaskRequest { id, stale: false }).await
    };
    let reply = get(MESSAGE_LIMIT - 64).await.unwrap().into_inner();
    assert_eq!(reply.task.unwrap().reason.len(), MESSAGE_LIMIT - 64);
    let failure = crate::status::Failure::read(&get(MESSAGE_LIMIT).await.unwrap_err());
    assert_eq!(failure.code, crate::status::Code::OverLimit);
}
