//! Leader killed → next commit, over and over.
//!
//! Small tasks are submitted all the time to every controller. The clock starts just before SIGKILL and
//! stops when a client holds the first acknowledgement of a later term: detection, election, the new
//! leader's first entry, its commit and the way back are all in it.

use std::time::Duration;

use cluster_tests::Error;
use cluster_tests::faults;
use cluster_tests::report::{Samples, span};
use cluster_tests::traffic::{self, Prober};

use crate::site::Site;

/// A failover that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(30);

pub async fn measure(kills: u32) -> Result<(), Error> {
    println!(
        "Leader killed with SIGKILL, until the next commit reaches a client; {kills} times.\n"
    );
    let site = Site::with_bench_agents("bench-failover").await?;
    let mut times = Vec::new();
    for number in 1..=kills {
        let took = once(&site).await?;
        println!("    {number:>3} of {kills}: {}", span(took));
        times.push(took);
    }
    let times = Samples::new(times);
    println!(
        "\n    n = {}: p50 {}, p99 {}, shortest {}, longest {}",
        times.len(),
        span(times.percentile(50)),
        span(times.percentile(99)),
        span(times.shortest()),
        span(times.longest()),
    );
    Ok(())
}

async fn once(site: &Site) -> Result<Duration, Error> {
    let cluster = &site.cluster;
    cluster.until_whole().await?;
    let prober = Prober::start(
        &cluster.addresses()?,
        site.tls(),
        &traffic::process(["true"]),
    );
    let before = prober.first(LIMIT).await?;
    let leader = cluster.leader().await?;
    let killed = faults::kill(cluster, &leader).await?;
    let first = prober.committed_after_term(before.term, LIMIT).await?;
    drop(prober);
    cluster.restart(&leader).await?;
    Ok(first.at.duration_since(killed.at))
}
