//! Submits on one stream: a reply for each, whatever becomes of the others.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use model::{StateName, TaskId};
use security::Role;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Streaming};
use wire::status::{Code, Failure};
use wire::v1;
use wire::v1::TaskState;
use wire::v1::submit_all_reply::Outcome;
use wire::v1::tasks_client::TasksClient;

use super::agent::FakeAgent;
use super::fixture::{Fixture, PATIENCE, code, follows, principal, submit};
use crate::limit;
use crate::node::Node;

/// One stream, from the client's side.
struct Submits {
    messages: mpsc::UnboundedSender<v1::SubmitRequest>,
    replies: Streaming<v1::SubmitAllReply>,
}

impl Submits {
    async fn open(mut tasks: TasksClient<Channel>) -> Submits {
        let (messages, receiver) = mpsc::unbounded_channel();
        let messages_out = UnboundedReceiverStream::new(receiver);
        let replies = tasks.submit_all(messages_out).await.unwrap().into_inner();
        Submits { messages, replies }
    }

    fn send(&self, message: v1::SubmitRequest) {
        self.messages.send(message).unwrap();
    }

    async fn next(&mut self) -> (String, Result<v1::SubmitReply, Failure>) {
        let reply = tokio::time::timeout(PATIENCE, self.replies.next()).await;
        read(reply.unwrap().unwrap().unwrap())
    }

    /// The replies that are left when nothing more is sent.
    async fn rest(self) -> BTreeMap<String, Result<v1::SubmitReply, Failure>> {
        drop(self.messages);
        let rest = self.replies.map(|reply| read(reply.unwrap())).collect();
        let rest: Vec<_> = tokio::time::timeout(PATIENCE, rest).await.unwrap();
        let number = rest.len();
        let rest = BTreeMap::from_iter(rest);
        assert_eq!(rest.len(), number, "one reply for each");
        rest
    }
}

fn read(reply: v1::SubmitAllReply) -> (String, Result<v1::SubmitReply, Failure>) {
    let outcome = match reply.outcome.unwrap() {
        Outcome::Accepted(reply) => Ok(reply),
        Outcome::Refused(refusal) => Err(Failure::from(refusal)),
    };
    (reply.request_id, outcome)
}

