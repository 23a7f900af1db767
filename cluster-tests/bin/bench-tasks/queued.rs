//! A long queue: what it costs, and how a cluster with it answers, snapshots, restarts and fails over.
//!
//! Without agents, tasks are submitted until so many wait. Then, with all of them waiting, submits are timed, few at once,
//! over at least one snapshot of each controller; a follower and the leader are killed and started again; and bench
//! agents come and work the queue off for a while, submits being timed beside them.

use std::time::{Duration, Instant};

use cluster_tests::cluster::{self, Metrics};
use cluster_tests::report::{Samples, grouped, mebibytes, span};
use cluster_tests::{Error, faults, traffic, wait};
use tokio::task::JoinSet;

use crate::footprint::Footprint;
use crate::site::{Client, Site};

/// At once while the queue is filled.
const FILLING: u64 = 128;
/// At once while submits are timed.
const TIMED: u64 = 8;
/// The longest wait for a snapshot, a restart, or an election.
const LIMIT: Duration = Duration::from_secs(300);
const SNAPSHOT: &str = "quorate_raft_snapshot_index";
/// What a submit waits for, as controllers count it, with what it is called here.
const STEPS: [(&str, &str); 2] = [
    ("applying", "quorate_raft_apply_seconds"),
    ("writes to the log", "quorate_store_write_seconds"),
];
/// Seconds, as the ends of these counts are written: longer ones are told.
const LONG: [&str; 3] = ["0.05", "0.1", "0.25"];
/// Lines of progress while the queue is filled.
const SLICES: u64 = 10;

pub async fn measure(queued: u64, seconds: u64) -> Result<(), Error> {
    let mut site = Site::without_agents("bench-queued").await?;
    fill(&site, queued).await?;
    footprint(&site, "all wait").await?;

    let length = Duration::from_secs(seconds);
    timed(&site, length, "with all of them waiting").await?;
    over_a_snapshot(&site).await?;
    restarts(&site).await?;
    footprint(&site, "after the restarts").await?;

    site.add_bench_agents().await?;
    let (before, begun) = (site.assigned(), Instant::now());
    timed(&site, length, "while agents work").await?;
    let worked = (site.assigned() - before) as f64 / begun.elapsed().as_secs_f64();
    println!("    meanwhile the agents were given {worked:.0} tasks a second");
    footprint(&site, "after some work").await
}

async fn fill(site: &Site, queued: u64) -> Result<(), Error> {
    for slice in 1..=SLICES {
        let clients = site.clients().await?;
        let begun = Instant::now();
        let part = queued * slice / SLICES - queued * (slice - 1) / SLICES;
        let samples = submits(&clients, FILLING, |number| number < part).await?;
        println!(
            "    {} wait: {:.0} submits/s, {FILLING} at once: p50 {}, p99 {}, longest {}",
            grouped(queued * slice / SLICES),
            samples.len() as f64 / begun.elapsed().as_secs_f64(),
            span(samples.percentile(50)),
            span(samples.percentile(99)),
            span(samples.longest()),
        );
    }
    Ok(())
}

async fn timed(site: &Site, length: Duration, when: &str) -> Result<(), Error> {
    let end = Instant::now() + length;
    let samples = submits(&site.clients().await?, TIMED, |_| Instant::now() < end).await?;
    println!(
        "    submits {when}, {TIMED} at once: {:.0}/s, p50 {}, p99 {}, longest {}",
        samples.len() as f64 / length.as_secs_f64(),
        span(samples.percentile(50)),
        span(samples.percentile(99)),
        span(samples.longest()),
    );
    Ok(())
}

/// One submit after the other until each controller has made a snapshot: whoever stops applying for it is felt in the longest.
async fn over_a_snapshot(site: &Site) -> Result<(), Error> {
    let (before, begun) = (scrapes(site).await?, Instant::now());
    let mut all = Vec::new();
    let after = loop {
        let end = Instant::now() + Duration::from_secs(5);
        let samples = submits(&site.clients().await?, TIMED, |_| Instant::now() < end).await?;
        all.push(samples);
        let now = scrapes(site).await?;
        let made = |(now, before): (&Metrics, &Metrics)| now.since(before, SNAPSHOT) > Some(0.0);
        if now.iter().zip(&before).all(made) {
            break now;
        }
        if begun.elapsed() > LIMIT {
            return Err(Error::Timeout {
                what: "a snapshot of each controller".to_owned(),
                waited: begun.elapsed(),
                last: format!("{} controllers asked", now.len()),
            });
        }
    };
    let longest = all.iter().map(Samples::longest).max();
    println!(
        "    submits over a snapshot of each controller ({}), {TIMED} at once: longest {}",
        span(begun.elapsed()),
        span(longest.unwrap_or_default())
    );
    for (what, metric) in STEPS {
        let told = |end| {
            let pairs = after.iter().zip(&before);
            let counts = pairs.map(|(after, before)| longer(after, before, metric, end));
            format!("{} took more than {end} s", counts.sum::<f64>())
        };
        println!(
            "        {what}, all controllers: {}",
            LONG.map(told).join(", ")
        );
    }
    Ok(())
}

