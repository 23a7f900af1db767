//! Readers of output that are slower than what they read.

use wire::v1;
use wire::v1::agent_frame::Body;
use wire::v1::controller_frame::Body as Order;

use super::controller::Controller;
use super::{Home, fence, sh, tail};

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stops_reading_holds_up_neither_the_task_nor_the_session() {
    const BYTES: u64 = 30_000_000;
    const LAST: u64 = 5_000_000;
    let home = Home::new();
    let mut controller = Controller::listen(&home.ca, "c1").await;
    let mut agent = home.start(&controller);
    let (mut session, _) = controller.leading(1).await;
    session.assign(fence(1), &sh(&format!("head -c {BYTES} /dev/zero")));
    session.say(tail(fence(1), 1, 0));
    let outcome = session.verdict().await.outcome;
    assert_eq!(outcome.stdout_bytes, BYTES);
    assert_eq!(outcome.stdout.len(), 64 * 1024);
    session.settle(fence(1));
    session.say(Order::Untail(v1::Untail { id: 1 }));

    // What is left to read is served from the disk, long after the end.
    session.say(tail(fence(1), 2, BYTES - LAST));
    let mut seen = 0;
    loop {
        let output = session.hear(|body| match body {
            Body::Output(output) if output.id == 2 => Some(output.clone()),
            _ => None,
        });
        let output = output.await;
        assert_eq!(output.offset, BYTES - LAST + seen);
        seen += output.data.len() as u64;
        if output.end {
            break;
        }
    }
    assert_eq!(seen, LAST);
    agent.shutdown.cancel();
    agent.stopped().await;
}
