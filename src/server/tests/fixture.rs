//! Controllers with a certificate authority of their own, in a directory that goes away.

use std::sync::Arc;
use std::time::Duration;

use security::{Alpn, CERTIFICATE_VALIDITY, Ca, Credentials, Expected, Identity, Role};
use tempfile::TempDir;
use tonic::transport::Channel;
use wire::status::{Code, Failure};
use wire::transport::Timers;
use wire::v1;
use wire::v1::agents_client::AgentsClient;
use wire::v1::cluster_client::ClusterClient;
use wire::v1::tasks_client::TasksClient;

use crate::config::Config;
use crate::node::Node;

const CLUSTER: &str = "q-test";
/// Everything here takes far less; a test that hangs must end.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Fixture {
    ca: Ca,
    dir: TempDir,
}

impl Fixture {
    pub fn new() -> Fixture {
        // Shown with a test that fails, and with RUST_LOG.
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let log = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_test_writer();
        let _another_test_did = log.try_init();
        let dir = tempfile::tempdir().unwrap();
        Fixture {
            ca: Ca::create(CLUSTER).unwrap(),
            dir,
        }
    }

    /// A cluster of one, able to decide.
    pub async fn first(&self) -> Node {
        let config = self.config("c1");
        std::fs::write(config.data_dir.join("bootstrap"), "").unwrap();
        let node = Node::start(config).await.unwrap();
        leads(&node).await;
        let founded = async {
            while node.controller.cluster.view().cluster_id().is_empty() {
                crate::quorum::read(&node.controller.cluster).await.unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, founded).await.unwrap();
        node
    }

    /// A controller that asks to join, and may not have yet.
    pub async fn joining(&self, id: &str, first: &Node) -> Node {
        let join = vec![first.controller.addresses.grpc.clone()];
        Node::start(Config {
            join,
            ..self.config(id)
        })
        .await
        .unwrap()
    }

    /// A controller that is in no cluster.
    pub async fn alone(&self, id: &str) -> Node {
        Node::start(self.config(id)).await.unwrap()
    }

    /// Its directory, with an identity in it.
    pub fn config(&self, id: &str) -> Config {
        let data_dir = self.dir.path().join(id);
        let identity = Identity::new(CLUSTER, Role::Controller, id).unwrap();
        let names = ["127.0.0.1".to_owned()];
        let issued = self
            .ca
            .issue(&identity, &names, CERTIFICATE_VALIDITY)
            .unwrap();
        issued
            .save(&data_dir.join("identity"), self.ca.pem())
            .unwrap();
        Config {
            id: id.parse().unwrap(),
            data_dir,
            listen: "127.0.0.1:0".into(),
            ..Config::default()
        }
    }

    /// As `cluster init` leaves it: the CA's key is in that controller's directory.
    pub fn give_authority(&self, id: &str) {
        self.ca.keep(&self.dir.path().join(id).join("ca")).unwrap();
    }

    pub fn ca(&self) -> &Ca {
        &self.ca
    }

    pub fn scratch(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    pub fn credentials(&self, role: Role, id: &str) -> Credentials {
        let identity = Identity::new(CLUSTER, role, id).unwrap();
        let issued = self.ca.issue(&identity, &[], CERTIFICATE_VALIDITY).unwrap();
        Credentials::from_pem(self.ca.pem(), &issued.cert_pem, &issued.key_pem).unwrap()
    }

    pub fn channel(&self, node: &Node, role: Role, id: &str) -> Channel {
        let credentials = self.credentials(role, id);
        let expected = Expected::any(Role::Controller);
        let tls = security::client_config(&credentials, expected, Alpn::H2).unwrap();
        wire::transport::channel(&node.controller.addresses.grpc, tls, Timers::default())
    }

    pub fn anonymous(&self, node: &Node) -> Channel {
        let tls = self.anonymous_tls(Alpn::H2);
        wire::transport::channel(&node.controller.addresses.grpc, tls, Timers::default())
    }

    pub fn anonymous_tls(&self, alpn: Alpn) -> Arc<rustls::ClientConfig> {
        let trust = self.credentials(Role::Client, "nobody").trust().clone();
        let expected = Expected::any(Role::Controller);
        security::anonymous_client_config(&trust, expected, alpn).unwrap()
    }

    pub fn tasks(&self, node: &Node) -> TasksClient<Channel> {
        TasksClient::new(self.channel(node, Role::Client, "ada"))
    }

    pub fn cluster(&self, node: &Node) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel(node, Role::Client, "ada"))
    }

    pub fn agents(&self, node: &Node) -> AgentsClient<Channel> {
        AgentsClient::new(self.channel(node, Role::Client, "ada"))
    }
}

/// Until this controller decides.
pub async fn leads(node: &Node) {
    let mut leadership = node.controller.cluster.leadership();
    let ready = leadership.wait_for(|now| now.ready);
    tokio::time::timeout(PATIENCE, ready)
        .await
        .unwrap()
        .unwrap();
}

/// Until this controller's state has an agent, whose session begins earlier.
pub async fn registered(node: &Node, agent: &str) {
    let id = model::AgentId::new(agent).unwrap();
    let known = async {
        while node.controller.cluster.view().agent(&id).is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, known).await.unwrap();
}

/// Until this controller belongs to a cluster that has a leader.
pub async fn follows(node: &Node) {
    let mut leadership = node.controller.cluster.leadership();
    let led = leadership.wait_for(|now| now.leader.is_some() && !now.is_me);
    tokio::time::timeout(PATIENCE, led).await.unwrap().unwrap();
}

pub fn spec(words: &[&str]) -> v1::TaskSpec {
    v1::TaskSpec {
        process: Some(v1::ProcessSpec {
            command: words.iter().map(|word| (*word).to_owned()).collect(),
            ..v1::ProcessSpec::default()
        }),
        ..v1::TaskSpec::default()
    }
}

pub fn submit(words: &[&str], request_id: &str, wait: Duration) -> v1::SubmitRequest {
    v1::SubmitRequest {
        spec: Some(spec(words)),
        request_id: request_id.into(),
        wait_ms: u64::try_from(wait.as_millis()).unwrap(),
    }
}

/// As a certificate would prove it.
pub fn principal(name: &str, role: model::Role) -> model::Principal {
    model::Principal {
        name: name.to_owned(),
        role,
        fingerprint: [0; 32],
    }
}

pub fn code(status: &tonic::Status) -> Code {
    Failure::read(status).code
}
