//! Full load for a long time, in which nobody may stand for election: client load must never cause one.

use std::time::{Duration, Instant};

use cluster_tests::Error;
use cluster_tests::report::{Spread, grouped, span};

use crate::rounds::{self, Way};
use crate::site::Site;

/// As many as the largest row of the tables.
const IN_FLIGHT: u32 = 256;
/// A line of progress after each.
const SLICE: Duration = Duration::from_secs(15);

pub async fn measure(length: Duration) -> Result<(), Error> {
    println!(
        "{IN_FLIGHT} tasks in flight for {}; no election may happen.\n",
        span(length)
    );
    let site = Site::with_bench_agents("bench-steady").await?;
    let clients = site.clients().await?;
    let before = site.cluster.status().await?;
    let begun = Instant::now();
    let (mut rates, mut tasks) = (Vec::new(), 0);
    while begun.elapsed() < length {
        let left = length.saturating_sub(begun.elapsed());
        let round = rounds::run(&clients, Way::Calls, IN_FLIGHT, SLICE.min(left)).await?;
        let term = site.cluster.status().await?.term;
        tasks += round.tasks;
        rates.push(round.per_second());
        println!(
            "    {}: {:.0} tasks/s, term {term}",
            span(begun.elapsed()),
            round.per_second()
        );
    }
    let after = site.cluster.status().await?;
    let rate = Spread::of(rates).unwrap_or_default();
    println!(
        "\n    {} tasks, {:.0} a second ({:.0} to {:.0}); term {} at the start and {} at the end.",
        grouped(tasks),
        rate.median,
        rate.lowest,
        rate.highest,
        before.term,
        after.term,
    );
    match before.term == after.term && before.leader == after.leader {
        true => Ok(()),
        false => Err(Error::Broken("there was an election under load".to_owned())),
    }
}
