//! `cargo run -p cluster-tests -- --scenario leader-kill --minutes 5 --seed 7`: breaks a cluster of real processes
//! while it works, and says whether it kept its promises.
//!
//! The seed is printed first; the verdict, and the command that does it again, last. A report is left for each run, as
//! JSON and as a page. Exit codes: 0 all VALID, 1 a promise was broken, 3 a run shows nothing because something it needs was
//! missing or took no effect, 2 for a command line that can't be read, 130 after Ctrl-C twice. One Ctrl-C ends what is being
//! done and judges what was seen.

#![expect(clippy::print_stdout, reason = "a program that reports on stdout")]

mod listing;
mod plan;
mod telling;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use cluster_tests::Error;
use cluster_tests::campaign::{Campaign, Ending, RANDOM};
use cluster_tests::network::Backend;
use tokio::runtime::Runtime;

use plan::{Planned, Total};

/// Of which one is closed at times, one may be cut off or dead, and one works.
const AGENTS: usize = 3;
/// What one machine carries, each of them a process.
const AGENTS_MAX: usize = 150;

/// Breaks a cluster of real processes while it works, and says whether it kept its promises
#[derive(Debug, Clone, Parser)]
#[command(name = "cluster-tests", after_help = EXAMPLES)]
pub struct Arguments {
    /// Say what can be run and what can be broken here, and end
    #[arg(long)]
    list: bool,
    /// A scenario, a kind of fault, or `all` scenarios but soak one after the other
    #[arg(long, value_name = "NAME", default_value = RANDOM)]
    scenario: String,
    /// Minutes in which things are broken, over all runs
    #[arg(long, value_name = "N", default_value_t = 2.0, value_parser = minutes)]
    minutes: f64,
    /// Draws what is broken, whom it hits and for how long [default: another one each time]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Controllers
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = controllers)]
    nodes: usize,
    /// Agents
    #[arg(long, value_name = "N", default_value_t = AGENTS, value_parser = agents)]
    agents: usize,
    /// What the nodes are connected by [default: netns, where that can be had]
    #[arg(long, value_name = "KIND")]
    network: Option<Network>,
    /// Where the reports are left [default: cluster-reports in the build directory]
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// A bug that a test build of the product is told to have, to see it found
    #[arg(long, value_name = "BUG")]
    planted: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  cargo run -p cluster-tests -- --list
  cargo run -p cluster-tests -- --scenario leader-kill --minutes 5 --seed 7
  cargo run -p cluster-tests -- --scenario all --minutes 30 --nodes 5 --report reports

The product is the quorate binary that QUORATE_BIN names, or the one beside this program; cargo builds it where there is none.";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Network {
    /// A network namespace for each node, and a router between them; needs root
    Netns,
    /// A proxy on loopback for each direction between two nodes
    Proxy,
}

impl From<Network> for Backend {
    fn from(network: Network) -> Backend {
        match network {
            Network::Netns => Backend::Namespaces,
            Network::Proxy => Backend::Proxies,
        }
    }
}

fn minutes(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(minutes) if minutes > 0.0 && minutes.is_finite() => Ok(minutes),
        Ok(_) => Err("give more than 0".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn controllers(text: &str) -> Result<usize, String> {
    match text {
        "3" => Ok(3),
        "5" => Ok(5),
        _ => Err("a cluster has 3 or 5 controllers".to_owned()),
    }
}

fn agents(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if (2..=AGENTS_MAX).contains(&count) => Ok(count),
        Ok(_) => Err(format!("a run has 2 to {AGENTS_MAX} agents")),
        Err(error) => Err(error.to_string()),
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cluster-tests: no threads to run in: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(async {
        let ending = Ending::default();
        tokio::select! {
            ended = campaign(&arguments, &ending) => ended,
            () = interrupted(&ending) => Ok(ExitCode::from(130)),
        }
    });
    ended.unwrap_or_else(|error| {
        eprintln!("cluster-tests: {error}");
        ExitCode::from(plan::INVALID)
    })
}

/// Twice.
async fn interrupted(ending: &Ending) {
    let asked = tokio::signal::ctrl_c().await;
    eprintln!("\nit ends, and what was seen is judged; Ctrl-C again ends it at once");
    ending.ask();
    if asked.is_ok() && tokio::signal::ctrl_c().await.is_ok() {
        eprintln!("\ninterrupted; ending its processes");
    }
}

async fn campaign(arguments: &Arguments, ending: &Ending) -> Result<ExitCode, Error> {
    let (backend, why) = match arguments.network {
        Some(network) => (network.into(), None),
        None => Backend::strongest(),
    };
    if arguments.list {
        listing::print(arguments.nodes, arguments.agents, backend);
        return Ok(ExitCode::SUCCESS);
    }
    let seed = arguments.seed.unwrap_or_else(rand::random);
    println!("seed {seed}");
    if let Some(why) = why {
        println!("network proxy, not netns: {why}");
    }
    let length = Duration::from_secs_f64(arguments.minutes * 60.0);
    let runs = match plan::runs(&arguments.scenario, seed, length) {
        Ok(runs) => runs,
        Err(unknown) => {
            eprintln!("cluster-tests: {unknown}");
            return Ok(ExitCode::from(plan::MISTAKEN));
        }
    };
    let directory = match &arguments.report {
        Some(directory) => directory.clone(),
        None => cluster_tests::binary::target_directory()?.join("cluster-reports"),
    };
    let mut total = Total::default();
    for (number, run) in (1..).zip(&runs) {
        if ending.was_asked() {
            break;
        }
        telling::begin(number, runs.len(), run);
        let campaign = Campaign {
            scenario: run.scenario,
            seed: run.seed,
            length: run.length,
            controllers: arguments.nodes,
            agents: arguments.agents,
            backend,
            planted: arguments.planted.clone(),
            replay: replay(arguments, run, backend),
        };
        let voice = telling::Voice::new();
        match campaign.run(ending, &|text| voice.say(text)).await {
            Ok(outcome) => {
                telling::end(&outcome, &directory, run)?;
                total.add(&outcome.report);
            }
            // Of all there are, some can't be had here; one that was asked for has to be.
            Err(Error::Missing(why)) if runs.len() > 1 => {
                voice.say(&why);
                total.left_out.push(run.scenario.name);
            }
            Err(Error::Invalid(why)) if runs.len() > 1 => {
                voice.say(&format!("INVALID: {why}"));
                total.add_invalid(&campaign);
            }
            Err(error) => return Err(error),
        }
    }
    telling::total(&total, runs.len());
    Ok(ExitCode::from(total.exit_code()))
}

/// The command line that does one run again.
fn replay(arguments: &Arguments, run: &Planned, backend: Backend) -> String {
    let network = backend.name();
    let planted = arguments
        .planted
        .iter()
        .map(|bug| format!(" --planted {bug}"));
    format!(
        "cargo run -p cluster-tests -- --scenario {} --seed {} --minutes {} --nodes {}{} --network {network}{}",
        run.scenario.name,
        run.seed,
        (run.length.as_secs_f64() / 0.06).round() / 1_000.0,
        arguments.nodes,
        match arguments.agents {
            AGENTS => String::new(),
            count => format!(" --agents {count}"),
        },
        planted.collect::<String>(),
    )
}
