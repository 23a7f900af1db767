//! A closed loop: so many places, each with one task in flight, for a while.
//!
//! A task is one call, or one message on a stream and its reply. Either submits it and is answered when it has ended, so
//! its latency is the whole of submit, assign and finish.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use cluster_tests::report::Samples;
use cluster_tests::{Error, traffic};
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use wire::status::Failure;
use wire::v1;
use wire::v1::submit_all_reply::Outcome;

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

/// How tasks are submitted.
#[derive(Debug, Clone, Copy)]
pub enum Way {
    /// Each by a call of its own.
    Calls,
    /// All of a connection on one stream.
    Streams,
}

/// Runs the loop for `span`, and until the last of its tasks has ended.
pub async fn run(
    clients: &[Client],
    way: Way,
    in_flight: u32,
    span: Duration,
) -> Result<Round, Error> {
    match way {
        Way::Calls => paced(clients, in_flight, span, Duration::ZERO).await,
        Way::Streams => streamed(clients, in_flight, span).await,
    }
}

/// The places spread over one stream for each client.
async fn streamed(clients: &[Client], in_flight: u32, span: Duration) -> Result<Round, Error> {
    let begun = Instant::now();
    let mut streams = JoinSet::new();
    for (number, client) in clients.iter().enumerate() {
        let places = (number..in_flight as usize).step_by(clients.len()).count();
        if places > 0 {
            streams.spawn(one_stream(client.clone(), places, begun + span));
        }
    }
    ended(begun, streams).await
}

/// By calls, one task begun after each `pause` at most.
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
    ended(begun, loops).await
}

/// Loops that run beside one another, each with its latencies in the end.
pub type Loops = JoinSet<Result<Vec<Duration>, Error>>;

/// The latencies of all loops, once all have ended.
pub async fn latencies_of(mut loops: Loops) -> Result<Samples, Error> {
    let mut latencies = Vec::new();
    while let Some(ended) = loops.join_next().await {
        latencies.extend(ended.map_err(|error| Error::Invalid(error.to_string()))??);
    }
    Ok(Samples::new(latencies))
}

/// The round, once all its loops have ended.
async fn ended(begun: Instant, loops: Loops) -> Result<Round, Error> {
    let latencies = latencies_of(loops).await?;
    Ok(Round {
        tasks: latencies.len() as u64,
        took: begun.elapsed(),
        latencies,
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
        one(&mut client, traffic::process(["true"])).await?;
        latencies.push(begun.elapsed());
    }
    Ok(latencies)
}

/// Submits a task, and waits until it has succeeded.
pub async fn one(client: &mut Client, spec: v1::TaskSpec) -> Result<(), Error> {
    let reply = client.submit(request(spec)).await;
    succeeded(reply.map_err(Error::call("submit"))?.into_inner())
}

/// So many tasks in flight on one stream, each followed by another until `end`.
async fn one_stream(
    mut client: Client,
    places: usize,
    end: Instant,
) -> Result<Vec<Duration>, Error> {
    let (messages, receiver) = mpsc::channel(places);
    let replies = client.submit_all(ReceiverStream::new(receiver)).await;
    let mut replies = replies.map_err(Error::call("submit all"))?.into_inner();
    let mut latencies = Vec::new();
    let mut begun = HashMap::new();
    let stray = || Error::Invalid("a reply to nothing that was sent".to_owned());
    for _ in 0..places {
        begin(&messages, &mut begun).await?;
    }
    while !begun.is_empty() {
        let Some(reply) = replies.next().await else {
            return Err(Error::Invalid("the stream ended too early".to_owned()));
        };
        let reply = reply.map_err(Error::call("submit all"))?;
        let submitted = begun.remove(&reply.request_id).ok_or_else(stray)?;
        match reply.outcome {
            Some(Outcome::Accepted(accepted)) => succeeded(accepted)?,
            Some(Outcome::Refused(refusal)) => {
                return Err(Error::Invalid(Failure::from(refusal).to_string()));
            }
            None => return Err(Error::Invalid("a reply without an outcome".to_owned())),
        }
        latencies.push(submitted.elapsed());
        if Instant::now() < end {
            begin(&messages, &mut begun).await?;
        }
    }
    drop(messages);
    match replies.next().await {
        None => Ok(latencies),
        Some(Err(status)) => Err(Error::call("submit all")(status)),
        Some(Ok(_)) => Err(stray()),
    }
}

/// Sends one more, and notes when.
async fn begin(
    messages: &mpsc::Sender<v1::SubmitRequest>,
    begun: &mut HashMap<String, Instant>,
) -> Result<(), Error> {
    let request = request(traffic::process(["true"]));
    begun.insert(request.request_id.clone(), Instant::now());
    let sent = messages.send(request).await;
    sent.map_err(|_| Error::Invalid("the stream takes nothing more".to_owned()))
}

/// A submit that is answered when its task has ended.
fn request(spec: v1::TaskSpec) -> v1::SubmitRequest {
    let mut request = traffic::submit(spec);
    request.wait_ms = u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX);
    request
}

fn succeeded(reply: v1::SubmitReply) -> Result<(), Error> {
    let task = reply.task.unwrap_or_default();
    if task.state() == v1::TaskState::Succeeded {
        return Ok(());
    }
    let state = task.state().as_str_name();
    Err(Error::Invalid(format!(
        "t{} ended as {state}: {}",
        task.id, task.reason
    )))
}
