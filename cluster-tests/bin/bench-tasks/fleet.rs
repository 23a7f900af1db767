//! Agents of different speed under one closed loop of tasks, with one way of choosing among them after the other.
//!
//! What has to come out where each task goes to the next agent in turn, however busy that is, can be reckoned: the slowest
//! agent sets the pace. So the measurement is itself measured, and says so where it is off. The other end can be
//! reckoned, too: agents of which none is ever idle. Between these is what a scheduler can win.
//!
//! The controllers are real processes, with fsync and TLS. The agents speak the real protocol, have one slot each, and
//! serve by sleeping: so that a core more or less, or a spawn, is not what differs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cluster_tests::cluster::{self, Cluster};
use cluster_tests::report::{Samples, Spread, Table};
use cluster_tests::traffic::bench_agent::{BenchAgent, Conduct, exited};
use cluster_tests::{Error, traffic};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, Normal};
use security::Role;
use tokio::task::JoinSet;
use wire::v1;

use crate::Arguments;
use crate::rounds;
use crate::site::{Client, Site};

/// Mean service times of the agents, in milliseconds.
const MEANS: [u32; 7] = [18, 18, 18, 60, 60, 80, 80];
/// Of each mean.
const DEVIATION: f64 = 0.3;
const SHORTEST: Duration = Duration::from_millis(1);
/// Each with one task on its way.
const CLIENTS: u32 = 12;
const LEASED: Duration = Duration::from_secs(30);
/// Of each round before its figures are taken: queues fill, and it becomes known how fast the agents are.
const WARM_UP: Duration = Duration::from_secs(3);
/// A slow agent serves a dozen tasks a second: in fewer seconds chance would tell more than what is measured.
const LEAST_SECONDS: u64 = 20;
/// By how much in turn may differ from what was reckoned, in percent.
const OFF_MAX: f64 = 5.0;

/// Makes the tasks of a round.
type Tasks = Arc<dyn Fn() -> v1::TaskSpec + Send + Sync>;

/// How the agents are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    /// Each task names the next agent, and waits for that one.
    InTurn,
    /// The name of a strategy; a namespace of its own has it as its policy.
    Strategy(&'static str),
}

impl Choice {
    const ALL: [Choice; 5] = [
        Choice::InTurn,
        Choice::Strategy("round_robin"),
        Choice::Strategy("power_of_two"),
        Choice::Strategy("least_connections"),
        Choice::Strategy("adaptive"),
    ];

