//! What only administrators decide: on agents, and on members.

use security::Role;
use wire::status::Code;
use wire::v1;
use wire::v1::agent_order::Order;
use wire::v1::agents_client::AgentsClient;
use wire::v1::cluster_client::ClusterClient;

use super::agent::FakeAgent;
use super::fixture::{Fixture, code, follows, registered};

fn order(id: &str, order: Order) -> v1::AgentOrder {
    v1::AgentOrder {
        id: id.into(),
        order: Some(order),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_client_closes_agents_and_changes_members() {
    let fixture = Fixture::new();
    let node = fixture.first().await;
    let _agent = FakeAgent::connect(&fixture, &node, "a1").await;
    for (role, id) in [(Role::Agent, "a1"), (Role::Controller, "c2")] {
        let channel = fixture.channel(&node, role, id);
        let cordon = order("a1", Order::Cordon(v1::CordonAgent::default()));
        let refused = AgentsClient::new(channel.clone()).order(cordon).await;
        assert_eq!(code(&refused.unwrap_err()), Code::Forbidden, "{id}");
        let mut cluster = ClusterClient::new(channel);
        let id = || "c1".to_owned();
        let refused = cluster.promote(v1::PromoteRequest { id: id() }).await;
        assert_eq!(code(&refused.unwrap_err()), Code::Forbidden);
        let refused = cluster.remove(v1::RemoveRequest { id: id() }).await;
        assert_eq!(code(&refused.unwrap_err()), Code::Forbidden);
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_done_by_the_leader_whoever_is_asked_and_one_without_words_is_none() {
    let fixture = Fixture::new();
    let first = fixture.first().await;
    let second = fixture.joining("c2", &first).await;
    follows(&second).await;
    let _agent = FakeAgent::connect(&fixture, &first, "a1").await;
    registered(&first, "a1").await;
    let mut agents = fixture.agents(&second);
    let drain = order(
        "a1",
        Order::Drain(v1::DrainAgent {
            reason: "new kernel".into(),
            deadline_ms: 1_000,
        }),
    );
    let reply = agents.order(drain).await.unwrap().into_inner();
    let agent = reply.agent.unwrap();
    let cordon = agent.cordon.unwrap();
    assert_eq!(
        (agent.state.as_str(), cordon.reason.as_str()),
        ("drained", "new kernel")
    );
    assert!(cordon.drain.is_some_and(|drain| !drain.overdue));
    // Its session is open: it would only register again.
    let remove = order("a1", Order::Remove(v1::RemoveAgent {}));
    assert_eq!(
        code(&agents.order(remove).await.unwrap_err()),
        Code::Refused
    );
    let nothing = v1::AgentOrder {
        id: "a1".into(),
        order: None,
    };
    assert_eq!(
        code(&agents.order(nothing).await.unwrap_err()),
        Code::Invalid
    );
    tokio::join!(second.stop(), first.stop());
}
