//! A closed loop: so many clients, each with one task in flight, for a while.
//!
//! A task is one call, which submits it and is answered when it has ended, so its latency is the whole of
//! submit, assign and finish.

use std::time::{Duration, Instant};

use cluster_tests::report::Samples;
use cluster_tests::{Error, traffic};
use tokio::task::JoinSet;
use wire::v1;

use crate::site::Client;

/// For one task; longer than any failover. A task that takes this long makes the round invalid.
const PATIENCE: Duration = Duration::from_secs(30);

/// What one round showed.
pub struct Round {
    pub tasks: u64,
    pub took: Duration,
    pub latencies: Samples,
}

impl Round {
    pub fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.took.as_secs_f64()
    }
}

/// Runs the loop for `span`, and until the last of its tasks has ended.
pub async fn run(clients: &[Client], in_flight: u32, span: Duration) -> Result<Round, Error> {
    paced(clients, in_flight, span, Duration::ZERO).await
}

/// The same, one task begun after each `pause` at most.
pub async fn paced(
    clients: &[Client],
    in_flight: u32,
    span: Duration,
    pause: Duration,
) -> Result<Round, Error> {
    let begun = Instant::now();
    let pace = pause * in_flight;
    let mut loops = JoinSet::new();
    for number in 0..in_flight as usize {
        let client = clients[number % clients.len()].clone();
        let first = begun + pause * u32::try_from(number).unwrap_or(0);
        loops.spawn(closed_loop(client, first, pace, begun + span));
    }
    let mut latencies = Vec::new();
    while let Some(ended) = loops.join_next().await {
        latencies.extend(ended.map_err(|error| Error::Invalid(error.to_string()))??);
    }
    let tasks = latencies.len() as u64;
    Ok(Round {
        tasks,
        took: begun.elapsed(),
        latencies: Samples::new(latencies),
    })
}

/// A task each `pace` from `first` on, or as soon as the one before has ended.
async fn closed_loop(
    mut client: Client,
    first: Instant,
    pace: Duration,
    end: Instant,
) -> Result<Vec<Duration>, Error> {
    let mut latencies = Vec::new();
    let mut next = first;
    while Instant::now() < end {
        if !pace.is_zero() {
            tokio::time::sleep_until(next.into()).await;
            next += pace;
        }
        let begun = Instant::now();
        let mut request = traffic::submit(traffic::process(["true"]));
        request.wait_ms = u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX);
        let reply = client
            .submit(request)
            .await
            .map_err(Error::call("submit"))?
            .into_inner();
        let task = reply.task.unwrap_or_default();
        if task.state() != v1::TaskState::Succeeded {
            let state = task.state().as_str_name();
            return Err(Error::Invalid(format!(
                "t{} ended as {state}: {}",
                task.id, task.reason
            )));
        }
        latencies.push(begun.elapsed());
    }
    Ok(latencies)
}
