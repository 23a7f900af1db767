//! One connection to a cluster, over whichever of its controllers answers.
//!
//! Every request of ours may be sent again: reads change nothing, a submit has a request id, a second
//! cancel finds the first one's work. So a request goes to one controller after the other, to the leader
//! where one is named, until it is answered or refused, or until patience ends; what the last one said is
//! then the reason, with exit code 4.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use security::{Alpn, Credentials, Expected, Role};
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use wire::status::{Code, Reaction};
use wire::transport::{MESSAGE_LIMIT, Timers, channel, dial_error};
use wire::v1;
use wire::v1::agents_client::AgentsClient;
use wire::v1::cluster_client::ClusterClient;
use wire::v1::tasks_client::TasksClient;

use super::Target;
use crate::exit::Exit;
use crate::failure::{Failure, Result};

/// How long a request is tried: several elections, and more than a person likes to wait.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long one controller may take before another one is asked. A stopped process accepts connections
/// and never answers.
const TRY: Duration = Duration::from_secs(4);
/// Between two rounds over all controllers.
const PAUSE: Duration = Duration::from_millis(100);

/// A cluster, as its clients see it.
pub struct Connection {
    credentials: Credentials,
    ways: Mutex<Ways>,
}

/// The controllers that are known, and which of them is asked.
#[derive(Default)]
struct Ways {
    addresses: Vec<String>,
    /// Where the last answer came from, or the next question goes to.
    current: usize,
    channels: HashMap<String, Channel>,
}

type Answer<T> = std::result::Result<Response<T>, Status>;

impl Connection {
    /// Reads the certificate; nothing is dialled yet.
    pub fn open(target: &Target) -> Result<Connection> {
        let credentials = Credentials::load(&target.keys)?;
        Ok(Connection {
            credentials,
            ways: Mutex::new(Ways {
                addresses: target.addresses.clone(),
                ..Ways::default()
            }),
        })
    }

    pub async fn submit(&self, request: v1::SubmitRequest) -> Result<v1::SubmitReply> {
        let send = |at, request| async move { tasks(at).submit(request).await };
        self.ask(Duration::ZERO, &request, send).await
    }

    pub async fn task(&self, id: u64, stale: bool) -> Result<v1::Task> {
        let send = |at, request| async move { tasks(at).get(request).await };
        let reply = self
            .ask(Duration::ZERO, &v1::GetTaskRequest { id, stale }, send)
            .await?;
        reply
            .task
            .ok_or_else(|| malformed("an answer without a task"))
    }

    /// The task when it has ended, or as it is after this time.
    pub async fn wait(&self, id: u64, time: Duration) -> Result<v1::Task> {
        let timeout_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let send = |at, request| async move { tasks(at).wait(request).await };
        let reply = self
            .ask(time, &v1::WaitTaskRequest { id, timeout_ms }, send)
            .await?;
        reply
            .task
            .ok_or_else(|| malformed("an answer without a task"))
    }

    pub async fn tasks(&self, request: v1::ListTasksRequest) -> Result<v1::ListTasksReply> {
        let send = |at, request| async move { tasks(at).list(request).await };
        self.ask(Duration::ZERO, &request, send).await
    }

    pub async fn cancel(&self, request: v1::CancelTaskRequest) -> Result<v1::Task> {
        let send = |at, request| async move { tasks(at).cancel(request).await };
        let reply = self.ask(Duration::ZERO, &request, send).await?;
        reply
            .task
            .ok_or_else(|| malformed("an answer without a task"))
    }

    pub async fn why(&self, id: u64) -> Result<v1::WhyReply> {
        let send = |at, request| async move { tasks(at).why(request).await };
        self.ask(Duration::ZERO, &v1::WhyRequest { id }, send).await
    }

