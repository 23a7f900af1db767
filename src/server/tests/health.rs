//! What agents say of their machines, and what comes of it.

use std::collections::BTreeMap;

use futures::StreamExt as _;
use futures::stream;
use wire::v1;
use wire::v1::agent_frame::Body;

use super::agent::FakeAgent;
use super::fixture::{Fixture, PATIENCE, submit};
use crate::node::Node;

async fn tells(
    fixture: &Fixture,
    node: &Node,
    agent: &FakeAgent,
    told: v1::DeviceStatus,
) -> v1::Agent {
    let (id, cpu_load) = (told.id.clone(), told.cpu_load);
    // What it says by itself comes before.
    agent.until_renewed(1).await;
    agent.say(Body::Status(v1::Status {
        status: Some(told),
        ..v1::Status::default()
    }));
    let heard = async {
        loop {
            let asked = v1::GetAgentRequest { id: id.clone() };
            if let Ok(reply) = fixture.agents(node).get(asked).await {
                let agent = reply.into_inner().agent.unwrap();
                if agent.status.as_ref().map(|it| it.cpu_load) == Some(cpu_load) {
                    return agent;
                }
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, heard).await.unwrap()
}

/// Tasks without an end, more at a time than there are slots: how many each agent got of the next so many.
async fn saturated(fixture: &Fixture, node: &Node, tasks: usize) -> BTreeMap<String, usize> {
    let one = |_| async {
        let asked = submit(&["echo"], "", PATIENCE);
        let reply = fixture.tasks(node).submit(asked).await.unwrap();
        reply.into_inner().task.unwrap().agent
    };
    let all = stream::iter(0..tasks).map(one).buffer_unordered(24);
    all.fold(BTreeMap::new(), |mut counts, agent| async {
        *counts.entry(agent).or_insert(0) += 1;
        counts
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_machine_others_use_up_gets_a_twentieth_of_what_an_idle_one_does() {
    let fixture = Fixture::new();
    let node = fixture.first().await;
    let hot = FakeAgent::connect(&fixture, &node, "a1").await;
    let idle = FakeAgent::connect(&fixture, &node, "a2").await;
    let status = |id: &str, cpu_load, own| v1::DeviceStatus {
        id: id.into(),
        cpu_load,
        own_cpu_load: Some(own),
        mem_usage: 500,
        ..v1::DeviceStatus::default()
    };
    let shown = tells(&fixture, &node, &idle, status("a2", 100, 60)).await;
    assert_eq!((shown.health, shown.hot), (Some(190), false));
    // What its own attempts use is no reason.
    let shown = tells(&fixture, &node, &hot, status("a1", 990, 900)).await;
    assert_eq!((shown.health, shown.hot), (Some(530), false));
    let counts = saturated(&fixture, &node, 400).await;
    assert!(counts["a1"] >= 100, "{counts:?}");
    let shown = tells(&fixture, &node, &hot, status("a1", 970, 0)).await;
    assert_eq!((shown.health, shown.hot), (Some(530), true));
    let counts = saturated(&fixture, &node, 800).await;
    let of_hot = counts.get("a1").copied().unwrap_or(0);
    assert!((20..=counts["a2"] / 20).contains(&of_hot), "{counts:?}");
    // Once it is over, all is as before.
    tells(&fixture, &node, &hot, status("a1", 300, 0)).await;
    let counts = saturated(&fixture, &node, 400).await;
    assert!(counts["a1"] >= 100, "{counts:?}");
    node.stop().await;
}