    fn title(self) -> &'static str {
        match self {
            Choice::InTurn => "in turn, a queue for each agent",
            Choice::Strategy(name) => name,
        }
    }

    /// Names of namespaces have no `_`.
    fn namespace(strategy: &str) -> String {
        strategy.replace('_', "-")
    }

    fn tasks(self) -> Tasks {
        let turn = AtomicUsize::new(0);
        match self {
            Choice::InTurn => Arc::new(move || {
                let next = turn.fetch_add(1, Ordering::Relaxed) % MEANS.len();
                v1::TaskSpec {
                    require: vec![format!("name={}", name(next))],
                    ..traffic::process(["true"])
                }
            }),
            Choice::Strategy(name) => Arc::new(move || v1::TaskSpec {
                namespace: Choice::namespace(name),
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
    let mut measured = Choice::ALL.map(|_| Vec::new());
    for number in 1..=arguments.rounds {
        // Another one is the first in each round.
        for at in 0..Choice::ALL.len() {
            let at = (at + number as usize - 1) % Choice::ALL.len();
            let (choice, rounds) = (Choice::ALL[at], &mut measured[at]);
            let one = Measured::take(&clients, choice, length, &busy).await?;
            eprintln!(
                "    {}, round {number} of {}: {:.0} tasks/s",
                choice.title(),
                arguments.rounds,
                one.per_second
            );
            rounds.push(one);
        }
    }
    println!("{}", table(&measured));
    say_if_off(&measured[0]);
    Ok(())
}

async fn set_policies(cluster: &Cluster) -> Result<(), Error> {
    for choice in Choice::ALL {
        let Choice::Strategy(strategy) = choice else {
            continue;
        };
        let namespace = Choice::namespace(strategy);
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
        servers.spawn(serve_one_after_another(
            agent,
            times,
            dice,
            Arc::clone(busy),
        ));
    }
    Ok(servers)
}

async fn serve_one_after_another(
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

/// What was seen while the load went on, from when it was warm.
struct Measured {
    latencies: Samples,
    per_second: f64,
    /// How much of their time the agents served.
    utilization: f64,
}

impl Measured {
    async fn take(
        clients: &[Client],
        choice: Choice,
        length: Duration,
        busy: &AtomicU64,
    ) -> Result<Measured, Error> {
        let from = Instant::now() + WARM_UP;
        let until = from + length;
        let tasks = choice.tasks();
        let mut loops = rounds::Loops::new();
        for client in clients.iter().cycle().take(CLIENTS as usize) {
            loops.spawn(one_after_another(
                client.clone(),
                Arc::clone(&tasks),
                from,
                until,
            ));
        }
        tokio::time::sleep_until(from.into()).await;
        let before = busy.load(Ordering::Relaxed);
        tokio::time::sleep_until(until.into()).await;
        let served = Duration::from_micros(busy.load(Ordering::Relaxed) - before);
        let latencies = rounds::latencies_of(loops).await?;
        Ok(Measured {
            per_second: latencies.len() as f64 / length.as_secs_f64(),
            latencies,
            utilization: served.as_secs_f64() / length.as_secs_f64() / MEANS.len() as f64,
        })
    }
}

/// How long each took of those that ended between `from` and `until`.
async fn one_after_another(
    mut client: Client,
    tasks: Tasks,
    from: Instant,
    until: Instant,
) -> Result<Vec<Duration>, Error> {
    let mut latencies = Vec::new();
    loop {
        let begun = Instant::now();
        rounds::one(&mut client, tasks()).await?;
        let ended = Instant::now();
        if ended >= until {
            return Ok(latencies);
        }
        if ended >= from {
            latencies.push(ended - begun);
        }
    }
}

/// What is known beforehand has to come out.
fn say_if_off(in_turn: &[Measured]) {
    let measured = Spread::of(in_turn.iter().map(|it| it.per_second)).unwrap_or_default();
    let (reckoned, _) = self::in_turn();
    let off = 100.0 * (measured.median / reckoned - 1.0);
    if off.abs() > OFF_MAX {
        println!(
            "    In turn, {reckoned:.0} tasks/s have to come out, and {:.0} did: this machine was too busy \n    \
             for the figures to mean much.",
            measured.median
        );
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
    let mean = |it: &Measured| it.latencies.mean().as_secs_f64() * 1_000.0;
    let rate = |it: &Measured| it.per_second;
    let ratio = |of: f64, to: f64| format!("{:.2}", of / to);
    let first = measured.first().map_or(&[][..], Vec::as_slice);
    let (slowest, fewest) = (figure(first, &mean).median, figure(first, &rate).median);
    for (choice, rounds) in Choice::ALL.into_iter().zip(measured) {
        let percentile = |percent| {
            let of = |it: &Measured| it.latencies.percentile(percent).as_secs_f64() * 1_000.0;
            format!("{:.0}", figure(rounds, &of).median)
        };
        let (mean, rate) = (figure(rounds, &mean), figure(rounds, &rate));
        table.row([
            choice.title().to_owned(),
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
    for (title, (rate, busy)) in [
        ("reckoned: in turn", in_turn()),
        ("reckoned: none ever idle", never_idle()),
    ] {
        // Little's law: so many are on their way, and so many end in a second.
        let mean = f64::from(CLIENTS) * 1_000.0 / rate;
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

/// Tasks a second, and how much of their time agents serve, where every agent gets one task after the other in turn, and the
/// slowest always has one that waits.
fn in_turn() -> (f64, f64) {
    let slowest = f64::from(MEANS.into_iter().max().unwrap_or(1));
    let agents = MEANS.len() as f64;
    let mean = MEANS.into_iter().map(f64::from).sum::<f64>() / agents;
    (agents * 1_000.0 / slowest, mean / slowest)
}

/// The same where no agent waits for anything.
fn never_idle() -> (f64, f64) {
    let rates = MEANS.into_iter().map(|mean| 1_000.0 / f64::from(mean));
    (rates.sum(), 1.0)
}
