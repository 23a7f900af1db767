//! The connection of a command to its cluster: the client of `wire`, with our certificate, and with its
//! errors turned into failures that have an exit code.
//!
//! Nearly every request of ours may be sent again: reads change nothing, a submit has a request id, a
//! second cancel finds the first one's work. So the client goes from controller to controller until it is
//! answered or refused, or its patience ends. Handing leadership over to nobody in particular is sent
//! again only where it surely was not done: it would move on a second time.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use security::{Alpn, Credentials, Expected, Role};
use tokio::io::{AsyncRead, AsyncSeek};
use wire::client::{Client, Error, Outcome, Settings};
use wire::status::{Code, Failure as Refusal, Reaction};
use wire::v1;

use super::Target;
use crate::exit::Exit;
use crate::failure::{Failure, Result};

/// A cluster, as its clients see it.
pub struct Connection {
    client: Client,
    trust: security::Trust,
}

impl Connection {
    /// Reads the certificate; nothing is dialled yet.
    pub fn open(target: &Target) -> Result<Connection> {
        let credentials = Credentials::load(&target.keys)?;
        let tls = security::client_config(&credentials, Expected::any(Role::Controller), Alpn::H2)?;
        let client = Client::connect(&target.addresses, tls, Settings::default());
        Ok(Connection {
            client: client.map_err(failed)?,
            trust: credentials.trust().clone(),
        })
    }

    pub async fn submit(&self, request: &v1::SubmitRequest) -> Result<v1::SubmitReply> {
        self.client.submit(request).await.map_err(failed)
    }

    pub async fn task(&self, id: u64) -> Result<v1::Task> {
        let request = v1::GetTaskRequest { id, stale: false };
        let reply = self.client.get(&request).await;
        let task = reply.map_err(failed)?.task.ok_or_else(no_task)?;
        self.whole(task).await
    }

    /// What one controller knows of it, and where in the log that is.
    pub async fn stale_task(&self, id: u64) -> Result<(v1::Task, v1::Position)> {
        let request = v1::GetTaskRequest { id, stale: true };
        let reply = self.client.get(&request).await.map_err(failed)?;
        let position = reply.position.unwrap_or_default();
        let task = self.whole(reply.task.ok_or_else(no_task)?).await?;
        Ok((task, position))
    }

    /// The task when it has ended, or as it is after this time.
    pub async fn wait(&self, id: u64, time: Duration) -> Result<v1::Task> {
        let reply = self.client.wait(id, time).await.map_err(failed)?;
        self.whole(reply.task.ok_or_else(no_task)?).await
    }

    /// With an output that was too large for a message.
    async fn whole(&self, mut task: v1::Task) -> Result<v1::Task> {
        if let Some(result) = &mut task.result {
            for (text, blob) in [
                (&mut result.stdout, &mut result.stdout_blob),
                (&mut result.stderr, &mut result.stderr_blob),
            ] {
                if let Some(blob) = blob.take() {
                    *text = self.client.get_whole_blob(&blob).await.map_err(failed)?;
                }
            }
        }
        Ok(task)
    }

    /// Until a majority has it on disk. `told` hears how many bytes have arrived.
    pub async fn put_blob(
        &self,
        blob: model::BlobRef,
        file: &mut (impl AsyncRead + AsyncSeek + Unpin + Send),
        told: impl FnMut(u64),
    ) -> Result<()> {
        let put = self.client.put_blob(&blob.into(), file, told).await;
        put.map_err(failed)
    }

    pub async fn tasks(&self, request: &v1::ListTasksRequest) -> Result<v1::ListTasksReply> {
        self.client.list(request).await.map_err(failed)
    }

    pub async fn cancel(&self, request: &v1::CancelTaskRequest) -> Result<v1::Task> {
        let reply = self.client.cancel(request).await;
        let failed = |error| cancel_failed(error, request.id);
        reply.map_err(failed)?.task.ok_or_else(no_task)
    }

    pub async fn why(&self, id: u64) -> Result<v1::WhyReply> {
        self.client.why(id).await.map_err(failed)
    }

    pub async fn plan(&self, spec: v1::TaskSpec) -> Result<v1::WhyReply> {
        self.client.plan(spec).await.map_err(failed)
    }

