//! The one path of a request: who asks, until when, who leads, and what to do when that changes
//! half-way.
//!
//! A write is done where the leader is. A follower passes the very request on, with the principal
//! that it has seen; the leader never passes it further, so a request crosses at most one more
//! controller. Every write here may be repeated safely (a submit has a request id, the server's own
//! if need be), so it is repeated until its deadline whenever its outcome is not known.

use std::future::Future;
use std::time::Duration;

use model::{Command, ControllerId, Principal, Role};
use tokio::time::Instant;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Request, Response};
use wire::status::{self, Code, Failure, Reaction};
use wire::transport::MESSAGE_LIMIT;
use wire::v1;

use super::{Gateway, failure};
use crate::callers::{self, Caller};
use crate::{limit, quorum};

/// When the caller stops waiting.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(pub Instant);

impl Deadline {
    /// The caller's own, a little early, or our patience.
    pub fn of(metadata: &MetadataMap) -> Deadline {
        Deadline::set(metadata).unwrap_or(Deadline::within(limit::PATIENCE))
    }

    /// The caller's own, a little early, where it set one.
    pub fn set(metadata: &MetadataMap) -> Option<Deadline> {
        timeout_of(metadata).map(Deadline::within)
    }

    /// Our patience, counted on top of what the caller asked to wait; its own alarm where it set one.
    pub fn waiting(metadata: &MetadataMap, wait: Duration) -> Deadline {
        let wait = wait.min(limit::WAIT_MAX);
        Deadline::set(metadata).unwrap_or(Deadline::within(wait + limit::PATIENCE))
    }

    /// The same, but no later than our patience lasts: for a step that should be quick.
    pub fn soon(self) -> Deadline {
        Deadline(self.0.min(Instant::now() + limit::PATIENCE))
    }

    /// For what is only worth its answer if that comes quickly.
    pub fn within(time: Duration) -> Deadline {
        Deadline(Instant::now() + time)
    }

    pub fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    pub fn is_over(self) -> bool {
        self.left().is_zero()
    }

    /// A try that is cut off leaves the outcome unknown: rather none than one without time to end.
    fn allows_another_try(self) -> bool {
        self.left() > 2 * limit::RETRY_PAUSE
    }

    fn pause(self) -> tokio::time::Sleep {
        tokio::time::sleep_until(self.0.min(Instant::now() + limit::RETRY_PAUSE))
    }
}

/// `grpc-timeout`: up to eight digits and a unit.
fn timeout_of(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let count = digits.parse::<u64>().ok().filter(|_| digits.len() <= 8)?;
    let timeout = match unit {
        "H" => Duration::from_secs(count * 3_600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    };
    // A year: what has no end in practice must not overflow an instant.
    let timeout = timeout.min(Duration::from_secs(365 * 86_400));
    Some(timeout.saturating_sub(limit::ANSWER_MARGIN.min(timeout / 10)))
}

/// Where a write is done.
#[derive(Debug)]
pub enum Leader {
    Here,
    There(Hop),
}

/// The way to the leader.
#[derive(Debug)]
pub struct Hop {
    pub id: ControllerId,
    pub address: String,
    pub channel: Channel,
}

impl Hop {
    pub fn tasks(&self) -> v1::tasks_client::TasksClient<Channel> {
        v1::tasks_client::TasksClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_LIMIT)
    }

    pub fn agents(&self) -> v1::agents_client::AgentsClient<Channel> {
        v1::agents_client::AgentsClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_LIMIT)
    }

    pub fn namespaces(&self) -> v1::namespaces_client::NamespacesClient<Channel> {
        v1::namespaces_client::NamespacesClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_LIMIT)
    }

    pub fn policies(&self) -> v1::policies_client::PoliciesClient<Channel> {
        v1::policies_client::PoliciesClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_LIMIT)
    }

    pub fn join_tokens(&self) -> v1::join_tokens_client::JoinTokensClient<Channel> {
        v1::join_tokens_client::JoinTokensClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_LIMIT)
    }

    pub fn identities(&self) -> v1::identities_client::IdentitiesClient<Channel> {
        v1::identities_client::IdentitiesClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_LIMIT)
    }

    pub fn cluster(&self) -> v1::cluster_client::ClusterClient<Channel> {
        v1::cluster_client::ClusterClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_LIMIT)
    }

    /// The message on behalf of the caller.
    pub fn pass_on<M>(caller: &Caller, deadline: Deadline, message: M) -> Request<M> {
        let mut request = Request::new(message);
        request.set_timeout(deadline.left());
        callers::pass_on(&caller.principal, request.metadata_mut());
        request
    }
}

