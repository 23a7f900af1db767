//! Agents of different speed under one closed loop of tasks, with one way of choosing among them after the other.
//!
//! What would come out of two of the ways is known beforehand, so the measurement itself is measured: each task to the next
//! agent in turn, wherever the one before it is, goes as fast as the slowest agent lets it; with one queue for all that
//! no agent ever finds empty all of them are busy all the time. Between these is what a scheduler can win.
//!
//! The controllers are real processes, with fsync and TLS. The agents speak the real protocol, have one slot each, and
//! serve by sleeping: so that a core more or less, or a spawn, is not what differs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cluster_tests::cluster::{self, Cluster};
use cluster_tests::report::{Spread, Table};
use cluster_tests::traffic::bench_agent::{BenchAgent, Conduct, exited};
use cluster_tests::{Error, traffic};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, Normal};
use security::Role;
use tokio::task::JoinSet;
use wire::v1;

use crate::Arguments;
use crate::rounds::{self, Round, Work};
use crate::site::{Client, Site};

/// Mean service times of the agents, in milliseconds.
const MEANS: [u32; 7] = [18, 18, 18, 60, 60, 80, 80];
/// Of each mean.
const DEVIATION: f64 = 0.3;
const SHORTEST: Duration = Duration::from_millis(1);
/// Each with one task on its way.
const CLIENTS: u32 = 12;
const LEASED: Duration = Duration::from_secs(30);
/// Before each round: queues fill, and it becomes known how fast the agents are.
const WARM_UP: Duration = Duration::from_secs(3);
/// One assignment to a slow agent takes long enough: fewer seconds would count too few of them.
const LEAST_SECONDS: u64 = 20;

/// How the agents are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Each task names the next agent, and waits for that one.
    InTurn,
    /// The name of a strategy, which is also that of the namespace with this policy.
    Strategy(&'static str),
}

impl Way {
    const ALL: [Way; 5] = [
        Way::InTurn,
        Way::Strategy("round_robin"),
        Way::Strategy("power_of_two"),
        Way::Strategy("least_connections"),
        Way::Strategy("adaptive"),
    ];

    fn title(self) -> &'static str {
        match self {
            Way::InTurn => "in turn, a queue for each agent",
            Way::Strategy(name) => name,
        }
    }

    fn work(self) -> Work {
        let turn = AtomicUsize::new(0);
        match self {
            Way::InTurn => Arc::new(move || {
                let next = turn.fetch_add(1, Ordering::Relaxed) % MEANS.len();
                v1::TaskSpec {
                    require: vec![format!("name={}", name(next))],
                    ..traffic::process(["true"])
                }
            }),
            Way::Strategy(name) => Arc::new(move || v1::TaskSpec {
                // Names of namespaces have no `_`.
                namespace: name.replace('_', "-"),
                ..traffic::process(["true"])
            }),
        }
    }
}

pub async fn measure(arguments: &Arguments) -> Result<(), Error> {
    let length = Duration::from_secs(arguments.seconds.max(LEAST_SECONDS));
    println!(
        "{CLIENTS} clients with a task each on {} agents with one slot, which serve one in {MEANS:?} ms\n\
         (deviation {:.0} %); {} rounds of {} s for each way, in turn.\n",
        MEANS.len(),
        DEVIATION * 100.0,
        arguments.rounds,
        length.as_secs(),
    );
    let site = Site::without_agents("bench-fleet").await?;
    set_policies(&site.cluster).await?;
    let busy = Arc::new(AtomicU64::new(0));
    // They serve as long as this is kept.
    let _servers = serve(&site.cluster, &busy).await?;
    let clients = site.clients().await?;
    let mut measured = Way::ALL.map(|_| Vec::new());
    for number in 1..=arguments.rounds {
        for (way, rounds) in Way::ALL.into_iter().zip(&mut measured) {
            let one = Measured::take(&clients, way, length, &busy).await?;
            eprintln!(
                "    {}, round {number} of {}: {:.0} tasks/s",
                way.title(),
                arguments.rounds,
                one.round.per_second()
            );
            rounds.push(one);
        }
    }
    println!("{}", table(&measured));
    Ok(())
}

async fn set_policies(cluster: &Cluster) -> Result<(), Error> {
    for way in Way::ALL {
        let Way::Strategy(strategy) = way else {
            continue;
        };
        let namespace = strategy.replace('_', "-");
        let set = ["policy", "set", "--strategy", strategy];
        let set = [&set[..], &["--namespace", &namespace]].concat();
        cluster.cli().expect(&set).await?;
    }
    Ok(())
}

fn name(number: usize) -> String {
    format!("b{}", number + 1)
}

/// All agents; for how long they serve is added up in `busy`, in microseconds.
async fn serve(cluster: &Cluster, busy: &Arc<AtomicU64>) -> Result<JoinSet<()>, Error> {
    let (layout, addresses) = (cluster.layout()?, cluster.addresses()?);
    let mut servers = JoinSet::new();
    for (number, mean) in MEANS.into_iter().enumerate() {
        let id = name(number);
        let directory = cluster.scratch().join(&id);
        let credentials = cluster::issue(&layout, Role::Agent, &id, &directory)?;
        let agent = BenchAgent::start(&credentials, &addresses, 1, Conduct::WhenTold)?;
        agent.until_leased(LEASED).await?;
        let mean = f64::from(mean) / 1_000.0;
        let times = Normal::new(mean, mean * DEVIATION)
            .map_err(|error| Error::Invalid(error.to_string()))?;
        let dice = StdRng::seed_from_u64(number as u64);
        servers.spawn(one_after_the_other(agent, times, dice, Arc::clone(busy)));
    }
    Ok(servers)
}

