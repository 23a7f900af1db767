//! Logs: from the agent, or from what was kept.

use std::time::Duration;

use futures::StreamExt;
use wire::v1;

use super::agent::{ENDLESS, FakeAgent};
use super::fixture::{Fixture, PATIENCE, submit};
use crate::limit;
use crate::node::Node;

async fn logs(fixture: &Fixture, node: &Node, request: v1::LogsRequest) -> Vec<v1::LogChunk> {
    let mut tasks = fixture.tasks(node);
    let chunks = tasks.logs(request).await.unwrap().into_inner();
    chunks.map(Result::unwrap).collect().await
}

fn text(chunks: &[v1::LogChunk]) -> String {
    chunks
        .iter()
        .map(|chunk| String::from_utf8_lossy(&chunk.data))
        .collect()
}

async fn finished(fixture: &Fixture, node: &Node, words: &[&str]) -> u64 {
    let reply = fixture
        .tasks(node)
        .submit(submit(words, "", PATIENCE))
        .await
        .unwrap();
    reply.into_inner().task.unwrap().id
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_output_comes_from_the_result_and_a_long_one_from_the_agent() {
    let fixture = Fixture::new();
    let node = fixture.first().await;
    let agent = FakeAgent::connect(&fixture, &node, "a1").await;
    let short = finished(&fixture, &node, &["echo", "hello"]).await;
    let chunks = logs(
        &fixture,
        &node,
        v1::LogsRequest {
            id: short,
            ..Default::default()
        },
    )
    .await;
    assert_eq!(text(&chunks), "hello");

    let long = finished(&fixture, &node, &["echo", "long"]).await;
    let all = v1::LogsRequest {
        id: long,
        ..Default::default()
    };
    assert_eq!(text(&logs(&fixture, &node, all).await), "one\ntwo\nthree\n");
    let last = v1::LogsRequest {
        id: long,
        tail: Some(2),
        ..Default::default()
    };
    let chunks = logs(&fixture, &node, last).await;
    assert_eq!(
        (text(&chunks).as_str(), chunks[0].offset),
        ("two\nthree\n", 4)
    );

    drop(agent);
    let mut sessions = node.controller.sessions.len();
    while sessions > 0 {
        tokio::task::yield_now().await;
        sessions = node.controller.sessions.len();
    }
    let chunks = logs(&fixture, &node, all).await;
    assert_eq!(text(&chunks), "long");
    assert!(chunks[0].tail_only && chunks[0].offset == 1_000);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_line_arrives_in_pieces_where_it_is_longer_than_a_message_may_be() {
    let fixture = Fixture::new();
    let node = fixture.first().await;
    let _agent = FakeAgent::connect(&fixture, &node, "a1").await;
    let id = finished(&fixture, &node, &["echo", "long", "endless"]).await;
    let last = v1::LogsRequest {
        id,
        tail: Some(1),
        ..Default::default()
    };
    let chunks = logs(&fixture, &node, last).await;
    let mut at = (ENDLESS - limit::LAST_LINES_MAX_BYTES) as u64;
    for chunk in &chunks {
        assert_eq!(chunk.offset, at);
        assert!(chunk.data.len() <= limit::LOG_ANSWER_BYTES);
        at += chunk.data.len() as u64;
    }
    assert_eq!(at, ENDLESS as u64);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_task_is_followed_until_its_controller_stops() {
    let fixture = Fixture::new();
    let node = fixture.first().await;
    let _agent = FakeAgent::connect(&fixture, &node, "a1").await;
    let mut tasks = fixture.tasks(&node);
    let reply = tasks
        .submit(submit(&["hold"], "", Duration::ZERO))
        .await
        .unwrap();
    let id = reply.into_inner().task.unwrap().id;
    let request = v1::LogsRequest {
        id,
        follow: true,
        ..Default::default()
    };
    let mut chunks = tasks.logs(request).await.unwrap().into_inner();
    assert_eq!(
        &chunks.next().await.unwrap().unwrap().data[..],
        b"one\ntwo\nthree\n"
    );
    let ((), ended) = tokio::join!(node.stop(), chunks.next());
    assert!(ended.unwrap().is_err());
}