impl Gateway {
    /// Who calls, provided that it may look at tasks and members.
    pub fn reader<T>(&self, request: &Request<T>) -> Result<Caller, Failure> {
        let caller = self.0.caller(request)?;
        match caller.principal.role {
            Role::Client | Role::Controller => Ok(caller),
            Role::Agent => Err(Failure::new(
                Code::Forbidden,
                "an agent's certificate opens sessions only",
            )),
        }
    }

    /// The leader, once there is one that can commit.
    pub async fn leader(&self, deadline: Deadline) -> Result<Leader, Failure> {
        let mut leadership = self.0.cluster.leadership();
        loop {
            let (here, leader) = {
                let now = leadership.borrow_and_update();
                (now.is_me && now.ready, now.leader.filter(|_| !now.is_me))
            };
            if here {
                return Ok(Leader::Here);
            }
            if let Some(hop) = leader.and_then(|id| self.hop(id)) {
                return Ok(Leader::There(hop));
            }
            if self.0.stopping.is_cancelled() {
                return Err(failure::stopping());
            }
            match tokio::time::timeout_at(deadline.0, leadership.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(failure::stopping()),
                Err(_) => return Err(failure::no_leader()),
            }
        }
    }

    pub(super) fn hop(&self, id: ControllerId) -> Option<Hop> {
        let address = self.0.cluster.address_of(id)?.grpc;
        let channel = self.0.others.channel(id, &address).ok()?;
        Some(Hop {
            id,
            address,
            channel,
        })
    }

    /// Until another controller leads: a leader that hangs answers long after it was replaced.
    async fn deposed(&self, leader: ControllerId) {
        let mut leadership = self.0.cluster.leadership();
        let moved = leadership.wait_for(|now| now.leader.is_some_and(|now| now != leader));
        if moved.await.is_err() {
            // Stopping; the request's own end comes first.
            std::future::pending().await
        }
    }

    /// What a person asks to be written: looked at here, where it costs the log nothing yet, and done where the
    /// leader is. `what`: whom or what it is about, and the command.
    pub async fn ordered<M, I, T, Here, There>(
        &self,
        request: tonic::Request<M>,
        what: impl FnOnce(&M) -> Result<(I, Command), Failure>,
        here: impl Fn(I, Principal, Command) -> Here,
        there: impl Fn(Hop, tonic::Request<M>) -> There,
    ) -> Result<Response<T>, Failure>
    where
        M: Clone,
        I: Clone,
        Here: Future<Output = Result<T, Failure>> + Send,
        There: Future<Output = Result<tonic::Response<T>, tonic::Status>> + Send,
    {
        let caller = self.0.caller(&request)?;
        let deadline = Deadline::of(request.metadata());
        let message = request.into_inner();
        let (about, command) = what(&message)?;
        model::access::allows(&caller.principal, &command)?;
        command.validate()?;
        self.led(
            &caller,
            deadline,
            || here(about.clone(), caller.principal.clone(), command.clone()),
            |hop| there(hop, Hop::pass_on(&caller, deadline, message.clone())),
        )
        .await
    }

