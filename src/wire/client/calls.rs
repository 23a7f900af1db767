//! One method for each call of the services, with what may be repeated decided here.

use std::time::Duration;

use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Request, Streaming};

use super::watch::Watch;
use super::{Client, Effect, Error, Terms};
use crate::transport::MESSAGE_LIMIT;
use crate::v1;
use crate::v1::agents_client::AgentsClient;
use crate::v1::cluster_client::ClusterClient;
use crate::v1::namespaces_client::NamespacesClient;
use crate::v1::policies_client::PoliciesClient;
use crate::v1::tasks_client::TasksClient;

/// How long a controller is asked to hold a wait before it answers with the present state: short enough
/// that a forgotten one costs little, long enough that asking again costs nothing.
const HOLD: Duration = Duration::from_secs(20);

impl Client {
    /// Repeated only with a request id: without one it could run twice.
    pub async fn submit(&self, request: &v1::SubmitRequest) -> Result<v1::SubmitReply, Error> {
        let id = Some(request.request_id.as_str()).filter(|id| !id.is_empty());
        let terms = Terms {
            effect: if id.is_some() {
                Effect::Repeatable
            } else {
                Effect::Once
            },
            hold: Duration::from_millis(request.wait_ms),
            request_id: id,
        };
        self.call(terms, request, |to, message| async move {
            tasks(to).submit(message).await
        })
        .await
    }

    pub async fn get(&self, request: &v1::GetTaskRequest) -> Result<v1::TaskReply, Error> {
        let send = |to, message| async move { tasks(to).get(message).await };
        self.call(Terms::READ, request, send).await
    }

    pub async fn list(&self, request: &v1::ListTasksRequest) -> Result<v1::ListTasksReply, Error> {
        let send = |to, message| async move { tasks(to).list(message).await };
        self.call(Terms::READ, request, send).await
    }

    /// The task when it has ended, or as it is after this time. An error where no controller answers for
    /// longer than the client's patience, however much time is left.
    pub async fn wait(&self, id: u64, within: Duration) -> Result<v1::TaskReply, Error> {
        let begun = Instant::now();
        loop {
            let hold = HOLD.min(within.saturating_sub(begun.elapsed()));
            // Zero would mean the server's own default.
            let timeout_ms = u64::try_from(hold.as_millis()).unwrap_or(u64::MAX).max(1);
            let message = v1::WaitTaskRequest { id, timeout_ms };
            let terms = Terms {
                hold,
                ..Terms::READ
            };
            let send = |to, message| async move { tasks(to).wait(message).await };
            let reply: v1::TaskReply = self.call(terms, &message, send).await?;
            if has_ended(&reply) || begun.elapsed() >= within {
                return Ok(reply);
            }
        }
    }

    /// A second cancel finds the first one's work.
    pub async fn cancel(&self, request: &v1::CancelTaskRequest) -> Result<v1::TaskReply, Error> {
        let send = |to, message| async move { tasks(to).cancel(message).await };
        self.call(Terms::REPEATABLE, request, send).await
    }

    pub async fn why(&self, id: u64) -> Result<v1::WhyReply, Error> {
        let send = |to, message| async move { tasks(to).why(message).await };
        self.call(Terms::READ, &v1::WhyRequest { id }, send).await
    }

    pub async fn plan(&self, spec: v1::TaskSpec) -> Result<v1::WhyReply, Error> {
        let message = v1::PlanRequest { spec: Some(spec) };
        let send = |to, message| async move { tasks(to).plan(message).await };
        self.call(Terms::READ, &message, send).await
    }

    /// Output as it comes. Only the beginning is repeated: when the stream breaks, the caller knows how
    /// far it came and asks for the rest.
    pub async fn logs(&self, request: &v1::LogsRequest) -> Result<Streaming<v1::LogChunk>, Error> {
        let send = |to, message| async move { tasks(to).logs(endless(message)).await };
        self.call(Terms::READ, request, send).await
    }

    /// The task at once and then at every change, over failovers, until it has ended.
    pub fn watch(&self, id: u64) -> Watch {
        Watch::new(self.clone(), id)
    }

    pub(super) async fn watch_once(&self, id: u64) -> Result<Streaming<v1::TaskReply>, Error> {
        let send = |to, message| async move { tasks(to).watch(endless(message)).await };
        self.call(Terms::READ, &v1::WatchTaskRequest { id }, send)
            .await
    }

    /// What happened, from an index on. A stream that breaks is the caller's to continue.
    pub async fn events(
        &self,
        request: &v1::EventsRequest,
    ) -> Result<Streaming<v1::EventsReply>, Error> {
        let send = |to, message| async move { cluster(to).events(endless(message)).await };
        self.call(Terms::READ, request, send).await
    }

    pub async fn status(&self) -> Result<v1::StatusReply, Error> {
        let send = |to, message| async move { cluster(to).status(message).await };
        self.call(Terms::READ, &v1::StatusRequest {}, send).await
    }

    /// Of whichever controller answers: for one that has an address alone.
    pub async fn member(&self) -> Result<v1::MemberReply, Error> {
        let send = |to, message| async move { cluster(to).member(message).await };
        self.call(Terms::READ, &v1::MemberRequest {}, send).await
    }

    /// `hold`: how long the newcomer may take to catch up.
    pub async fn join(
        &self,
        request: &v1::JoinRequest,
        hold: Duration,
    ) -> Result<v1::JoinReply, Error> {
        let terms = Terms {
            hold,
            ..Terms::REPEATABLE
        };
        self.call(terms, request, |to, message| async move {
            cluster(to).join(message).await
        })
        .await
    }

