//! Measures when something could be committed: it submits one small task after another, to every
//! controller at once, and writes down each acknowledgement.
//!
//! The longest time without one, around a fault, is how long nothing could be committed, seen from
//! outside and rounded up by at most one try.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_rustls::rustls::ClientConfig;
use tonic::transport::Channel;
use wire::v1;
use wire::v1::tasks_client::TasksClient;

use crate::{Error, cluster, traffic, wait};

/// Between two submits on one connection: finer than what is measured, and no load worth the name.
const PACE: Duration = Duration::from_millis(10);
/// A try that hangs (its controller was stopped, or has no leader to ask) is given up.
const TRY: Duration = Duration::from_secs(1);

/// A submit that was committed.
#[derive(Debug, Clone, Copy)]
pub struct Ack {
    pub at: Instant,
    pub term: u64,
    pub index: u64,
    pub task: u64,
}

/// Runs until it is finished or dropped.
#[derive(Debug)]
pub struct Prober {
    acks: watch::Receiver<Vec<Ack>>,
    // Aborts its tasks when it goes.
    _loops: JoinSet<()>,
}

impl Prober {
    /// Submits `spec` over and over, through each of `addresses`.
    pub fn start(addresses: &[String], tls: &Arc<ClientConfig>, spec: &v1::TaskSpec) -> Prober {
        let (heard, mut said) = mpsc::unbounded_channel();
        let mut loops = JoinSet::new();
        for address in addresses {
            let client = TasksClient::new(cluster::channel(address, tls));
            loops.spawn(probe(client, spec.clone(), heard.clone()));
        }
        let (write, acks) = watch::channel(Vec::new());
        loops.spawn(async move {
            while let Some(ack) = said.recv().await {
                write.send_modify(|acks: &mut Vec<Ack>| acks.push(ack));
            }
        });
        Prober {
            acks,
            _loops: loops,
        }
    }

    /// All acknowledgements so far, in the order in which they arrived.
    pub fn acks(&self) -> Vec<Ack> {
        self.acks.borrow().clone()
    }

    /// Waits for the first commit of a term above `term`, and gives it.
    pub async fn committed_after_term(&self, term: u64, limit: Duration) -> Result<Ack, Error> {
        wait::until_now(&format!("a commit after term {term}"), limit, || {
            let acks = self.acks.borrow();
            let found = acks.iter().find(|ack| ack.term > term).copied();
            found.ok_or_else(|| format!("{} commits, all up to term {term}", acks.len()))
        })
        .await
    }

    /// Waits until anything at all was committed.
    pub async fn first(&self, limit: Duration) -> Result<Ack, Error> {
        wait::until_now("a first commit", limit, || {
            self.acks.borrow().last().copied().ok_or("none yet")
        })
        .await
    }
}

async fn probe(
    client: TasksClient<Channel>,
    spec: v1::TaskSpec,
    heard: mpsc::UnboundedSender<Ack>,
) {
    loop {
        let request = traffic::submit(spec.clone());
        let mut client = client.clone();
        let tried = tokio::time::timeout(TRY, client.submit(request)).await;
        if let Ok(Ok(reply)) = tried {
            let reply = reply.into_inner();
            let position = reply.position.unwrap_or_default();
            let ack = Ack {
                at: Instant::now(),
                term: position.term,
                index: position.log_index,
                task: reply.task.unwrap_or_default().id,
            };
            if heard.send(ack).is_err() {
                return;
            }
        }
        tokio::time::sleep(PACE).await;
    }
}
