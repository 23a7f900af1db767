//! The same rate for a long time: memory stays, the disk holds a small multiple of what was said, and a cluster with all
//! that history is as quick as it was without.

use std::time::{Duration, Instant};

use cluster_tests::Error;
use cluster_tests::report::{Spread, grouped, mebibytes, span};

use crate::footprint::Footprint;
use crate::rounds::{self, Way};
use crate::site::{Client, Site};

/// Calls that may wait for their task at once: they keep the rate, whatever one of them takes.
const IN_FLIGHT: u32 = 128;
const SLICE: Duration = Duration::from_secs(60);
/// As many as there are at once, before and after.
const FULL_LOAD: u32 = 256;
const FULL_ROUNDS: u32 = 3;
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
    let fresh = full_load(&clients).await?;
    println!("    as a fresh cluster: {}", rate(fresh));
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
    let old = full_load(&clients).await?;
    println!(
        "    with this history: {}, {:.2} times that of the fresh one",
        rate(old),
        old.median / fresh.median
    );
    Ok(())
}

/// Tasks a second where so many are in flight at once as the cluster takes.
async fn full_load(clients: &[Client]) -> Result<Spread, Error> {
    let mut rates = Vec::new();
    for _ in 0..FULL_ROUNDS {
        let round = rounds::run(clients, Way::Calls, FULL_LOAD, FULL_LENGTH).await?;
        rates.push(round.per_second());
    }
    Ok(Spread::of(rates).unwrap_or_default())
}

fn rate(rate: Spread) -> String {
    format!(
        "{:.0} tasks/s ({:.0} to {:.0})",
        rate.median, rate.lowest, rate.highest
    )
}