    /// Chunks of output. A stream that breaks is the caller's to continue.
    pub async fn logs(
        &self,
        request: &v1::LogsRequest,
    ) -> Result<BoxStream<'static, Result<v1::LogChunk>>> {
        let chunks = self.client.logs(request).await.map_err(failed)?;
        Ok(chunks.map(|chunk| chunk.map_err(broken_off)).boxed())
    }

    /// What happened. A stream that breaks is the caller's to continue.
    pub async fn events(
        &self,
        request: &v1::EventsRequest,
    ) -> Result<BoxStream<'static, Result<v1::EventsReply>>> {
        let replies = self.client.events(request).await.map_err(failed)?;
        Ok(replies.map(|reply| reply.map_err(broken_off)).boxed())
    }

    /// How the controller is that answers.
    pub async fn member(&self) -> Result<v1::MemberReply> {
        self.client.member().await.map_err(failed)
    }

    pub async fn status(&self) -> Result<v1::StatusReply> {
        self.client.status().await.map_err(failed)
    }

    pub async fn agents(&self) -> Result<Vec<v1::Agent>> {
        Ok(self.client.agents().await.map_err(failed)?.agents)
    }

    pub async fn agent(&self, id: &str) -> Result<v1::Agent> {
        held(
            self.client.agent(id).await.map_err(failed)?.agent,
            "an agent",
        )
    }

    pub async fn namespaces(&self, users: bool) -> Result<Vec<v1::Namespace>> {
        let reply = self.client.namespaces(users).await;
        Ok(reply.map_err(failed)?.namespaces)
    }

    pub async fn namespace(&self, name: &str) -> Result<v1::Namespace> {
        held(
            self.client.namespace(name).await.map_err(failed)?.namespace,
            "a namespace",
        )
    }

    /// The namespace as it is then.
    pub async fn set_namespace(&self, said: &v1::SetNamespaceRequest) -> Result<v1::Namespace> {
        held(
            self.client
                .set_namespace(said)
                .await
                .map_err(failed)?
                .namespace,
            "a namespace",
        )
    }

    pub async fn policies(&self) -> Result<Vec<v1::Policy>> {
        Ok(self.client.policies().await.map_err(failed)?.policies)
    }

    /// All of them as they are then.
    pub async fn set_policy(&self, said: &v1::SetPolicyRequest) -> Result<Vec<v1::Policy>> {
        let reply = self.client.set_policy(said).await;
        Ok(reply.map_err(failed)?.policies)
    }

    pub async fn rules(&self) -> Result<Vec<v1::Rule>> {
        Ok(self.client.rules().await.map_err(failed)?.rules)
    }

    /// The rule, and the one whose place it takes.
    pub async fn add_rule(
        &self,
        asked: &v1::AddRuleRequest,
    ) -> Result<(v1::Rule, Option<v1::Rule>)> {
        let reply = self.client.add_rule(asked).await.map_err(failed)?;
        Ok((held(reply.rule, "a rule")?, reply.replaced))
    }

    /// The rule as it was.
    pub async fn remove_rule(&self, id: &str) -> Result<v1::Rule> {
        let reply = self.client.remove_rule(id).await;
        held(reply.map_err(failed)?.rule, "a rule")
    }

    /// The agent as it is then; one that is removed, as it was.
    pub async fn order_agent(&self, order: &v1::AgentOrder) -> Result<v1::Agent> {
        held(
            self.client.order_agent(order).await.map_err(failed)?.agent,
            "an agent",
        )
    }

    /// By which a machine that joins knows this cluster.
    pub fn pin(&self) -> Result<security::Pin> {
        Ok(self.trust.pin()?)
    }

    pub async fn create_join_token(
        &self,
        request: &v1::CreateJoinTokenRequest,
    ) -> Result<v1::JoinToken> {
        held(
            self.client
                .create_join_token(request)
                .await
                .map_err(failed)?
                .token,
            "a join token",
        )
    }

    pub async fn join_tokens(&self) -> Result<Vec<v1::JoinToken>> {
        Ok(self.client.join_tokens().await.map_err(failed)?.tokens)
    }

    pub async fn revoke_join_token(&self, id: &str) -> Result<v1::JoinToken> {
        held(
            self.client
                .revoke_join_token(id)
                .await
                .map_err(failed)?
                .token,
            "a join token",
        )
    }

    pub async fn promote(&self, id: &str, hold: Duration) -> Result<()> {
        let reply = self.client.promote(id, hold).await;
        reply.map(drop).map_err(failed)
    }

    pub async fn remove(&self, id: &str, hold: Duration) -> Result<()> {
        let reply = self.client.remove(id, hold).await;
        reply.map(drop).map_err(failed)
    }

    /// The new leader.
    pub async fn transfer_leadership(&self, to: &str) -> Result<String> {
        let request = v1::TransferLeadershipRequest { to: to.to_owned() };
        Ok(self
            .client
            .transfer_leadership(&request)
            .await
            .map_err(failed)?
            .leader)
    }
}