    /// Chunks of output. Only the beginning is tried again; a stream that breaks is the caller's.
    pub async fn logs(
        &self,
        request: v1::LogsRequest,
    ) -> Result<BoxStream<'static, Result<v1::LogChunk>>> {
        // A time limit would end the stream too.
        let send = |at, request: Request<_>| async move {
            tasks(at).logs(Request::new(request.into_inner())).await
        };
        let chunks = self.ask(Duration::ZERO, &request, send).await?;
        Ok(chunks
            .map(|chunk| chunk.map_err(|status| failed(&read(&status))))
            .boxed())
    }

    pub async fn status(&self) -> Result<v1::StatusReply> {
        let send = |at, request| async move { cluster(at).status(request).await };
        self.ask(Duration::ZERO, &v1::StatusRequest {}, send).await
    }

    pub async fn agents(&self) -> Result<Vec<v1::Agent>> {
        let send = |at, request| async move { AgentsClient::new(at).list(request).await };
        Ok(self
            .ask(Duration::ZERO, &v1::ListAgentsRequest {}, send)
            .await?
            .agents)
    }

    pub async fn agent(&self, id: &str) -> Result<v1::Agent> {
        let request = v1::GetAgentRequest { id: id.to_owned() };
        let send = |at, request| async move { AgentsClient::new(at).get(request).await };
        let reply = self.ask(Duration::ZERO, &request, send).await?;
        reply
            .agent
            .ok_or_else(|| malformed("an answer without an agent"))
    }

    /// The new leader.
    pub async fn transfer_leadership(&self, to: String) -> Result<String> {
        let request = v1::TransferLeadershipRequest { to };
        let send = |at, request| async move { cluster(at).transfer_leadership(request).await };
        Ok(self.ask(Duration::ZERO, &request, send).await?.leader)
    }

    /// Sends until somebody answers for good. `wait`: how long the controller is asked to wait itself.
    async fn ask<M, T, F, W>(&self, wait: Duration, message: &M, send: F) -> Result<T>
    where
        M: Clone,
        F: Fn(Channel, Request<M>) -> W,
        W: Future<Output = Answer<T>>,
    {
        let deadline = Instant::now() + PATIENCE + wait;
        loop {
            let mut last = None;
            let round = self.ways().addresses.len();
            for _ in 0..round {
                let left = deadline.saturating_duration_since(Instant::now());
                let limit = left.min(TRY + wait);
                let mut request = Request::new(message.clone());
                request.set_timeout(limit);
                let (address, channel) = self.channel()?;
                let sent = tokio::time::timeout(limit, send(channel, request)).await;
                let failure = match sent {
                    Ok(Ok(response)) => return Ok(response.into_inner()),
                    Ok(Err(status)) => read(&status),
                    Err(_) => silent(&address, limit),
                };
                if !may_go_on(&failure) {
                    return Err(failed(&failure));
                }
                self.ways().turn_to(failure.leader.as_deref());
                last = worse(last, failure);
                if Instant::now() >= deadline {
                    break;
                }
            }
            let Some(failure) = last else {
                return Err(malformed("no addresses"));
            };
            // Another try needs a reason to hope: certificates do not change by themselves.
            let hopeless = failure.code == Code::NotTrusted;
            if hopeless || Instant::now() + PAUSE >= deadline {
                return Err(failed(&failure));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Never held across a request.
    fn ways(&self) -> MutexGuard<'_, Ways> {
        self.ways.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The controller that is asked, and the way there.
    fn channel(&self) -> Result<(String, Channel)> {
        let mut ways = self.ways();
        let address = ways
            .addresses
            .get(ways.current)
            .cloned()
            .unwrap_or_default();
        if let Some(open) = ways.channels.get(&address) {
            return Ok((address, open.clone()));
        }
        let controllers = Expected::any(Role::Controller);
        let tls = security::client_config(&self.credentials, controllers, Alpn::H2)?;
        let opened = channel(&address, tls, Timers::default());
        ways.channels.insert(address.clone(), opened.clone());
        Ok((address, opened))
    }
}

impl Ways {
    /// The leader next, else whoever comes after this one.
    fn turn_to(&mut self, leader: Option<&str>) {
        let known = leader.and_then(|leader| self.addresses.iter().position(|at| at == leader));
        self.current = match (known, leader) {
            (Some(at), _) if at != self.current => at,
            (None, Some(leader)) => {
                self.addresses.push(leader.to_owned());
                self.addresses.len() - 1
            }
            _ => (self.current + 1) % self.addresses.len().max(1),
        };
    }
}

fn tasks(channel: Channel) -> TasksClient<Channel> {
    TasksClient::new(channel).max_decoding_message_size(MESSAGE_LIMIT)
}

fn cluster(channel: Channel) -> ClusterClient<Channel> {
    ClusterClient::new(channel).max_decoding_message_size(MESSAGE_LIMIT)
}

/// What a status says; a connection that could not be made has its own reason.
fn read(status: &Status) -> wire::status::Failure {
    match dial_error(status) {
        Some(error) => {
            let code = if error.failure.is_lasting() {
                Code::NotTrusted
            } else {
                Code::Unreachable
            };
            wire::status::Failure::new(code, error.to_string())
        }
        None => wire::status::Failure::read(status),
    }
}

fn silent(address: &str, limit: Duration) -> wire::status::Failure {
    let limit = limit.as_secs();
    wire::status::Failure::new(
        Code::OutcomeUnknown,
        format!("{address} did not answer in {limit} s"),
    )
}

/// Whether another controller, or the same one later, may say something else.
fn may_go_on(failure: &wire::status::Failure) -> bool {
    failure.code == Code::NotTrusted
        || matches!(
            failure.code.reaction(),
            Reaction::Unavailable | Reaction::Unknown
        )
}

/// Of two reasons, the one that says more: somebody's answer over nobody's, an unknown outcome over all.
fn worse(
    one: Option<wire::status::Failure>,
    other: wire::status::Failure,
) -> Option<wire::status::Failure> {
    let weight = |failure: &wire::status::Failure| match failure.code {
        Code::NotTrusted => 0,
        Code::Unreachable => 1,
        Code::OutcomeUnknown => 3,
        _ => 2,
    };
    match one {
        Some(one) if weight(&one) >= weight(&other) => Some(one),
        _ => Some(other),
    }
}

/// A failure of the wire, as commands end with it.
pub fn failed(failure: &wire::status::Failure) -> Failure {
    let exit = match (failure.code, failure.code.reaction()) {
        (Code::NoSuchTask | Code::NoSuchAgent | Code::NotFound, _) => Exit::NotFound,
        (_, Reaction::Rejected) => Exit::Refused,
        (_, Reaction::Unavailable | Reaction::Unknown) => Exit::Unknown,
        (_, Reaction::Fatal) => Exit::NotFound,
    };
    let hint = failure.hint.clone().unwrap_or_default();
    Failure {
        request_id: failure.request_id.clone(),
        ..Failure::refused(failure.code.as_str(), &failure.message, hint).with_exit(exit)
    }
}

/// A controller that does not keep to the protocol.
pub fn malformed(what: &str) -> Failure {
    let hint = "compare versions with `quorate version` and `quorate cluster status`";
    Failure::refused("protocol", format!("the controller sent {what}"), hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_ends_the_command_as_documented() {
        let exit = |code| failed(&wire::status::Failure::new(code, "x")).exit.code();
        for (code, expected) in [
            (Code::Invalid, 1),
            (Code::OverLimit, 1),
            (Code::RequestIdReused, 1),
            (Code::AlreadyEnded, 1),
            (Code::Forbidden, 1),
            (Code::NotTrusted, 1),
            (Code::NoSuchTask, 2),
            (Code::NoSuchAgent, 2),
            (Code::Internal, 2),
            (Code::NoLeader, 4),
            (Code::NoQuorum, 4),
            (Code::NotLeader, 4),
            (Code::Unreachable, 4),
            (Code::OutcomeUnknown, 4),
        ] {
            assert_eq!(exit(code), expected, "{code:?}");
        }
    }

    #[test]
    fn a_named_leader_is_asked_next_and_else_one_after_the_other() {
        let addresses = ["h1:1", "h2:1", "h3:1"].map(str::to_owned);
        let mut ways = Ways {
            addresses: addresses.into(),
            ..Ways::default()
        };
        let mut next = |leader: Option<&str>| {
            ways.turn_to(leader);
            ways.addresses[ways.current].clone()
        };
        assert_eq!(next(None), "h2:1");
        assert_eq!(next(Some("h1:1")), "h1:1");
        assert_eq!(next(Some("h1:1")), "h2:1", "it was asked just now");
        assert_eq!(
            next(Some("h9:1")),
            "h9:1",
            "one that the context does not name"
        );
        assert_eq!(next(None), "h1:1");
    }

    #[test]
    fn the_reason_that_says_most_is_the_one_that_is_told() {
        let with = |code| wire::status::Failure::new(code, "x");
        let pick = |a, b| worse(Some(with(a)), with(b)).unwrap().code;
        assert_eq!(pick(Code::Unreachable, Code::NoLeader), Code::NoLeader);
        assert_eq!(pick(Code::NoLeader, Code::Unreachable), Code::NoLeader);
        assert_eq!(
            pick(Code::OutcomeUnknown, Code::NoLeader),
            Code::OutcomeUnknown
        );
    }
}
