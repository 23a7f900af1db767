//! The cluster: members, agents, sessions that are refused, and directories that don't fit.

use security::Role;
use wire::status::Code;
use wire::v1;
use wire::v1::agent_frame::Body;
use wire::v1::cluster_client::ClusterClient;
use wire::v1::controller_frame::Body as Said;

use super::agent::{FakeAgent, Session, hello};
use super::fixture::{Fixture, PATIENCE, code, follows, submit};
use crate::error::Error;
use crate::node::Node;

#[tokio::test(flavor = "multi_thread")]
async fn a_joining_controller_becomes_a_voter_and_both_show_the_same_hash() {
    let fixture = Fixture::new();
    let first = fixture.first().await;
    let second = fixture.joining("c2", &first).await;
    follows(&second).await;
    let status = voters(&fixture, &second, 2).await;
    assert_eq!(
        (status.leader.as_str(), status.cluster_id.as_str()),
        ("c1", "q-test")
    );
    assert_eq!(status.members[0].state_hash, status.members[1].state_hash);
    assert_eq!(
        (
            status.members[0].state.as_str(),
            status.members[1].state.as_str()
        ),
        ("leader", "follower")
    );

    let request = v1::TransferLeadershipRequest { to: "c2".into() };
    let reply = fixture
        .cluster(&second)
        .transfer_leadership(request)
        .await
        .unwrap();
    assert_eq!(reply.into_inner().leader, "c2");
    tokio::join!(second.stop(), first.stop());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_controller_may_join_and_only_under_its_own_id() {
    let fixture = Fixture::new();
    let node = fixture.first().await;
    let request = v1::JoinRequest {
        id: "c2".into(),
        address: Some(v1::Addresses::default()),
    };
    for (role, id) in [(Role::Client, "ada"), (Role::Controller, "c3")] {
        let mut client = ClusterClient::new(fixture.channel(&node, role, id));
        let refused = client.join(request.clone()).await.unwrap_err();
        assert_eq!(code(&refused), Code::Forbidden);
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_listed_with_its_status_and_its_session() {
    let fixture = Fixture::new();
    let node = fixture.first().await;
    let agent = FakeAgent::connect(&fixture, &node, "a1").await;
    fixture
        .tasks(&node)
        .submit(submit(&["echo"], "", PATIENCE))
        .await
        .unwrap();
    let listed = fixture
        .agents(&node)
        .list(v1::ListAgentsRequest {})
        .await
        .unwrap()
        .into_inner();
    let shown = &listed.agents[0];
    assert_eq!(
        (shown.id.as_str(), shown.state.as_str(), shown.slots),
        ("a1", "ready", 4)
    );
    assert!(shown.connected);
    assert_eq!(shown.status.as_ref().unwrap().cpu_load, 250);
    let unknown = fixture
        .agents(&node)
        .get(v1::GetAgentRequest { id: "a9".into() })
        .await;
    assert_eq!(code(&unknown.unwrap_err()), Code::NoSuchAgent);
    agent.until_renewed(1).await;
    assert!(agent.said(|said| matches!(said, Said::VerdictAck(_))));
    let seen = agent.seen.lock().unwrap().clone();
    let Said::Welcome(welcome) = &seen[0] else {
        panic!("{seen:?}")
    };
    assert_eq!(
        (welcome.cluster_id.as_str(), welcome.controller.as_str()),
        ("q-test", "c1")
    );
    assert_eq!(welcome.controllers[0].grpc, node.controller.addresses.grpc);
    assert!(matches!(
        seen[1],
        Said::Leader(v1::Leader { leading: true })
    ));
    node.stop().await;
}

/// Or a deposed leader would keep alive what the cluster has given to another agent.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_without_a_quorum_renews_no_lease() {
    let fixture = Fixture::new();
    let first = fixture.first().await;
    let second = fixture.joining("c2", &first).await;
    follows(&second).await;
    voters(&fixture, &second, 2).await;
    let agent = FakeAgent::connect(&fixture, &first, "a1").await;
    agent.until_renewed(1).await;
    second.stop().await;
    agent.say(Body::Renew(v1::Renew { nonce: 2 }));
    // A read asks for the same proof of leadership, later. It waits in vain, and so has the lease.
    let read = fixture
        .tasks(&first)
        .get(v1::GetTaskRequest {
            id: 1,
            ..Default::default()
        })
        .await;
    assert_eq!(code(&read.unwrap_err()), Code::NoQuorum);
    assert!(!agent.is_renewed(2));
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_just_started_asks_the_leader_how_agents_are() {
    let fixture = Fixture::new();
    let first = fixture.first().await;
    let agent = FakeAgent::connect(&fixture, &first, "a1").await;
    // Once this is done, the agent is registered.
    let work = submit(&["echo"], "", PATIENCE);
    fixture.tasks(&first).submit(work).await.unwrap();
    let second = fixture.joining("c2", &first).await;
    follows(&second).await;
    voters(&fixture, &second, 2).await;
    assert_eq!(states(&fixture, &second).await, ["ready"]);
    let one = v1::GetAgentRequest { id: "a1".into() };
    let one = fixture.agents(&second).get(one).await.unwrap();
    assert_eq!(one.into_inner().agent.unwrap().state, "ready");
    drop(agent);
    tokio::join!(second.stop(), first.stop());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_just_started_does_not_suspect_agents_that_it_could_not_hear() {
    let fixture = Fixture::new();
    let node = fixture.first().await;
    let agent = FakeAgent::connect(&fixture, &node, "a1").await;
    let work = submit(&["echo"], "", PATIENCE);
    fixture.tasks(&node).submit(work).await.unwrap();
    drop(agent);
    node.stop().await;
    let node = Node::start(fixture.config("c1")).await.unwrap();
    super::fixture::leads(&node).await;
    assert_eq!(states(&fixture, &node).await, ["unknown"]);
    node.stop().await;
}

async fn states(fixture: &Fixture, node: &Node) -> Vec<String> {
    let listed = fixture.agents(node).list(v1::ListAgentsRequest {}).await;
    let agents = listed.unwrap().into_inner().agents;
    agents.into_iter().map(|agent| agent.state).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_under_another_name_is_refused_and_a_gap_ends_one() {
    let fixture = Fixture::new();
    let node = fixture.first().await;
    let (mut session, mut frames) = Session::open(&fixture, &node, "a1").await;
    session.say(Body::Hello(hello("a2")));
    let frame = frames.message().await.unwrap().unwrap();
    assert!(matches!(frame.body, Some(Said::Refused(_))), "{frame:?}");
    assert!(frames.message().await.is_err());

    let (mut session, mut frames) = Session::open(&fixture, &node, "a1").await;
    session.say(Body::Hello(hello("a1")));
    session.say_as(3, Body::Renew(v1::Renew { nonce: 1 }));
    let ended = loop {
        match frames.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("no reason was given"),
            Err(status) => break status,
        }
    };
    assert!(
        ended.message().contains("frame 3 came where 2 was due"),
        "{ended}"
    );
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_of_another_controller_is_refused_at_start() {
    let fixture = Fixture::new();
    let config = fixture.config("c1");
    let config = crate::Config {
        id: model::ControllerId(2),
        ..config
    };
    let refused = Node::start(config).await.err().unwrap();
    assert!(matches!(refused, Error::WrongIdentity { .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_controller_goes_on_where_it_stopped() {
    let fixture = Fixture::new();
    let node = fixture.first().await;
    let request = submit(&["true"], "r1", std::time::Duration::ZERO);
    let task = fixture
        .tasks(&node)
        .submit(request.clone())
        .await
        .unwrap()
        .into_inner()
        .task
        .unwrap();
    node.stop().await;
    let config = fixture.config("c1");
    assert!(!config.data_dir.join("bootstrap").exists());
    let node = Node::start(config).await.unwrap();
    super::fixture::leads(&node).await;
    let again = fixture
        .tasks(&node)
        .submit(request)
        .await
        .unwrap()
        .into_inner();
    assert!(again.duplicate);
    assert_eq!(again.task.unwrap().id, task.id);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_moved_tells_the_others_where_it_is_now() {
    let fixture = Fixture::new();
    let first = fixture.first().await;
    let second = fixture.joining("c2", &first).await;
    // The others have to be a majority without it.
    let third = fixture.joining("c3", &first).await;
    voters(&fixture, &first, 3).await;
    let before = second.controller.addresses.grpc.clone();
    second.stop().await;
    // Port 0 again: other ports than before, and no --join.
    let second = Node::start(fixture.config("c2")).await.unwrap();
    let now = second.controller.addresses.clone();
    assert_ne!(before, now.grpc);
    let known = async {
        while first.controller.cluster.address_of(model::ControllerId(2)) != Some(now.clone()) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, known).await.unwrap();
    // The leader goes on where it is now, without another election.
    let done = fixture
        .tasks(&first)
        .submit(submit(&["true"], "", std::time::Duration::ZERO))
        .await
        .unwrap()
        .into_inner();
    let index = done.position.unwrap().log_index;
    let caught_up = async {
        while second.controller.cluster.view().last_applied() < index {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, caught_up).await.unwrap();
    tokio::join!(second.stop(), third.stop(), first.stop());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_without_a_quorum_says_just_that() {
    let fixture = Fixture::new();
    let first = fixture.first().await;
    let second = fixture.joining("c2", &first).await;
    voters(&fixture, &first, 2).await;
    second.stop().await;
    let mut tasks = fixture.tasks(&first);
    let mut list = tonic::Request::new(v1::ListTasksRequest::default());
    list.set_timeout(std::time::Duration::from_secs(2));
    let read = tasks.list(list).await.unwrap_err();
    assert_eq!(code(&read), Code::NoQuorum, "{read}");
    // By now its lease has ended: it proposes nothing.
    let request = submit(&["true"], "r1", std::time::Duration::ZERO);
    let mut request = tonic::Request::new(request);
    request.set_timeout(std::time::Duration::from_secs(2));
    let write = tasks.submit(request).await.unwrap_err();
    assert_eq!(code(&write), Code::NoQuorum, "{write}");
    first.stop().await;
}

/// Until so many voters are settled at the same entry, as this controller sees it.
pub async fn voters(fixture: &Fixture, node: &Node, count: usize) -> v1::StatusReply {
    let mut client = fixture.cluster(node);
    let settled = async {
        loop {
            let reply = client
                .status(v1::StatusRequest {})
                .await
                .unwrap()
                .into_inner();
            let applied = reply.members.first().map(|member| member.applied);
            let same =
                |member: &v1::Member| member.role == "voter" && Some(member.applied) == applied;
            if reply.members.len() == count && !reply.stale && reply.members.iter().all(same) {
                return reply;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, settled).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_acknowledges_a_status_at_once_so_that_the_round_trip_is_known_there_too() {
    let fixture = Fixture::new();
    let first = fixture.first().await;
    let second = fixture.joining("c2", &first).await;
    follows(&second).await;
    let (mut session, mut frames) = Session::open(&fixture, &second, "a1").await;
    session.say(Body::Hello(hello("a1")));
    let status = Some(v1::DeviceStatus::default());
    session.say(Body::Status(v1::Status {
        status,
        ..Default::default()
    }));
    let acknowledged = async {
        loop {
            let frame = frames.message().await.unwrap().unwrap();
            if frame.body.is_none() {
                return frame.ack;
            }
        }
    };
    let ack = tokio::time::timeout(PATIENCE, acknowledged).await.unwrap();
    assert_eq!(ack, 2);
    tokio::join!(second.stop(), first.stop());
}