/// What an answer is about, which every controller puts into it.
fn held<T>(part: Option<T>, what: &str) -> Result<T> {
    part.ok_or_else(|| malformed(&format!("an answer without {what}")))
}

/// How a call ended that did not end well.
fn failed(error: Error) -> Failure {
    let failure = refused(&error.failure);
    match error.outcome {
        Outcome::Known => failure,
        Outcome::Unknown => failure.with_exit(Exit::Unknown),
    }
}

fn cancel_failed(error: Error, id: u64) -> Failure {
    let open = error.outcome == Outcome::Unknown;
    let failure = failed(error);
    if open {
        let hint = cancel_again(&[model::TaskId(id)]);
        Failure { hint, ..failure }
    } else {
        failure
    }
}

/// The next step where nobody knows whether a cancel was accepted.
pub fn cancel_again(ids: &[model::TaskId]) -> String {
    let names = ids.iter().map(model::TaskId::to_string);
    let names = names.collect::<Vec<_>>().join(" ");
    format!("it may have been accepted; cancelling again is safe: `quorate task cancel {names}`")
}

/// A stream of output that ended before its end: nothing was changed by reading it.
fn broken_off(status: tonic::Status) -> Failure {
    let refusal = Refusal::read(&status);
    let failure = refused(&refusal);
    match refusal.code.reaction() {
        Reaction::Unknown => Failure {
            hint: "ask again".to_owned(),
            ..failure
        },
        Reaction::Rejected | Reaction::Unavailable | Reaction::Fatal => failure,
    }
}

/// What a controller, or the way to it, said.
pub fn refused(refusal: &Refusal) -> Failure {
    let exit = match (refusal.code, refusal.code.reaction()) {
        (Code::NoSuchTask | Code::NoSuchAgent | Code::NotFound, _) => Exit::NotFound,
        (_, Reaction::Rejected) => Exit::Refused,
        (_, Reaction::Unavailable | Reaction::Unknown) => Exit::Unknown,
        (_, Reaction::Fatal) => Exit::NotFound,
    };
    let hint = refusal.hint.clone().unwrap_or_default();
    Failure {
        request_id: refusal.request_id.clone(),
        ..Failure::refused(refusal.code.as_str(), &refusal.message, hint).with_exit(exit)
    }
}

fn no_task() -> Failure {
    malformed("an answer without a task")
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
            assert_eq!(
                refused(&Refusal::new(code, "x")).exit.code(),
                expected,
                "{code:?}"
            );
        }
    }

    #[test]
    fn the_hint_for_an_open_outcome_fits_what_was_asked() {
        let open = |outcome| Error {
            failure: Refusal::new(Code::OutcomeUnknown, "x"),
            outcome,
        };
        let failure = cancel_failed(open(Outcome::Unknown), 17);
        assert!(
            failure.hint.contains("`quorate task cancel t17`"),
            "{failure}"
        );
        assert_eq!(failure.exit, Exit::Unknown);
        let broken = broken_off(Refusal::new(Code::OutcomeUnknown, "x").into());
        assert_eq!(
            (broken.hint.as_str(), broken.exit),
            ("ask again", Exit::Unknown)
        );
    }

    #[test]
    fn a_server_that_broke_in_the_middle_of_a_write_leaves_it_open() {
        let failure = Refusal::new(Code::Internal, "x").with_request_id("r1");
        let failure = failed(Error {
            failure,
            outcome: Outcome::Unknown,
        });
        assert_eq!(
            (failure.exit, failure.request_id.as_deref()),
            (Exit::Unknown, Some("r1"))
        );
    }
}
