//! Waiting for something to become true, always with a deadline.
//!
//! A condition says what it saw when it does not hold yet, so that a timeout tells more than its name.

use std::fmt::Display;
use std::future::Future;
use std::time::{Duration, Instant};

use crate::Error;

/// How often a condition is looked at: short beside every timer of the cluster (100 ms and up), and
/// long beside the cost of a look.
const POLL: Duration = Duration::from_millis(20);

/// Looks at `condition` until it holds. It returns `Err` with what it saw instead.
pub async fn until<T, E, C, F>(what: &str, limit: Duration, mut condition: C) -> Result<T, Error>
where
    E: Display,
    C: FnMut() -> F,
    F: Future<Output = Result<T, E>>,
{
    let begun = Instant::now();
    let mut last = String::from("nothing yet");
    loop {
        let left = limit.saturating_sub(begun.elapsed());
        match tokio::time::timeout(left, condition()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(seen)) => last = seen.to_string(),
            Err(_elapsed) => {}
        }
        if begun.elapsed() >= limit {
            return Err(Error::Timeout {
                what: what.to_owned(),
                waited: begun.elapsed(),
                last,
            });
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The same for conditions that need no `await`.
pub async fn until_now<T, E: Display>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Result<T, E>,
) -> Result<T, Error> {
    until(what, limit, || std::future::ready(condition())).await
}