async fn one_after_the_other(
    mut agent: BenchAgent,
    times: Normal<f64>,
    mut dice: StdRng,
    busy: Arc<AtomicU64>,
) {
    /// Nothing may come for as long as a round with other agents takes.
    const PATIENCE: Duration = Duration::from_secs(3_600);

    while let Ok(assign) = agent.assigned(PATIENCE).await {
        let (began, started_at) = (Instant::now(), wall_millis());
        let takes = Duration::from_secs_f64(times.sample(&mut dice).max(0.0)).max(SHORTEST);
        // A thread's sleep is exact to a tenth of a millisecond; the runtime's timers round up to whole ones.
        let slept = tokio::task::spawn_blocking(move || std::thread::sleep(takes)).await;
        let (Ok(()), Some(fence)) = (slept, assign.fence) else {
            return;
        };
        let served = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        busy.fetch_add(served, Ordering::Relaxed);
        let outcome = v1::Outcome {
            started_at,
            finished_at: wall_millis(),
            ..exited(0, "")
        };
        agent.report(fence, outcome);
    }
}

fn wall_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// A round, and how much of their time the agents served in it.
struct Measured {
    round: Round,
    utilization: f64,
}

impl Measured {
    async fn take(
        clients: &[Client],
        way: Way,
        length: Duration,
        busy: &AtomicU64,
    ) -> Result<Measured, Error> {
        let work = way.work();
        rounds::working(clients, &work, CLIENTS, (WARM_UP, Duration::ZERO)).await?;
        let before = busy.load(Ordering::Relaxed);
        let round = rounds::working(clients, &work, CLIENTS, (length, Duration::ZERO)).await?;
        let served = Duration::from_micros(busy.load(Ordering::Relaxed) - before);
        let all = round.took * u32::try_from(MEANS.len()).unwrap_or(u32::MAX);
        Ok(Measured {
            utilization: served.as_secs_f64() / all.as_secs_f64(),
            round,
        })
    }
}

fn table(measured: &[Vec<Measured>]) -> Table {
    let mut table = Table::new([
        "agents chosen",
        "mean ms",
        "p50 ms",
        "p99 ms",
        "tasks/s",
        "spread",
        "busy",
        "mean, of in turn",
        "tasks/s, of in turn",
    ]);
    let figure = |rounds: &[Measured], of: &dyn Fn(&Measured) -> f64| {
        Spread::of(rounds.iter().map(of)).unwrap_or_default()
    };
    let mean = |it: &Measured| it.round.latencies.mean().as_secs_f64() * 1_000.0;
    let rate = |it: &Measured| it.round.per_second();
    let ratio = |of: f64, to: f64| format!("{:.2}", of / to);
    let first = measured.first().map_or(&[][..], Vec::as_slice);
    let (slowest, fewest) = (figure(first, &mean).median, figure(first, &rate).median);
    for (way, rounds) in Way::ALL.into_iter().zip(measured) {
        let percentile = |percent| {
            let of = |it: &Measured| it.round.latencies.percentile(percent).as_secs_f64() * 1_000.0;
            format!("{:.0}", figure(rounds, &of).median)
        };
        let (mean, rate) = (figure(rounds, &mean), figure(rounds, &rate));
        table.row([
            way.title().to_owned(),
            format!("{:.0}", mean.median),
            percentile(50),
            percentile(99),
            format!("{:.0}", rate.median),
            format!("{:.0} %", rate.percent()),
            format!(
                "{:.0} %",
                figure(rounds, &|it| it.utilization).median * 100.0
            ),
            ratio(mean.median, slowest),
            ratio(rate.median, fewest),
        ]);
    }
    for (title, (mean, rate, busy)) in [
        ("reckoned: in turn", in_turn()),
        ("reckoned: none ever idle", never_idle()),
    ] {
        table.row([
            title.to_owned(),
            format!("{mean:.0}"),
            String::new(),
            String::new(),
            format!("{rate:.0}"),
            String::new(),
            format!("{:.0} %", busy * 100.0),
            ratio(mean, slowest),
            ratio(rate, fewest),
        ]);
    }
    table
}

/// Mean latency in milliseconds, tasks a second, and how much of their time agents serve, where every agent gets one task
/// after the other in turn, and the slowest always has one that waits.
fn in_turn() -> (f64, f64, f64) {
    let slowest = MEANS.into_iter().max().unwrap_or(1);
    let each = 1_000.0 / f64::from(slowest);
    let rate = each * MEANS.len() as f64;
    let served: f64 = MEANS.into_iter().map(f64::from).sum();
    (
        f64::from(CLIENTS) * 1_000.0 / rate,
        rate,
        served / MEANS.len() as f64 / f64::from(slowest),
    )
}

/// The same where no agent waits for anything.
fn never_idle() -> (f64, f64, f64) {
    let rates = MEANS.into_iter().map(|mean| 1_000.0 / f64::from(mean));
    let rate: f64 = rates.sum();
    (f64::from(CLIENTS) * 1_000.0 / rate, rate, 1.0)
}
