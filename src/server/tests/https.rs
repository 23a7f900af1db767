//! The HTTPS port, asked without a certificate.

use std::time::Duration;

use rustls::pki_types::ServerName;
use security::Alpn;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::fixture::{Fixture, submit};
use crate::node::Node;

async fn get(fixture: &Fixture, node: &Node, path: &str) -> String {
    let tls = TlsConnector::from(fixture.anonymous_tls(Alpn::Http1));
    let tcp = TcpStream::connect(&node.controller.addresses.https)
        .await
        .unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut stream = tls.connect(name, tcp).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: c1\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_can_decide_is_ready_and_counts_what_it_does() {
    let fixture = Fixture::new();
    let node = fixture.first().await;
    fixture
        .tasks(&node)
        .submit(submit(&["true"], "", Duration::ZERO))
        .await
        .unwrap();
    assert!(
        get(&fixture, &node, "/healthz")
            .await
            .starts_with("HTTP/1.1 200")
    );
    let ready = get(&fixture, &node, "/readyz").await;
    assert!(
        ready.starts_with("HTTP/1.1 200") && ready.ends_with("ready\n"),
        "{ready}"
    );
    let metrics = get(&fixture, &node, "/metrics").await;
    for line in [
        "quorate_submits_total 1",
        "quorate_tasks{state=\"queued\"} 1",
        "quorate_raft_leader 1",
        "# HELP quorate_store_syncs ",
        "quorate_proposal_seconds_count 1",
        "# EOF",
    ] {
        assert!(metrics.contains(line), "{line} is missing in {metrics}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_without_a_cluster_is_healthy_and_not_ready_and_says_why() {
    let fixture = Fixture::new();
    let node = fixture.alone("c1").await;
    assert!(
        get(&fixture, &node, "/healthz")
            .await
            .starts_with("HTTP/1.1 200")
    );
    let ready = get(&fixture, &node, "/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
    assert!(ready.contains("not a member of a cluster yet"), "{ready}");
    node.stop().await;
}