    /// Does a write where the leader is, and again while that is safe and there is time. A reply that
    /// came from another controller says where that one is.
    pub async fn led<T, Here, There>(
        &self,
        caller: &Caller,
        deadline: Deadline,
        here: impl Fn() -> Here,
        there: impl Fn(Hop) -> There,
    ) -> Result<Response<T>, Failure>
    where
        Here: Future<Output = Result<T, Failure>> + Send,
        There: Future<Output = Result<tonic::Response<T>, tonic::Status>> + Send,
    {
        // Once a try may have been committed, only an answer makes the outcome known again: nothing may
        // be said then that means "not done".
        let mut unknown: Option<Failure> = None;
        loop {
            let failure = match self.leader(deadline).await {
                // What is given up on here goes on by itself: its outcome is not known.
                Ok(Leader::Here) => match tokio::time::timeout_at(deadline.0, here()).await {
                    Ok(Ok(answer)) => return Ok(Response::new(answer)),
                    Ok(Err(failure)) => failure,
                    Err(_) => failure::unknown(),
                },
                Ok(Leader::There(hop)) if caller.forwarded => {
                    return Err(unknown.unwrap_or(failure::not_leader(Some(hop.address))));
                }
                Ok(Leader::There(hop)) => {
                    let deposed = self.deposed(hop.id);
                    let address = hop.address.clone();
                    tokio::select! {
                        answer = tokio::time::timeout_at(deadline.0, there(hop)) => match answer {
                            Ok(Ok(answer)) => {
                                let mut reply = Response::new(answer.into_inner());
                                status::set_leader(reply.metadata_mut(), &address);
                                return Ok(reply);
                            }
                            Ok(Err(status)) => failure::of_leader(&status),
                            Err(_) => failure::unknown(),
                        },
                        () = deposed => failure::unknown(),
                    }
                }
                Err(failure) => return Err(unknown.unwrap_or(failure)),
            };
            if !may_pass(&failure) {
                let is_answer = failure.code != Code::NoRoom;
                return Err(unknown.filter(|_| !is_answer).unwrap_or(failure));
            }
            if failure.code.reaction() == Reaction::Unknown {
                unknown = Some(failure::unknown());
            }
            if !deadline.allows_another_try() {
                return Err(unknown.unwrap_or(failure));
            }
            deadline.pause().await;
        }
    }

    /// The state as it is now, or later: a majority agreed after the call.
    pub async fn read(&self, deadline: Deadline) -> Result<(model::State, v1::Position), Failure> {
        let mut last = None;
        loop {
            let read = quorum::read(&self.0.cluster);
            let failure = match tokio::time::timeout_at(deadline.0, read).await {
                Ok(Ok(read)) => {
                    let position = v1::Position {
                        log_index: read.index,
                        term: read.term,
                        stale: false,
                    };
                    return Ok((read.value, position));
                }
                Ok(Err(error)) => failure::of_raft(&error),
                Err(_) => return Err(last.unwrap_or_else(|| self.unconfirmed())),
            };
            if !may_pass(&failure) || deadline.is_over() {
                return Err(failure);
            }
            last = Some(failure);
            deadline.pause().await;
        }
    }

    /// Why not even the first try of a read came to an end.
    fn unconfirmed(&self) -> Failure {
        match self.0.cluster.leadership().borrow().leader {
            Some(_) => failure::no_quorum(),
            None => failure::no_leader(),
        }
    }

    /// This controller's own state, however old.
    pub fn stale(&self) -> (std::sync::Arc<model::State>, v1::Position) {
        let state = self.0.cluster.view();
        let position = v1::Position {
            stale: true,
            ..position_of(&state)
        };
        (state, position)
    }
}

/// Whether the same request may fare better in a moment.
fn may_pass(failure: &Failure) -> bool {
    match failure.code.reaction() {
        // Not in a moment: somebody has to make room first.
        _ if failure.code == Code::NoRoom => false,
        Reaction::Unavailable | Reaction::Unknown => true,
        Reaction::Rejected | Reaction::Fatal => false,
    }
}

/// Where a state stands that is known to be new enough.
pub fn position_of(state: &model::State) -> v1::Position {
    v1::Position {
        log_index: state.last_applied(),
        term: state.last_term(),
        stale: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeout(text: &str) -> Option<Duration> {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", text.parse().unwrap());
        timeout_of(&metadata)
    }

    #[test]
    fn a_callers_timeout_is_read_in_every_unit_and_kept_a_little_short() {
        assert_eq!(timeout("10S"), Some(Duration::from_millis(9_900)));
        assert_eq!(timeout("2000m"), Some(Duration::from_millis(1_900)));
        assert_eq!(timeout("100m"), Some(Duration::from_millis(90)));
        assert_eq!(timeout("1M"), Some(Duration::from_millis(59_900)));
        assert_eq!(timeout("1000000u"), Some(Duration::from_millis(900)));
        assert!(timeout("99999999H").is_some());
        for wrong in ["", "S", "10", "x0S", "123456789S", "10s"] {
            assert_eq!(timeout(wrong), None, "{wrong}");
        }
        assert_eq!(timeout_of(&MetadataMap::new()), None);
    }
}