/// How many took longer than `end`, by the buckets of a histogram.
fn longer(after: &Metrics, before: &Metrics, metric: &str, end: &str) -> f64 {
    let since = |name: &str| after.since(before, name).unwrap_or_default();
    since(&format!("{metric}_count")) - since(&format!("{metric}_bucket{{le=\"{end}\"}}"))
}

async fn scrapes(site: &Site) -> Result<Vec<Metrics>, Error> {
    let mut found = Vec::new();
    for controller in site.cluster.layout()?.controllers {
        found.push(site.cluster.metrics(&controller.id).await?);
    }
    Ok(found)
}

async fn restarts(site: &Site) -> Result<(), Error> {
    let leader = site.cluster.leader().await?;
    let controllers = site.cluster.layout()?.controllers;
    let follower = controllers.into_iter().find(|it| it.id != leader);
    let follower = follower.ok_or_else(|| Error::Invalid("no follower".to_owned()))?;
    for (what, id) in [("a follower", follower.id), ("the leader", leader)] {
        let killed = faults::kill(&site.cluster, &id).await?;
        let end = killed.at + Duration::from_secs(3);
        let mut first = None;
        // Whom the clients ask is known once somebody leads.
        let clients = site.clients().await?;
        submits(&clients, 1, |number| {
            if number == 1 {
                first = Some(killed.at.elapsed());
            }
            Instant::now() < end
        })
        .await?;
        let begun = Instant::now();
        site.cluster.restart(&id).await?;
        let ready = ready(site, &id).await?;
        println!(
            "    {what} killed: a submit is acknowledged after {}; started again: ready after {}",
            span(first.unwrap_or_default()),
            span(ready.duration_since(begun))
        );
        site.cluster.until_whole().await?;
    }
    Ok(())
}

async fn ready(site: &Site, id: &str) -> Result<Instant, Error> {
    let tls = cluster::https_tls(&site.cluster.credentials()?)?;
    let address = site.cluster.controller(id)?.https;
    wait::until(&format!("{id} to be ready"), LIMIT, || async {
        match cluster::get(&address, "/readyz", &tls).await {
            Ok((200, _)) => Ok(Instant::now()),
            Ok((_, why)) => Err(why),
            Err(error) => Err(error.to_string()),
        }
    })
    .await
}

async fn footprint(site: &Site, when: &str) -> Result<(), Error> {
    let found = Footprint::of(&site.cluster).await?;
    println!(
        "    {when}: {} of memory, {} on disk (the largest controller)",
        mebibytes(found.resident),
        mebibytes(found.on_disk)
    );
    Ok(())
}

/// Submits as long as `more` says so of how many were begun, some at once. The time of each until it is acknowledged.
async fn submits(
    clients: &[Client],
    at_once: u64,
    mut more: impl FnMut(u64) -> bool,
) -> Result<Samples, Error> {
    let mut running = JoinSet::new();
    let (mut begun, mut times) = (0, Vec::new());
    loop {
        while (running.len() as u64) < at_once && more(begun) {
            let client = clients[usize::try_from(begun).unwrap_or(0) % clients.len()].clone();
            running.spawn(submit(client));
            begun += 1;
        }
        match running.join_next().await {
            Some(ended) => {
                times.push(ended.map_err(|error| Error::Invalid(error.to_string()))??);
            }
            None => return Ok(Samples::new(times)),
        }
    }
}

async fn submit(mut client: Client) -> Result<Duration, Error> {
    let begun = Instant::now();
    let request = traffic::submit(traffic::process(["true"]));
    client
        .submit(request)
        .await
        .map_err(Error::call("submit"))?;
    Ok(begun.elapsed())
}