    /// To nobody in particular it is not repeated, for it would move on a second time.
    pub async fn transfer_leadership(
        &self,
        request: &v1::TransferLeadershipRequest,
    ) -> Result<v1::TransferLeadershipReply, Error> {
        let terms = if request.to.is_empty() {
            Terms::ONCE
        } else {
            Terms::REPEATABLE
        };
        let send = |to, message| async move { cluster(to).transfer_leadership(message).await };
        self.call(terms, request, send).await
    }

    /// `hold`: how long the learner may take to catch up, or others to finish what they change.
    pub async fn promote(&self, id: &str, hold: Duration) -> Result<v1::MembershipReply, Error> {
        let message = v1::PromoteRequest { id: id.to_owned() };
        let terms = Terms {
            hold,
            ..Terms::REPEATABLE
        };
        let send = |to, message| async move { cluster(to).promote(message).await };
        self.call(terms, &message, send).await
    }

    pub async fn remove(&self, id: &str, hold: Duration) -> Result<v1::MembershipReply, Error> {
        let message = v1::RemoveRequest { id: id.to_owned() };
        let terms = Terms {
            hold,
            ..Terms::REPEATABLE
        };
        let send = |to, message| async move { cluster(to).remove(message).await };
        self.call(terms, &message, send).await
    }

    pub async fn agents(&self) -> Result<v1::ListAgentsReply, Error> {
        let send = |to, message| async move { agents(to).list(message).await };
        self.call(Terms::READ, &v1::ListAgentsRequest {}, send)
            .await
    }

    pub async fn agent(&self, id: &str) -> Result<v1::AgentReply, Error> {
        let message = v1::GetAgentRequest { id: id.to_owned() };
        let send = |to, message| async move { agents(to).get(message).await };
        self.call(Terms::READ, &message, send).await
    }

    pub async fn namespaces(&self, users: bool) -> Result<v1::ListNamespacesReply, Error> {
        let message = v1::ListNamespacesRequest { users };
        let send = |to, message| async move { namespaces(to).list(message).await };
        self.call(Terms::READ, &message, send).await
    }

    pub async fn namespace(&self, name: &str) -> Result<v1::NamespaceReply, Error> {
        let message = v1::GetNamespaceRequest {
            name: name.to_owned(),
        };
        let send = |to, message| async move { namespaces(to).get(message).await };
        self.call(Terms::READ, &message, send).await
    }

    pub async fn set_namespace(
        &self,
        request: &v1::SetNamespaceRequest,
    ) -> Result<v1::NamespaceReply, Error> {
        let send = |to, message| async move { namespaces(to).set(message).await };
        self.call(Terms::REPEATABLE, request, send).await
    }

    pub async fn policies(&self) -> Result<v1::PoliciesReply, Error> {
        let send = |to, message| async move { policies(to).list(message).await };
        self.call(Terms::READ, &v1::ListPoliciesRequest {}, send)
            .await
    }

    pub async fn set_policy(
        &self,
        request: &v1::SetPolicyRequest,
    ) -> Result<v1::PoliciesReply, Error> {
        let send = |to, message| async move { policies(to).set(message).await };
        self.call(Terms::REPEATABLE, request, send).await
    }

    pub async fn rules(&self) -> Result<v1::ListRulesReply, Error> {
        let send = |to, message| async move { policies(to).list_rules(message).await };
        self.call(Terms::READ, &v1::ListRulesRequest {}, send).await
    }

    pub async fn add_rule(&self, request: &v1::AddRuleRequest) -> Result<v1::RuleReply, Error> {
        let send = |to, message| async move { policies(to).add_rule(message).await };
        self.call(Terms::REPEATABLE, request, send).await
    }

    pub async fn remove_rule(&self, id: &str) -> Result<v1::RuleReply, Error> {
        let message = v1::RemoveRuleRequest { id: id.to_owned() };
        let send = |to, message| async move { policies(to).remove_rule(message).await };
        self.call(Terms::ONCE, &message, send).await
    }

    pub async fn order_agent(&self, order: &v1::AgentOrder) -> Result<v1::AgentReply, Error> {
        let send = |to, message| async move { agents(to).order(message).await };
        self.call(Terms::REPEATABLE, order, send).await
    }
}

/// Whether the task will not change any more.
pub(super) fn has_ended(reply: &v1::TaskReply) -> bool {
    let state = reply
        .task
        .as_ref()
        .map_or(v1::TaskState::Unspecified, v1::Task::state);
    match state {
        v1::TaskState::Succeeded
        | v1::TaskState::Failed
        | v1::TaskState::Cancelled
        | v1::TaskState::Unknown
        | v1::TaskState::DeadLetter => true,
        v1::TaskState::Unspecified
        | v1::TaskState::Queued
        | v1::TaskState::Assigned
        | v1::TaskState::Running => false,
    }
}

/// A stream's request without a time limit, which would end the stream as well. The limit still holds
/// for its beginning, on our side.
pub(super) fn endless<Message>(request: Request<Message>) -> Request<Message> {
    Request::new(request.into_inner())
}

fn tasks(channel: Channel) -> TasksClient<Channel> {
    TasksClient::new(channel).max_decoding_message_size(MESSAGE_LIMIT)
}

fn cluster(channel: Channel) -> ClusterClient<Channel> {
    ClusterClient::new(channel).max_decoding_message_size(MESSAGE_LIMIT)
}

fn namespaces(channel: Channel) -> NamespacesClient<Channel> {
    NamespacesClient::new(channel).max_decoding_message_size(MESSAGE_LIMIT)
}

fn policies(channel: Channel) -> PoliciesClient<Channel> {
    PoliciesClient::new(channel).max_decoding_message_size(MESSAGE_LIMIT)
}

fn agents(channel: Channel) -> AgentsClient<Channel> {
    AgentsClient::new(channel).max_decoding_message_size(MESSAGE_LIMIT)
}