/// Until this controller has applied it.
async fn until_known(node: &Node, id: u64) {
    let known = async {
        while node.controller.cluster.view().task(TaskId(id)).is_none() {
            crate::quorum::read(&node.controller.cluster).await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, known).await.unwrap();
}

/// Tasks that echo their number, and between them one that is refused.
async fn submits_many(tasks: TasksClient<Channel>) {
    let submits = Submits::open(tasks).await;
    for n in 0..50 {
        let n = n.to_string();
        submits.send(submit(&["echo", &n], &format!("r{n}"), PATIENCE));
        if n == "20" {
            submits.send(submit(&[], "bad", PATIENCE));
        }
    }
    let mut replies = submits.rest().await;
    let bad = replies.remove("bad").unwrap();
    assert_eq!(bad.unwrap_err().code, Code::Invalid);
    assert_eq!(replies.len(), 50);
    for (request_id, reply) in replies {
        let task = reply.unwrap().task.unwrap();
        assert_eq!(task.state(), TaskState::Succeeded);
        assert_eq!(task.request_id, request_id);
        assert_eq!(
            &task.result.unwrap().stdout[..],
            &request_id.as_bytes()[1..]
        );
        assert_eq!(task.user, "ada");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_submit_on_a_stream_has_its_own_reply_and_one_that_is_refused_ends_nothing() {
    let fixture = Fixture::new();
    let node = fixture.first().await;
    let _agent = FakeAgent::connect(&fixture, &node, "a1").await;
    submits_many(fixture.tasks(&node)).await;
    assert_eq!(node.controller.metrics.submits.get(), 51);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_passes_on_what_comes_on_a_stream() {
    let fixture = Fixture::new();
    let first = fixture.first().await;
    let second = fixture.joining("c2", &first).await;
    follows(&second).await;
    let _agent = FakeAgent::connect(&fixture, &first, "a1").await;
    submits_many(fixture.tasks(&second)).await;
    tokio::join!(second.stop(), first.stop());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_id_twice_at_once_on_a_stream_gives_one_task() {
    let fixture = Fixture::new();
    let node = fixture.first().await;
    let mut submits = Submits::open(fixture.tasks(&node)).await;
    submits.send(submit(&["true"], "r1", Duration::ZERO));
    submits.send(submit(&["true"], "r1", Duration::ZERO));
    let mut duplicates = Vec::new();
    for _ in 0..2 {
        let (request_id, reply) = submits.next().await;
        let reply = reply.unwrap();
        assert_eq!((request_id.as_str(), reply.task.unwrap().id), ("r1", 1));
        duplicates.push(reply.duplicate);
    }
    duplicates.sort_unstable();
    assert_eq!(duplicates, [false, true]);
    submits.send(submit(&["another"], "r1", Duration::ZERO));
    let (_, reused) = submits.next().await;
    assert_eq!(reused.unwrap_err().code, Code::RequestIdReused);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_stream_a_submit_without_a_request_id_is_refused() {
    let fixture = Fixture::new();
    let node = fixture.first().await;
    let mut submits = Submits::open(fixture.tasks(&node)).await;
    submits.send(submit(&["true"], "", Duration::ZERO));
    let (request_id, refused) = submits.next().await;
    assert_eq!(request_id, "");
    assert_eq!(refused.unwrap_err().code, Code::Invalid);
    submits.send(submit(&["true"], "r1", Duration::ZERO));
    let (request_id, accepted) = submits.next().await;
    assert_eq!(request_id, "r1");
    assert_eq!(accepted.unwrap().task.unwrap().id, 1);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_its_client_ended_ends_after_the_last_reply() {
    let fixture = Fixture::new();
    let node = fixture.first().await;
    let submits = Submits::open(fixture.tasks(&node)).await;
    submits.send(submit(&["true"], "r1", PATIENCE));
    submits.send(submit(&["true"], "r2", Duration::ZERO));
    let Submits { messages, replies } = submits;
    drop(messages);
    let mut replies = replies.map(|reply| read(reply.unwrap()));
    let (request_id, accepted) = replies.next().await.unwrap();
    assert_eq!(request_id, "r2");
    assert_eq!(accepted.unwrap().task.unwrap().state(), TaskState::Queued);
    // Only now can the other one end.
    let _agent = FakeAgent::connect(&fixture, &node, "a1").await;
    let (request_id, ended) = replies.next().await.unwrap();
    assert_eq!(request_id, "r1");
    assert_eq!(ended.unwrap().task.unwrap().state(), TaskState::Succeeded);
    assert!(replies.next().await.is_none());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_controller_answers_what_it_has_read_and_ends_the_stream() {
    let fixture = Fixture::new();
    let node = fixture.first().await;
    let mut submits = Submits::open(fixture.tasks(&node)).await;
    submits.send(submit(&["true"], "r1", PATIENCE));
    until_known(&node, 1).await;
    let ended = async {
        let (request_id, accepted) = submits.next().await;
        assert_eq!(request_id, "r1");
        assert_eq!(accepted.unwrap().task.unwrap().state(), TaskState::Queued);
        submits.replies.next().await.unwrap().unwrap_err()
    };
    let ((), ended) = tokio::join!(node.stop(), ended);
    assert_eq!(code(&ended), Code::ShuttingDown);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_read_no_further_than_its_limit_until_there_is_an_answer() {
    let fixture = Fixture::new();
    let node = fixture.first().await;
    let mut tasks = fixture.tasks(&node);
    let mut submits = Submits::open(tasks.clone()).await;
    let limit = limit::SUBMITS_ON_A_STREAM as u64;
    for n in 1..=limit + 1 {
        submits.send(submit(&["true"], &format!("r{n}"), PATIENCE));
    }
    until_known(&node, limit).await;
    assert_eq!(node.controller.metrics.submits.get(), limit);
    let request = v1::CancelTaskRequest {
        id: 1,
        reason: "make room".into(),
    };
    tasks.cancel(request).await.unwrap();
    let (_, cancelled) = submits.next().await;
    assert_eq!(
        cancelled.unwrap().task.unwrap().state(),
        TaskState::Cancelled
    );
    until_known(&node, limit + 1).await;
    drop(submits);
    let state = node.controller.cluster.view();
    let last = state.task(TaskId(limit + 1)).unwrap();
    assert_eq!(last.state(), StateName::Queued);
    node.stop().await;
}

/// What its submits wait for in turn is everybody's: they must not stand still there.
#[tokio::test(flavor = "multi_thread")]
async fn submits_go_on_though_their_client_reads_no_reply() {
    let fixture = Fixture::new();
    let node = fixture.first().await;
    let submits = Submits::open(fixture.tasks(&node)).await;
    let limit = limit::SUBMITS_ON_A_STREAM as u64;
    // Few replies are as much as HTTP/2 lets a sender have on the way to one that does not read.
    let labels = (0..60).map(|n| v1::Label {
        key: format!("k{n}"),
        value: "x".repeat(250),
    });
    for n in 1..=limit + 1 {
        let mut message = submit(&["true"], &format!("r{n}"), Duration::ZERO);
        message.spec.as_mut().unwrap().labels = labels.clone().collect();
        submits.send(message);
    }
    until_known(&node, limit).await;
    assert_eq!(submits.rest().await.len() as u64, limit + 1);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_cannot_be_read_ends_the_stream_and_says_why() {
    let fixture = Fixture::new();
    let node = fixture.first().await;
    let mut submits = Submits::open(fixture.tasks(&node)).await;
    let long = "x".repeat(wire::transport::MESSAGE_LIMIT);
    submits.send(submit(&["true", &long], "r1", Duration::ZERO));
    let refused = submits.replies.next().await.unwrap().unwrap_err();
    assert_eq!(code(&refused), Code::OverLimit);
    assert!(submits.replies.next().await.is_none());
    assert_eq!(node.controller.metrics.submits.get(), 0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_submit_may_not_do_it_on_a_stream() {
    let fixture = Fixture::new();
    let node = fixture.first().await;
    let mut nobody = TasksClient::new(fixture.anonymous(&node));
    let nothing = || tokio_stream::empty::<v1::SubmitRequest>();
    let refused = nobody.submit_all(nothing()).await.unwrap_err();
    assert_eq!(code(&refused), Code::Unauthenticated);

    let agent = TasksClient::new(fixture.channel(&node, Role::Agent, "a1"));
    let mut submits = Submits::open(agent).await;
    submits.send(submit(&["true"], "r1", Duration::ZERO));
    let (_, refused) = submits.next().await;
    assert_eq!(refused.unwrap_err().code, Code::Forbidden);

    let ada = principal("ada", model::Role::Client);
    // A member, and one that is none: a stream outlives what its first message was asked for.
    for (controller, why) in [("c1", Code::Forbidden), ("c3", Code::ShuttingDown)] {
        let mut passed_on = Request::new(nothing());
        crate::callers::pass_on(&ada, passed_on.metadata_mut());
        let mut tasks = TasksClient::new(fixture.channel(&node, Role::Controller, controller));
        let refused = tasks.submit_all(passed_on).await.unwrap_err();
        assert_eq!(code(&refused), why);
    }
    node.stop().await;
}
