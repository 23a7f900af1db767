//! A client of its own making: several connections, and a patience for everything that may pass.
//!
//! It is not `wire::client`, on purpose: what is written down about a faulty cluster should not depend
//! on the client code that is under test with it. Any controller may be asked; where one does not answer
//! the next is tried. That is safe, because each submit carries a request id.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio_rustls::rustls::ClientConfig;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};
use wire::v1;
use wire::v1::tasks_client::TasksClient;

use crate::cluster;

/// Longest that one try may take before another controller is asked: a stopped process answers never.
const TRY: Duration = Duration::from_secs(3);
/// Between two tries: shorter than any failover that is to be measured.
const PAUSE: Duration = Duration::from_millis(10);
/// How long a controller is asked to hold a `Wait` call.
const HOLD: Duration = Duration::from_secs(2);

/// The last answer before the caller gave up, or one that no repetition would change.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{status} (try {tries}, after {took:.1?})")]
pub struct Failure {
    pub status: Status,
    pub tries: u32,
    pub took: Duration,
    /// Whether it may have happened all the same.
    pub is_unknown: bool,
}

/// Cheap to clone; clones share the connections.
#[derive(Debug, Clone)]
pub struct Caller {
    clients: Arc<Vec<TasksClient<Channel>>>,
    next: Arc<AtomicUsize>,
}

impl Caller {
    /// One connection for each of `addresses`; name one several times for several connections.
    pub fn new(addresses: &[String], tls: &Arc<ClientConfig>) -> Caller {
        let client = |address: &String| TasksClient::new(cluster::channel(address, tls));
        Caller {
            clients: Arc::new(addresses.iter().map(client).collect()),
            next: Arc::new(AtomicUsize::new(0)),
        }
    }

    pub async fn submit(
        &self,
        request: &v1::SubmitRequest,
        patience: Duration,
    ) -> Result<v1::SubmitReply, Failure> {
        self.repeat(patience, |mut client| {
            let request = request.clone();
            async move { client.submit(request).await }
        })
        .await
    }

    pub async fn get(&self, id: u64, patience: Duration) -> Result<v1::Task, Failure> {
        let reply = self
            .repeat(patience, |mut client| async move {
                client.get(v1::GetTaskRequest { id, stale: false }).await
            })
            .await?;
        Ok(reply.task.unwrap_or_default())
    }

    pub async fn cancel(&self, id: u64, patience: Duration) -> Result<v1::Task, Failure> {
        let request = v1::CancelTaskRequest {
            id,
            reason: "the test asked for it".to_owned(),
        };
        let reply = self
            .repeat(patience, |mut client| {
                let request = request.clone();
                async move { client.cancel(request).await }
            })
            .await?;
        Ok(reply.task.unwrap_or_default())
    }

    /// The task once it is terminal.
    pub async fn wait(&self, id: u64, patience: Duration) -> Result<v1::Task, Failure> {
        let reply = self.wait_reply(id, patience).await?;
        Ok(reply.task.unwrap_or_default())
    }

    /// The same, with its place in the log.
    pub async fn wait_reply(&self, id: u64, patience: Duration) -> Result<v1::TaskReply, Failure> {
        let begun = Instant::now();
        loop {
            let left = patience.saturating_sub(begun.elapsed());
            let hold = u64::try_from(HOLD.min(left).as_millis())
                .unwrap_or(u64::MAX)
                .max(1);
            let reply = self
                .repeat(left, |mut client| async move {
                    client
                        .wait(v1::WaitTaskRequest {
                            id,
                            timeout_ms: hold,
                        })
                        .await
                })
                .await?;
            let task = reply.task.clone().unwrap_or_default();
            if is_terminal(&task) {
                return Ok(reply);
            }
            if begun.elapsed() >= patience {
                let state = task.state().as_str_name();
                let text = format!(
                    "task t{id} is still {state} on {:?}: {}",
                    task.agent, task.reason
                );
                return Err(Failure {
                    status: Status::deadline_exceeded(text),
                    tries: 1,
                    took: begun.elapsed(),
                    is_unknown: false,
                });
            }
        }
    }

    /// Every task that one controller's own state holds, however old that is.
    pub async fn list_own(client: &mut TasksClient<Channel>) -> Result<Vec<v1::Task>, Status> {
        const PAGE: u32 = 1_000;
        let mut tasks = Vec::new();
        let mut page = 0;
        loop {
            let request = v1::ListTasksRequest {
                limit: PAGE,
                page,
                stale: true,
                ..Default::default()
            };
            let reply = client.list(request).await?.into_inner();
            tasks.extend(reply.tasks);
            page = reply.next;
            if page == 0 {
                return Ok(tasks);
            }
        }
    }

    /// One try after the other, each with the next controller, until an answer or the end of patience.
    async fn repeat<T, F>(
        &self,
        patience: Duration,
        call: impl Fn(TasksClient<Channel>) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let begun = Instant::now();
        let (mut is_unknown, mut tries) = (false, 0);
        loop {
            tries += 1;
            let at = self.next.fetch_add(1, Ordering::Relaxed);
            let client = self.clients[at % self.clients.len()].clone();
            let status = match tokio::time::timeout(TRY, call(client)).await {
                Ok(Ok(reply)) => return Ok(reply.into_inner()),
                Ok(Err(status)) => status,
                Err(_elapsed) => Status::deadline_exceeded(format!("no answer within {TRY:?}")),
            };
            // A try that broke may have been committed; a later one does not undo that.
            is_unknown |= may_pass(status.code());
            let took = begun.elapsed();
            if !may_pass(status.code()) || took >= patience {
                return Err(Failure {
                    status,
                    tries,
                    took,
                    is_unknown,
                });
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

pub fn is_terminal(task: &v1::Task) -> bool {
    match task.state() {
        v1::TaskState::Unspecified
        | v1::TaskState::Queued
        | v1::TaskState::Assigned
        | v1::TaskState::Running => false,
        v1::TaskState::Succeeded
        | v1::TaskState::Failed
        | v1::TaskState::Cancelled
        | v1::TaskState::Unknown
        | v1::TaskState::DeadLetter => true,
    }
}

/// Another try may fare better: there was no leader, or the connection broke.
fn may_pass(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Unknown
            | Code::Cancelled
            | Code::Aborted
            | Code::Internal
    )
}
