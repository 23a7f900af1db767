//! Archived tasks look like all others, whichever controller is asked and whatever is asked for; and events can
//! be followed across controllers without a gap.

use std::time::Duration;

use tonic::transport::Channel;
use wire::status::Code;
use wire::v1;
use wire::v1::TaskState;
use wire::v1::tasks_client::TasksClient;

use super::agent::FakeAgent;
use super::cluster::voters;
use super::fixture::{Fixture, PATIENCE, code, follows, leads, submit};
use crate::config::Config;
use crate::node::Node;

/// A cluster of one that keeps nothing in memory that has ended.
async fn forgetful(fixture: &Fixture, id: &str, join: Vec<String>) -> Node {
    let config = Config {
        archive_hot_tasks: 0,
        archive_segment_entries: 8,
        join: join.clone(),
        ..fixture.config(id)
    };
    if join.is_empty() {
        std::fs::write(config.data_dir.join("bootstrap"), "").unwrap();
    }
    let node = Node::start(config).await.unwrap();
    if join.is_empty() {
        leads(&node).await;
        let set = async {
            while node.controller.cluster.view().retention().hot_tasks != 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, set).await.unwrap();
    }
    node
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_in_the_archive_answers_to_every_verb_as_one_in_memory_does() {
    let fixture = Fixture::new();
    let node = forgetful(&fixture, "c1", vec![]).await;
    let _agent = FakeAgent::connect(&fixture, &node, "a1").await;
    let mut tasks = fixture.tasks(&node);
    let mut ids = Vec::new();
    for n in 0..12 {
        let request = submit(&["echo", "hello"], &format!("r{n}"), PATIENCE);
        let reply = tasks.submit(request).await.unwrap().into_inner();
        let task = reply.task.unwrap();
        assert_eq!(task.state(), TaskState::Succeeded);
        assert_eq!(&task.result.unwrap().stdout[..], b"hello");
        ids.push(task.id);
    }
    let state = node.controller.cluster.view();
    assert_eq!(state.task_count(), 0, "nothing stays in memory");
    let id = ids[0];
    for stale in [false, true] {
        let got = tasks.get(v1::GetTaskRequest { id, stale }).await.unwrap();
        let task = got.into_inner().task.unwrap();
        assert_eq!(
            (task.state(), task.agent.as_str()),
            (TaskState::Succeeded, "a1")
        );
        assert_eq!(task.request_id, "r0");
    }
    let waited = v1::WaitTaskRequest { id, timeout_ms: 1 };
    let waited = tasks.wait(waited).await.unwrap().into_inner();
    assert_eq!(waited.task.unwrap().state(), TaskState::Succeeded);
    let why = tasks.why(v1::WhyRequest { id }).await.unwrap().into_inner();
    assert!(why.summary.contains("succeeded") && why.decision[0].agent == "a1");
    let again = submit(&["echo", "hello"], "r0", Duration::ZERO);
    let again = tasks.submit(again).await.unwrap().into_inner();
    assert!(again.duplicate && again.task.unwrap().id == id);
    let cancel = v1::CancelTaskRequest {
        id,
        reason: String::new(),
    };
    let refused = tasks.cancel(cancel).await.unwrap_err();
    assert_eq!(code(&refused), Code::AlreadyEnded);
    let mut watch = tasks
        .watch(v1::WatchTaskRequest { id })
        .await
        .unwrap()
        .into_inner();
    let seen = watch.message().await.unwrap().unwrap().task.unwrap();
    assert_eq!(seen.state(), TaskState::Succeeded);
    assert!(watch.message().await.unwrap().is_none());
    let request = v1::LogsRequest {
        id,
        stream: v1::OutputStream::Stdout.into(),
        ..v1::LogsRequest::default()
    };
    let mut logs = tasks.logs(request).await.unwrap().into_inner();
    let chunk = logs.message().await.unwrap().unwrap();
    assert_eq!(&chunk.data[..], b"hello");
    let unknown = tasks
        .get(v1::GetTaskRequest {
            id: 999,
            stale: false,
        })
        .await;
    assert_eq!(code(&unknown.unwrap_err()), Code::NoSuchTask);
    let listed = list_in_pages(&mut tasks).await;
    ids.reverse();
    assert_eq!(listed, ids);
    node.stop().await;
}

async fn list_in_pages(tasks: &mut TasksClient<Channel>) -> Vec<u64> {
    let mut listed = Vec::new();
    let mut page = 0;
    loop {
        let request = v1::ListTasksRequest {
            limit: 5,
            page,
            ..v1::ListTasksRequest::default()
        };
        let reply = tasks.list(request).await.unwrap().into_inner();
        listed.extend(reply.tasks.iter().map(|task| task.id));
        match reply.next {
            0 => break,
            next => page = next,
        }
    }
    listed
}

#[tokio::test(flavor = "multi_thread")]
async fn events_go_on_at_another_controller_without_a_gap_and_old_ones_are_compacted() {
    let fixture = Fixture::new();
    let first = forgetful(&fixture, "c1", vec![]).await;
    let join = vec![first.controller.addresses.grpc.clone()];
    let second = forgetful(&fixture, "c2", join).await;
    follows(&second).await;
    voters(&fixture, &second, 2).await;
    let mut tasks = fixture.tasks(&first);
    for _ in 0..10 {
        tasks
            .submit(submit(&["true"], "", Duration::ZERO))
            .await
            .unwrap();
    }
    let whole = events(&fixture, &first, 0).await;
    let queued = whole.iter().filter(|event| event.r#type == "task_queued");
    assert_eq!(queued.count(), 10);
    let keys: Vec<_> = whole.iter().map(|event| (event.index, event.n)).collect();
    assert!(keys.is_sorted_by(|one, other| one < other), "{keys:?}");
    // Half of them here, the rest there.
    let half = whole[whole.len() / 2].index;
    let mut both: Vec<_> = whole.iter().filter(|it| it.index < half).cloned().collect();
    both.extend(events(&fixture, &second, half).await);
    assert_eq!(both, whole);

    let mut follower = fixture.cluster(&second);
    let request = v1::EventsRequest::default();
    let mut stream = follower.events(request).await.unwrap().into_inner();
    let began = stream.message().await.unwrap().unwrap();
    assert!(began.events.is_empty() && began.next > 0);
    tasks
        .submit(submit(&["true"], "", Duration::ZERO))
        .await
        .unwrap();
    let told = stream.message().await.unwrap().unwrap();
    assert_eq!(told.events[0].r#type, "task_queued");
    drop(stream);
    tokio::join!(second.stop(), first.stop());
}

async fn events(fixture: &Fixture, node: &Node, since: u64) -> Vec<v1::Event> {
    let request = v1::EventsRequest {
        since: Some(since),
        until_now: true,
    };
    let mut stream = fixture
        .cluster(node)
        .events(request)
        .await
        .unwrap()
        .into_inner();
    let mut events = Vec::new();
    while let Some(reply) = stream.message().await.unwrap() {
        events.extend(reply.events);
    }
    events
}
