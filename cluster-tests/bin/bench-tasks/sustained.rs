//! The same rate for a long time: memory stays, the disk holds a small multiple of what was said, and a cluster with all
//! that history is as quick as one without.

use std::time::{Duration, Instant};

use cluster_tests::Error;
use cluster_tests::report::{Spread, grouped, mebibytes, span};

use crate::footprint::Footprint;
use crate::rounds::{self, Way};
use crate::site::{Client, Site};

/// Calls that may wait for their task at once: they keep the rate, whatever one of them takes.
const IN_FLIGHT: u32 = 128;
const SLICE: Duration = Duration::from_secs(60);
/// As many as there are at once, with this history and without.
const FULL_LOAD: u32 = 256;
const FULL_ROUNDS: u32 = 5;
const FULL_LENGTH: Duration = Duration::from_secs(5);

/// `per_minute` finished tasks a minute.
pub async fn measure(minutes: u64, per_minute: u64) -> Result<(), Error> {
    println!(
        "{} tasks a minute for {minutes} minutes.\n",
        grouped(per_minute)
    );
    let site = Site::with_bench_agents("bench-sustained").await?;
    let clients = site.clients().await?;
    let pause = Duration::from_secs(60) / u32::try_from(per_minute.max(1)).unwrap_or(u32::MAX);
    let begun = Instant::now();
    let mut finished = 0;
    for _ in 0..minutes {
        let round = rounds::paced(&clients, IN_FLIGHT, SLICE, pause).await?;
        finished += round.tasks;
        let found = Footprint::of(&site.cluster).await?;
        println!(
            "    {}: {} tasks, p99 {}; {} of memory, {} on disk, {:.1} times the {} of its entries",
            span(begun.elapsed()),
            grouped(finished),
            span(round.latencies.percentile(99)),
            mebibytes(found.resident),
            mebibytes(found.on_disk),
            found.on_disk as f64 / found.logical as f64,
            mebibytes(found.logical),
        );
    }
    beside_a_fresh_one(&clients).await
}

/// In turn, because the machine is another one half an hour later. The cluster that rests costs little.
async fn beside_a_fresh_one(old: &[Client]) -> Result<(), Error> {
    let site = Site::with_bench_agents("bench-fresh").await?;
    let fresh = site.clients().await?;
    // Its first tasks find nothing warm.
    full_load(&fresh).await?;
    let (mut rates, mut ratios) = ([Vec::new(), Vec::new()], Vec::new());
    for _ in 0..FULL_ROUNDS {
        let pair = [full_load(&fresh).await?, full_load(old).await?];
        ratios.push(pair[1] / pair[0]);
        for (rates, rate) in rates.iter_mut().zip(pair) {
            rates.push(rate);
        }
    }
    let [fresh, old] = rates.map(|rates| Spread::of(rates).unwrap_or_default());
    let ratio = Spread::of(ratios).unwrap_or_default();
    println!(
        "    in turn, {FULL_ROUNDS} times: a fresh cluster {}",
        rate(fresh)
    );
    println!("    with this history {}", rate(old));
    println!(
        "    that is {:.2} times as many ({:.2} to {:.2})",
        ratio.median, ratio.lowest, ratio.highest
    );
    Ok(())
}

/// Tasks a second where so many are in flight at once as the cluster takes.
async fn full_load(clients: &[Client]) -> Result<f64, Error> {
    let round = rounds::run(clients, Way::Calls, FULL_LOAD, FULL_LENGTH).await?;
    Ok(round.per_second())
}

fn rate(rate: Spread) -> String {
    format!(
        "{:.0} tasks/s ({:.0} to {:.0})",
        rate.median, rate.lowest, rate.highest
    )
}
