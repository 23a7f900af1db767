//! Starts members with certificates of a CA made for the test, each with a directory of its own.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use model::{
    Addresses, AgentId, AgentProfile, Command, ControllerId, Incarnation, Namespace, Op, Principal,
    Submit, TaskId, TaskSpec, Timestamp,
};
use security::{Ca, Credentials, Identity, Role};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::{Cluster, Config, Error, EventStream, PeerTls};

pub const PATIENCE: Duration = Duration::from_secs(20);

/// A cluster in the making.
pub struct Lab {
    pub root: TempDir,
    pub cluster_id: String,
    ca: Ca,
    addresses: BTreeMap<u64, Addresses>,
    listeners: BTreeMap<u64, TcpListener>,
}

pub struct Running {
    pub cluster: Cluster,
    pub events: EventStream,
    pub id: ControllerId,
}

impl Lab {
    pub fn new(cluster_id: &str) -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
            cluster_id: cluster_id.to_owned(),
            ca: Ca::create(cluster_id).unwrap(),
            addresses: BTreeMap::new(),
            listeners: BTreeMap::new(),
        }
    }

    pub fn data_dir(&self, id: u64) -> PathBuf {
        self.root.path().join(format!("c{id}"))
    }

    /// The addresses of a member, the same for its whole life. Its port is held until it is used.
    pub fn addresses(&mut self, id: u64) -> Addresses {
        if let Some(known) = self.addresses.get(&id) {
            return known.clone();
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let raft = listener.local_addr().unwrap().to_string();
        let addresses = Addresses {
            grpc: format!("grpc-{id}"),
            raft,
            https: String::new(),
        };
        self.listeners.insert(id, listener);
        self.addresses.insert(id, addresses.clone());
        addresses
    }

    pub fn tls(&self, id: u64) -> PeerTls {
        self.tls_as(Role::Controller, &ControllerId(id).to_string())
    }

    pub fn tls_as(&self, role: Role, name: &str) -> PeerTls {
        let identity = Identity::new(&self.cluster_id, role, name).unwrap();
        let local = ["127.0.0.1".to_owned()];
        let names = match role {
            Role::Controller => &local[..],
            Role::Agent | Role::Client => &[],
        };
        let day = Duration::from_secs(86_400);
        let pair = self.ca.issue(&identity, names, day).unwrap();
        let credentials =
            Credentials::from_pem(self.ca.pem(), &pair.cert_pem, &pair.key_pem).unwrap();
        PeerTls::new(&credentials).unwrap()
    }

    pub fn config(&mut self, id: u64) -> Config {
        let addresses = self.addresses(id);
        let listener = self
            .listeners
            .remove(&id)
            .unwrap_or_else(|| TcpListener::bind(&addresses.raft).unwrap());
        let dir = self.data_dir(id);
        Config::new(ControllerId(id), &self.cluster_id, dir, addresses, listener)
    }

    pub async fn try_start(&mut self, id: u64) -> Result<Running, Error> {
        let config = self.config(id);
        self.start_with(config).await
    }

    pub async fn start_with(&mut self, config: Config) -> Result<Running, Error> {
        let (id, tls) = (config.id, self.tls(config.id.0));
        let (cluster, events) = Cluster::open(config, tls).await?;
        Ok(Running {
            cluster,
            events,
            id,
        })
    }

    pub async fn start(&mut self, id: u64) -> Running {
        self.try_start(id).await.unwrap()
    }

    /// Members 1 to `count`, all voters.
    pub async fn cluster(&mut self, count: u64) -> Vec<Running> {
        let mut members = vec![self.start(1).await];
        members[0].cluster.initialize().await.unwrap();
        for id in 2..=count {
            members.push(self.start(id).await);
            let addresses = self.addresses(id);
            members[0]
                .cluster
                .add_member(ControllerId(id), addresses)
                .await
                .unwrap();
        }
        members
    }
}

/// An operation that leaves a trace in the state: an agent of this name.
pub fn register(name: &str) -> Op {
    Op::Client {
        principal: Principal {
            name: name.to_owned(),
            role: model::Role::Agent,
            fingerprint: [0; 32],
        },
        command: model::Command::RegisterAgent(profile(name)),
        placement: None,
        held: None,
    }
}

/// Submits a task of about so many bytes, which gets this id, and cancels it: it is over at once.
pub fn ended_task(id: u64, bytes: usize) -> Vec<Op> {
    let client = |command| Op::Client {
        principal: Principal {
            name: "ann".to_owned(),
            role: model::Role::Client,
            fingerprint: [0; 32],
        },
        command,
        placement: None,
        held: None,
    };
    let namespace = Namespace::new("default").unwrap();
    let submit = Submit {
        spec: TaskSpec::process(namespace, vec!["echo".to_owned(), "x".repeat(bytes)]),
        request_id: None,
    };
    let cancel = Command::CancelTask {
        task: TaskId(id),
        reason: String::new(),
    };
    vec![client(Command::SubmitTask(submit)), client(cancel)]
}

fn profile(name: &str) -> AgentProfile {
    AgentProfile {
        id: AgentId::new(name).unwrap(),
        incarnation: Incarnation([1; 16]),
        slots: 1,
        labels: BTreeMap::new(),
        version: "test".to_owned(),
        limits: "rlimit".to_owned(),
        backends: Vec::new(),
        protocol: model::AgentProtocol::FIRST,
        supply: None,
    }
}

pub async fn has(cluster: &Cluster, name: &str) -> Result<bool, Error> {
    let id = AgentId::new(name).unwrap();
    cluster
        .read(|state| state.agent(&id).is_some())
        .await
        .map(|read| read.value)
}

/// Proposes on whichever member leads, until it is committed.
pub async fn commit(members: &[Running], name: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        for member in members {
            match member
                .cluster
                .propose(vec![register(name)], Timestamp(0))
                .await
            {
                Ok(_) => return,
                Err(error) => assert!(Instant::now() < deadline, "{name}: {error}"),
            }
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until one of them leads and is ready.
pub async fn leader(members: &[Running]) -> usize {
    let ready = members.iter().enumerate().map(|(at, member)| {
        let mut leadership = member.cluster.leadership();
        Box::pin(async move {
            leadership.wait_for(|now| now.ready).await.unwrap();
            at
        })
    });
    let first = futures::future::select_all(ready);
    tokio::time::timeout(PATIENCE, first)
        .await
        .expect("somebody leads")
        .0
}

/// Ends a member without a word to the others.
pub fn kill(member: Running) {
    member.cluster.abandon();
}

/// Waits until all have applied the same entries, and compares their states.
pub async fn assert_equal_states(members: &[Running]) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let told: Vec<_> = members
            .iter()
            .map(|member| member.cluster.status())
            .collect();
        let same_index = told.iter().all(|one| one.applied == told[0].applied);
        if same_index {
            assert!(
                told.iter().all(|one| one.state_hash == told[0].state_hash),
                "{told:#?}"
            );
            return;
        }
        assert!(Instant::now() < deadline, "members did not meet: {told:#?}");
        sleep(Duration::from_millis(10)).await;
    }
}
