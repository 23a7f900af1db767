//! How fast a whole agent works off its queue. Not a test: it prints what it measured.

use std::collections::HashSet;
use std::time::Instant;

use wire::v1::agent_frame::Body;

use super::controller::Controller;
use super::{Agent, Home, fence};
use crate::Config;

const ATTEMPTS: u64 = 10_000;
const SLOTS: u32 = 16;
/// Assigned ahead, so that a slot never waits for the network.
const AHEAD: u64 = 64;

/// Run it in release with `--ignored --nocapture`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn how_many_attempts_a_second_go_through_journal_process_and_session() {
    let home = Home::new();
    let mut controller = Controller::listen(&home.ca, "c1").await;
    let config = Config {
        slots: SLOTS,
        ..home.config(&controller)
    };
    let mut agent = Agent::start(config);
    let (mut session, _) = controller.leading(1).await;
    let namespace = model::Namespace::new("default").unwrap();
    let spec = model::TaskSpec::process(namespace, vec!["true".into()]);
    let begun = Instant::now();
    let mut assigned = 0;
    let mut done = HashSet::new();
    while (done.len() as u64) < ATTEMPTS {
        while assigned < ATTEMPTS && assigned < done.len() as u64 + AHEAD {
            assigned += 1;
            session.assign(fence(assigned), &spec);
        }
        let told = session
            .hear(|body| match body {
                Body::Verdict(verdict) => verdict.fence,
                _ => None,
            })
            .await;
        session.settle(told);
        done.insert(told.task);
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("{:.0} attempts a second", ATTEMPTS as f64 / seconds);
    agent.shutdown.cancel();
    agent.stopped().await;
}
