//! Tasks, from a submit to its end.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use security::Role;
use tonic::Request;
use wire::status::Code;
use wire::v1;
use wire::v1::TaskState;
use wire::v1::tasks_client::TasksClient;

use super::agent::FakeAgent;
use super::cluster::voters;
use super::fixture::{Fixture, PATIENCE, code, follows, principal, submit};
use crate::callers::Caller;
use crate::gateway::{Deadline, Gateway, failure};

#[tokio::test(flavor = "multi_thread")]
async fn a_submit_runs_on_an_agent_and_its_verdict_reaches_whoever_waits() {
    let fixture = Fixture::new();
    let node = fixture.first().await;
    let _agent = FakeAgent::connect(&fixture, &node, "a1").await;
    let mut tasks = fixture.tasks(&node);
    let reply = tasks
        .submit(submit(&["echo", "hello"], "r1", PATIENCE))
        .await
        .unwrap()
        .into_inner();
    let task = reply.task.unwrap();
    assert_eq!(task.state(), TaskState::Succeeded);
    assert_eq!(&task.result.unwrap().stdout[..], b"hello");
    assert_eq!((task.agent.as_str(), task.user.as_str()), ("a1", "ada"));
    assert!(!reply.duplicate && reply.position.unwrap().log_index > 0);

    let again = tasks
        .submit(submit(&["echo", "hello"], "r1", PATIENCE))
        .await
        .unwrap()
        .into_inner();
    assert!(again.duplicate);
    assert_eq!(again.task.unwrap().id, task.id);
    let other = tasks
        .submit(submit(&["echo", "other"], "r1", PATIENCE))
        .await
        .unwrap_err();
    assert_eq!(code(&other), Code::RequestIdReused);

    let waited = tasks
        .wait(v1::WaitTaskRequest {
            id: task.id,
            timeout_ms: 1,
        })
        .await
        .unwrap();
    assert_eq!(
        waited.into_inner().task.unwrap().state(),
        TaskState::Succeeded
    );
    let why = tasks
        .why(v1::WhyRequest { id: task.id })
        .await
        .unwrap()
        .into_inner();
    assert!(!why.summary.is_empty() && why.decision[0].agent == "a1");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_shows_a_task_running_and_cancelled_and_then_ends() {
    let fixture = Fixture::new();
    let node = fixture.first().await;
    let _agent = FakeAgent::connect(&fixture, &node, "a1").await;
    let mut tasks = fixture.tasks(&node);
    let reply = tasks
        .submit(submit(&["hold"], "", Duration::ZERO))
        .await
        .unwrap();
    let id = reply.into_inner().task.unwrap().id;
    let mut watch = tasks
        .watch(v1::WatchTaskRequest { id })
        .await
        .unwrap()
        .into_inner();
    let mut cancelled = false;
    let mut last = TaskState::Unspecified;
    while let Some(reply) = watch.next().await {
        last = reply.unwrap().task.unwrap().state();
        if last == TaskState::Running && !cancelled {
            cancelled = true;
            let request = v1::CancelTaskRequest {
                id,
                reason: "enough".into(),
            };
            let task = tasks
                .clone()
                .cancel(request)
                .await
                .unwrap()
                .into_inner()
                .task
                .unwrap();
            assert!(task.cancel_requested);
        }
    }
    assert!(cancelled && last == TaskState::Cancelled);
    let refused = tasks
        .cancel(v1::CancelTaskRequest {
            id: 99,
            reason: String::new(),
        })
        .await;
    assert_eq!(code(&refused.unwrap_err()), Code::NoSuchTask);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_long_is_refused_before_it_costs_the_log_an_entry() {
    let fixture = Fixture::new();
    let node = fixture.first().await;
    let mut tasks = fixture.tasks(&node);
    let reply = tasks.submit(submit(&["true"], "", Duration::ZERO)).await;
    let id = reply.unwrap().into_inner().task.unwrap().id;
    let before = node.controller.cluster.view().last_applied();
    let reason = "x".repeat(1024 * 1024);
    let cancelled = tasks.cancel(v1::CancelTaskRequest { id, reason }).await;
    assert_eq!(code(&cancelled.unwrap_err()), Code::OverLimit);
    let name = "x".repeat(1_000);
    let again = tasks.submit(submit(&["true"], &name, Duration::ZERO)).await;
    assert_eq!(code(&again.unwrap_err()), Code::OverLimit);
    assert_eq!(node.controller.cluster.view().last_applied(), before);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_as_long_as_its_deadline_still_answers_the_present_state() {
    let fixture = Fixture::new();
    let node = fixture.first().await;
    let mut tasks = fixture.tasks(&node);
    let reply = tasks.submit(submit(&["true"], "", Duration::ZERO)).await;
    let id = reply.unwrap().into_inner().task.unwrap().id;
    let mut request = Request::new(v1::WaitTaskRequest {
        id,
        timeout_ms: 1_500,
    });
    request.set_timeout(Duration::from_millis(1_500));
    let waited = tasks.wait(request).await.unwrap().into_inner();
    assert_eq!(waited.task.unwrap().state(), TaskState::Queued);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_runs_out_answers_the_present_state() {
    let fixture = Fixture::new();
    let node = fixture.first().await;
    let mut tasks = fixture.tasks(&node);
    let wait = Duration::from_millis(20);
    let reply = tasks
        .submit(submit(&["true"], "", wait))
        .await
        .unwrap()
        .into_inner();
    let id = reply.task.unwrap().id;
    let waited = tasks
        .wait(v1::WaitTaskRequest { id, timeout_ms: 20 })
        .await
        .unwrap();
    assert_eq!(waited.into_inner().task.unwrap().state(), TaskState::Queued);
    let unknown = tasks
        .wait(v1::WaitTaskRequest {
            id: 99,
            timeout_ms: 20,
        })
        .await
        .unwrap_err();
    assert_eq!(code(&unknown), Code::NoSuchTask);
    let why = tasks.why(v1::WhyRequest { id }).await.unwrap().into_inner();
    assert_eq!(why.queue_position, Some(1));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_paged_and_filtered() {
    let fixture = Fixture::new();
    let node = fixture.first().await;
    let mut tasks = fixture.tasks(&node);
    for n in 0..5 {
        let request = submit(&["true", &n.to_string()], "", Duration::ZERO);
        tasks.submit(request).await.unwrap();
    }
    let mut seen = Vec::new();
    let mut page = 0;
    loop {
        let request = v1::ListTasksRequest {
            limit: 2,
            page,
            ..Default::default()
        };
        let reply = tasks.list(request).await.unwrap().into_inner();
        seen.push(reply.tasks.iter().map(|task| task.id).collect::<Vec<_>>());
        page = reply.next;
        if page == 0 {
            break;
        }
    }
    assert_eq!(seen, [vec![5, 4], vec![3, 2], vec![1]]);
    let request = v1::ListTasksRequest {
        user: "eve".into(),
        stale: true,
        ..Default::default()
    };
    let reply = tasks.list(request).await.unwrap().into_inner();
    assert!(reply.tasks.is_empty() && reply.position.unwrap().stale);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shows_no_certificate_or_the_wrong_one_is_told_so() {
    let fixture = Fixture::new();
    let node = fixture.first().await;
    let mut nobody = TasksClient::new(fixture.anonymous(&node));
    let refused = nobody
        .submit(submit(&["true"], "", Duration::ZERO))
        .await
        .unwrap_err();
    assert_eq!(
        (code(&refused), refused.code()),
        (Code::Unauthenticated, tonic::Code::Unauthenticated)
    );
    let mut agent = TasksClient::new(fixture.channel(&node, Role::Agent, "a1"));
    let refused = agent
        .submit(submit(&["true"], "", Duration::ZERO))
        .await
        .unwrap_err();
    assert_eq!(code(&refused), Code::Forbidden);
    let refused = agent
        .list(v1::ListTasksRequest::default())
        .await
        .unwrap_err();
    assert_eq!(code(&refused), Code::Forbidden);
    let mut tasks = fixture.tasks(&node);
    let empty = tasks
        .submit(v1::SubmitRequest::default())
        .await
        .unwrap_err();
    assert_eq!(code(&empty), Code::Invalid);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spec_over_its_limit_is_refused_before_it_is_proposed() {
    let fixture = Fixture::new();
    let node = fixture.first().await;
    let mut tasks = fixture.tasks(&node);
    let words = |length: usize| submit(&["true", &"x".repeat(length)], "r1", Duration::ZERO);
    let bare = model::TaskSpec::try_from(words(0).spec.unwrap()).unwrap();
    let room = model::SPEC_MAX_BYTES - bare.size();
    let refused = tasks.submit(words(room + 1)).await.unwrap_err();
    let failure = wire::status::Failure::read(&refused);
    assert_eq!(failure.code, Code::OverLimit);
    assert!(failure.message.contains("262144 bytes"), "{failure}");
    // It is the gateway that refused: nothing went through the log to be refused there.
    let refused_when_applied = &node.controller.metrics.rejections;
    assert_eq!(refused_when_applied.get(), 0);
    let accepted = tasks.submit(words(room)).await.unwrap().into_inner();
    assert_eq!(accepted.task.unwrap().id, 1);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_leader_a_write_waits_as_long_as_its_caller_and_then_says_so() {
    let fixture = Fixture::new();
    let node = fixture.alone("c1").await;
    let mut tasks = fixture.tasks(&node);
    let mut request = Request::new(submit(&["true"], "r1", Duration::ZERO));
    request.set_timeout(Duration::from_millis(600));
    let refused = tasks.submit(request).await.unwrap_err();
    assert_eq!(code(&refused), Code::NoLeader);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_passes_writes_on_and_waits_by_itself_but_never_passes_on_twice() {
    let fixture = Fixture::new();
    let first = fixture.first().await;
    let second = fixture.joining("c2", &first).await;
    follows(&second).await;
    let _agent = FakeAgent::connect(&fixture, &first, "a1").await;
    let mut tasks = fixture.tasks(&second);
    let reply = tasks
        .submit(submit(&["echo", "far"], "", PATIENCE))
        .await
        .unwrap()
        .into_inner();
    let task = reply.task.unwrap();
    assert_eq!(
        (task.state(), task.user.as_str()),
        (TaskState::Succeeded, "ada")
    );
    let read = tasks
        .get(v1::GetTaskRequest {
            id: task.id,
            stale: false,
        })
        .await
        .unwrap();
    assert_eq!(
        read.into_inner().task.unwrap().state(),
        TaskState::Succeeded
    );

    let ada = principal("ada", model::Role::Client);
    let passed_on = async |by: &str| {
        let mut request = Request::new(submit(&["true"], "", Duration::ZERO));
        crate::callers::pass_on(&ada, request.metadata_mut());
        let mut controller = TasksClient::new(fixture.channel(&second, Role::Controller, by));
        controller.submit(request).await.unwrap_err()
    };
    // It has a certificate, and is no member, or not any more.
    assert_eq!(code(&passed_on("c3").await), Code::ShuttingDown);
    let refused = passed_on("c1").await;
    let failure = wire::status::Failure::read(&refused);
    assert_eq!(failure.code, Code::NotLeader);
    assert_eq!(
        failure.leader,
        Some(first.controller.addresses.grpc.clone())
    );
    tokio::join!(second.stop(), first.stop());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_outcome_is_not_called_undone_because_another_leads_by_now() {
    let fixture = Fixture::new();
    let first = fixture.first().await;
    let second = fixture.joining("c2", &first).await;
    voters(&fixture, &first, 2).await;
    let gateway = Gateway(Arc::clone(&first.controller));
    let caller = Caller {
        principal: principal("ada", model::Role::Client),
        forwarded: true,
    };
    // The first try may have been committed; then leadership moves, and nothing is passed on twice.
    let here = || async {
        let cluster = first.controller.cluster.clone();
        cluster
            .transfer_leadership(Some(model::ControllerId(2)))
            .await
            .unwrap();
        follows(&first).await;
        Err::<(), _>(failure::unknown())
    };
    let there = |_| async { panic!("what was passed on is not passed on again") };
    let deadline = Deadline::within(PATIENCE);
    let ended = gateway.led(&caller, deadline, here, there).await;
    assert_eq!(ended.unwrap_err().code, Code::OutcomeUnknown);
    tokio::join!(second.stop(), first.stop());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_controller_sends_waiting_clients_away_at_once() {
    let fixture = Fixture::new();
    let node = fixture.first().await;
    let mut tasks = fixture.tasks(&node);
    let reply = tasks
        .submit(submit(&["true"], "", Duration::ZERO))
        .await
        .unwrap();
    let id = reply.into_inner().task.unwrap().id;
    let mut watch = tasks
        .watch(v1::WatchTaskRequest { id })
        .await
        .unwrap()
        .into_inner();
    assert!(watch.next().await.unwrap().is_ok());
    let ((), ended) = tokio::join!(node.stop(), watch.next());
    assert_eq!(code(&ended.unwrap().unwrap_err()), Code::ShuttingDown);
}
