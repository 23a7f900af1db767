//! Sessions with controllers that take them, and then are no good.

use std::time::{Duration, Instant};

use super::Home;
use super::controller::Controller;

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_takes_sessions_and_closes_them_is_dialled_more_and_more_slowly() {
    let home = Home::new();
    let mut controller = Controller::listen(&home.ca, "c1").await;
    let mut agent = home.start(&controller);
    let begun = Instant::now();
    for _ in 0..6 {
        drop(controller.welcomed().await);
    }
    // 50, 100, 200, 400 and 800 ms between them, less a random quarter at most.
    let waited = begun.elapsed();
    assert!(waited >= Duration::from_millis(1_550 * 3 / 4), "{waited:?}");
    agent.shutdown.cancel();
    agent.stopped().await;
}
