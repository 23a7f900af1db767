//! The two tables: tasks that do nothing, and real processes.

use std::time::Duration;

use cluster_tests::Error;
use cluster_tests::report::{Spread, Table, grouped};

use crate::cost::{Cost, Reading};
use crate::rounds::{self, Round, Way};
use crate::site::{CONNECTIONS, Client, Site};
use crate::{Arguments, floor};

/// Before the first round: connections, caches, the agents' first leases.
const WARM_UP: Duration = Duration::from_secs(2);

pub async fn no_ops(arguments: &Arguments) -> Result<(), Error> {
    println!("(a) Tasks that do nothing: submit, assign, finish, each committed by 3 controllers.");
    println!("    Agents: 4 bench agents that answer at once, their journals in memory.");
    let way = match arguments.unary {
        true => Way::Calls,
        false => Way::Streams,
    };
    println!("    {}\n", submitted(way));
    let site = Site::with_bench_agents("bench-no-ops").await?;
    let syncs = floor::fdatasyncs_per_second(site.cluster.scratch())?;
    let best = table(arguments, &site, way, "fdatasync", syncs).await?;
    println!(
        "    A bare append and fdatasync, one at a time: {}/s.",
        grouped(whole(syncs))
    );
    println!(
        "    Best: {} tasks/s, {:.2} for each bare fdatasync.",
        grouped(whole(best)),
        best / syncs
    );
    println!(
        "    The bench agents were given {} attempts.\n",
        grouped(site.assigned())
    );
    Ok(())
}

pub async fn processes(arguments: &Arguments) -> Result<(), Error> {
    println!(
        "(b) Real `true` processes on 2 agents with {} slots each.\n    {}\n",
        arguments.slots,
        submitted(Way::Calls)
    );
    let site = Site::with_agents("bench-processes", arguments.slots).await?;
    let spawns = floor::spawns_per_second()?;
    let best = table(arguments, &site, Way::Calls, "spawn", spawns).await?;
    println!(
        "    `true` spawned and waited for, nothing else: {}/s.",
        grouped(whole(spawns))
    );
    println!(
        "    Best: {} tasks/s, {:.2} for each bare spawn.\n",
        grouped(whole(best)),
        best / spawns
    );
    Ok(())
}

fn submitted(way: Way) -> String {
    match way {
        Way::Calls => {
            format!("Each is submitted by a call of its own, over {CONNECTIONS} connections.")
        }
        Way::Streams => {
            format!("They are submitted on streams, one on each of {CONNECTIONS} connections.")
        }
    }
}

/// Measures and prints all rows; gives the best rate.
async fn table(
    arguments: &Arguments,
    site: &Site,
    way: Way,
    floor_name: &str,
    floor: f64,
) -> Result<f64, Error> {
    let clients = site.clients().await?;
    let per_floor = format!("per {floor_name}");
    let mut table = Table::new([
        "in flight",
        "tasks/s",
        "spread",
        "p50 ms",
        "p99 ms",
        "commits/s",
        "fsyncs/s",
        "entries/fsync",
        "cores",
        &per_floor,
    ]);
    rounds::run(
        &clients,
        way,
        arguments.in_flight.iter().copied().max().unwrap_or(1),
        WARM_UP,
    )
    .await?;
    let mut best = 0.0_f64;
    for in_flight in &arguments.in_flight {
        let row = Row::measure(arguments, site, &clients, way, *in_flight).await?;
        best = best.max(row.rate().median);
        table.row(row.cells(*in_flight, floor));
    }
    println!("{table}");
    Ok(best)
}

/// The rounds of one number in flight.
struct Row(Vec<(Round, Cost)>);

impl Row {
    async fn measure(
        arguments: &Arguments,
        site: &Site,
        clients: &[Client],
        way: Way,
        in_flight: u32,
    ) -> Result<Row, Error> {
        let mut measured = Vec::new();
        for number in 1..=arguments.rounds {
            let before = Reading::take(&site.cluster).await?;
            let length = Duration::from_secs(arguments.seconds);
            let round = rounds::run(clients, way, in_flight, length).await?;
            let cost = before.until(&Reading::take(&site.cluster).await?)?;
            eprintln!(
                "    {in_flight} in flight, round {number} of {}: {:.0} tasks/s",
                arguments.rounds,
                round.per_second()
            );
            measured.push((round, cost));
        }
        Ok(Row(measured))
    }

    fn spread(&self, figure: impl Fn(&Round, &Cost) -> f64) -> Spread {
        Spread::of(self.0.iter().map(|(round, cost)| figure(round, cost))).unwrap_or_default()
    }

    fn rate(&self) -> Spread {
        self.spread(|round, _| round.per_second())
    }

    fn cells(&self, in_flight: u32, floor: f64) -> Vec<String> {
        let rate = self.rate();
        let millis = |percent: u32| {
            self.spread(|round, _| round.latencies.percentile(percent).as_secs_f64() * 1_000.0)
                .median
        };
        vec![
            in_flight.to_string(),
            grouped(whole(rate.median)),
            format!("{:.0} %", rate.percent()),
            format!("{:.2}", millis(50)),
            format!("{:.2}", millis(99)),
            grouped(whole(self.spread(|_, cost| cost.commits).median)),
            grouped(whole(self.spread(|_, cost| cost.fsyncs).median)),
            format!(
                "{:.1}",
                self.spread(|_, cost| cost.entries_per_fsync).median
            ),
            format!("{:.2}", self.spread(|_, cost| cost.cores).median),
            format!("{:.2}", rate.median / floor),
        ]
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate that is shown without its fraction; the cast saturates"
)]
fn whole(rate: f64) -> u64 {
    rate.round() as u64
}
