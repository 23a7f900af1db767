//! `make bench-tasks`: how many tasks a second, how long one takes, and what it costs.
//!
//! The default run measures, for 1, 16, 64 and 256 tasks in flight, (a) tasks that do nothing: submit,
//! assign and finish, each committed, against agents that answer at once, submitted on streams (`--unary`: by a call
//! each); and (b) real `true` processes on real agents, by calls. It prints beside them, from the same minutes on the same machine, what a bare fdatasync
//! and a bare spawn can do, because absolute numbers mean little on a machine of unknown speed. Each
//! figure is the median of several rounds, with their spread.
//!
//! `--failover N` kills the leader N times and measures the time to the next commit; `--steady MINUTES`
//! holds full load and counts elections, of which there must be none; `--fleet` (`make bench-fleet`)
//! compares how agents of different speed are chosen; `--agents N` (`make bench-agents`) connects that many and shows what
//! they cost and how soon they are back after the leader died;
//! `--queued TASKS` (`make bench-scale`) lets that many wait, and `--sustained MINUTES` keeps a rate, for what
//! that costs in memory, on disk and in latency.

#![expect(
    clippy::print_stdout,
    reason = "a program that prints tables on stdout"
)]

mod agents;
mod cost;
mod failover;
mod fleet;
mod floor;
mod footprint;
mod queued;
mod rounds;
mod site;
mod steady;
mod sustained;
mod throughput;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use cluster_tests::Error;
use tokio::runtime::Runtime;

/// The allocator of the one binary: what the load costs is taken from the cluster's share of the machine.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures tasks per second, latency, fsyncs and processor time of a cluster on this machine
#[derive(Debug, Clone, Parser)]
#[command(name = "bench-tasks")]
pub struct Arguments {
    /// Tasks in flight, one table row each
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64, 256])]
    in_flight: Vec<u32>,
    /// Rounds for each row; the median is printed
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds of one round; with --fleet at least 20
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Slots of each of the two real agents. With fewer than are in flight, tasks wait for one another
    #[arg(long, default_value_t = 64)]
    slots: u32,
    /// Only tasks that do nothing
    #[arg(long, conflicts_with = "processes")]
    no_ops: bool,
    /// Only real processes
    #[arg(long)]
    processes: bool,
    /// Submit tasks that do nothing by a call each, as processes are, and not on streams
    #[arg(long, conflicts_with = "processes")]
    unary: bool,
    /// Instead: kill the leader so many times, and time the next commit
    #[arg(long, value_name = "KILLS")]
    failover: Option<u32>,
    /// Instead: full load for so long, counting elections
    #[arg(long, value_name = "MINUTES", conflicts_with = "failover")]
    steady: Option<u64>,
    /// Instead: the same load on seven agents of three speeds, with one strategy after the other
    #[arg(long, conflicts_with_all = ["failover", "steady"])]
    fleet: bool,
    /// Instead: so many agents at once; the leader is killed --rounds times
    #[arg(long, value_name = "AGENTS", conflicts_with_all = ["failover", "steady", "fleet"])]
    agents: Option<u32>,
    /// Instead: let so many tasks wait, and see how the cluster bears it
    #[arg(long, value_name = "TASKS", conflicts_with_all = ["failover", "steady", "fleet", "agents"])]
    queued: Option<u64>,
    /// Instead: a fixed rate for so long, and what that leaves in memory and on disk
    #[arg(long, value_name = "MINUTES", conflicts_with_all = ["failover", "steady", "fleet", "agents", "queued"])]
    sustained: Option<u64>,
    /// Tasks a minute of --sustained
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    rate: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("bench-tasks: no threads to run in: {error}");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(async {
        tokio::select! {
            measured = measure(&arguments) => match measured {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("bench-tasks: {error}");
                    ExitCode::FAILURE
                }
            },
            _ = tokio::signal::ctrl_c() => {
                eprintln!("bench-tasks: interrupted");
                ExitCode::from(130)
            }
        }
    })
}

/// Leaves a core to what is measured. Where there are two, a second thread of ours would mostly be woken to
/// find that there is nothing to do, and take that core for it.
fn runtime() -> std::io::Result<Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.saturating_sub(1).max(1))
        .enable_all()
        .build()
}

async fn measure(arguments: &Arguments) -> Result<(), Error> {
    if cfg!(debug_assertions) {
        println!(
            "This is a debug build: the figures say little. `make bench-tasks` builds a release.\n"
        );
    }
    if let Some(kills) = arguments.failover {
        return failover::measure(kills).await;
    }
    if let Some(minutes) = arguments.steady {
        return steady::measure(Duration::from_secs(minutes * 60)).await;
    }
    if arguments.fleet {
        return fleet::measure(arguments).await;
    }
    if let Some(agents) = arguments.agents {
        return agents::measure(agents, arguments).await;
    }
    if let Some(tasks) = arguments.queued {
        return queued::measure(tasks, arguments.seconds).await;
    }
    if let Some(minutes) = arguments.sustained {
        return sustained::measure(minutes, arguments.rate).await;
    }
    if !arguments.processes {
        throughput::no_ops(arguments).await?;
    }
    if !arguments.no_ops {
        throughput::processes(arguments).await?;
    }
    Ok(())
}
