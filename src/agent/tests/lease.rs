//! What an agent does without a lease, and what it tells to controllers that do not lead.

use wire::v1;
use wire::v1::agent_frame::Body;
use wire::v1::controller_frame::Body as Order;

use super::controller::Controller;
use super::{Home, fence, sh};

#[tokio::test(flavor = "multi_thread")]
async fn nothing_starts_without_a_lease() {
    let home = Home::new();
    let mut controller = Controller::listen(&home.ca, "c1").await;
    let mut agent = home.start(&controller);
    let (mut session, _) = controller.welcomed().await;
    session.lead(1).await;
    let Some(Body::Renew(v1::Renew { nonce })) = session.next().await else {
        panic!("a lease is asked for at once");
    };
    session.assign(fence(1), &sh("sleep 0.5"));
    let wrong = nonce + 7;
    session.say(Order::RenewAck(v1::RenewAck { nonce: wrong }));
    // The next renewal is due only 5 s later: until then nothing was started.
    let mut asked = 0;
    while asked < 1 {
        match session.next().await {
            Some(Body::Renew(_)) => asked += 1,
            Some(Body::Started(_)) => panic!("it started without a lease"),
            Some(_) => {}
            None => panic!("it ended the session"),
        }
    }
    session.say(Order::RenewAck(v1::RenewAck { nonce }));
    assert_eq!(session.started().await, fence(1));
    session.verdict().await;
    session.settle(fence(1));
    agent.shutdown.cancel();
    agent.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_state_is_told_to_every_controller_with_the_measured_round_trip() {
    let home = Home::new();
    let mut first = Controller::listen(&home.ca, "c1").await;
    let mut second = Controller::listen(&home.ca, "c2").await;
    let mut agent = home.start(&first);
    let (mut leader, _) = first.session().await;
    leader.welcome(&[&first, &second]);
    leader.lead(1).await;
    leader.grant().await;
    let (mut follower, _) = second.welcomed().await;
    leader.assign(fence(1), &sh("sleep 1000"));
    for session in [&mut leader, &mut follower] {
        assert_eq!(session.started().await, fence(1));
        // A follower acknowledges a status with a frame that says nothing else.
        let status = loop {
            let status = session.hear(|body| match body {
                Body::Status(status) => Some(status.clone()),
                _ => None,
            });
            let v1::Status {
                status, running, ..
            } = status.await;
            session.acknowledge();
            let status = status.unwrap();
            if status.net_latency > 0 && !running.is_empty() {
                assert_eq!(running, [fence(1)]);
                break status;
            }
        };
        assert_eq!(status.id, "a1");
        assert!(status.mem_usage > 0 && status.timestamp > 0);
        assert!(status.net_latency < 5_000_000, "{}", status.net_latency);
    }
    agent.shutdown.cancel();
    leader.verdict().await;
    leader.settle(fence(1));
    agent.stopped().await;
}
