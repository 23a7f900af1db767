//! The same rate for a long time: memory stays, and the disk holds a small multiple of what was said.

use std::time::{Duration, Instant};

use cluster_tests::Error;
use cluster_tests::report::{grouped, span};

use crate::footprint::Footprint;
use crate::rounds;
use crate::site::Site;

/// Calls that may wait for their task at once: they keep the rate, whatever one of them takes.
const IN_FLIGHT: u32 = 128;
const SLICE: Duration = Duration::from_secs(60);
const MIB: f64 = 1024.0 * 1024.0;

/// `rate` finished tasks a minute.
pub async fn measure(minutes: u64, rate: u64) -> Result<(), Error> {
    println!("{} tasks a minute for {minutes} minutes.\n", grouped(rate));
    let site = Site::with_bench_agents("bench-sustained").await?;
    let clients = site.clients().await?;
    let pause = Duration::from_secs(60) / u32::try_from(rate.max(1)).unwrap_or(u32::MAX);
    let begun = Instant::now();
    let mut finished = 0;
    for _ in 0..minutes {
        let round = rounds::paced(&clients, IN_FLIGHT, SLICE, pause).await?;
        finished += round.tasks;
        let found = Footprint::of(&site.cluster).await?;
        println!(
            "    {}: {} tasks, p99 {}; {:.0} MiB of memory, {:.0} MiB on disk, {:.1} times the {:.0} MiB of its entries",
            span(begun.elapsed()),
            grouped(finished),
            span(round.latencies.percentile(99)),
            found.resident as f64 / MIB,
            found.on_disk as f64 / MIB,
            found.on_disk as f64 / found.logical as f64,
            found.logical as f64 / MIB,
        );
    }
    Ok(())
}
