//! Runs many seeds, or one again: `make sim SEEDS=10000`, `make sim SEED=7`.
//!
//! Seeds run on all cores, each on one thread. The first line says where it begins, the last one what it found; it
//! ends with 1 if a seed broke a promise, and says how to see that seed again. Those of `regressions.txt` come first.

#![expect(clippy::print_stdout, reason = "what it finds is its output")]

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Parser;
use mutant::Mutant;
use sim::{Fault, Plan, Report, Totals};
use tracing_subscriber::EnvFilter;

#[derive(Debug, Parser)]
#[command(
    name = "sim",
    about = "Simulates clusters that break, each from a seed"
)]
struct Args {
    /// How many seeds.
    #[arg(long, default_value_t = 500)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// This one alone, with all that happens in it; RUST_LOG=debug adds what the product says.
    #[arg(long)]
    seed: Option<u64>,
    /// Seeds at once; 0: one for each core.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// No new seed after so many seconds; 0: no limit.
    #[arg(long, default_value_t = 0)]
    seconds: u64,
    /// Every so many seeds one is run twice, and both runs have to be the same; 0: none.
    #[arg(long, default_value_t = 5)]
    twice: u64,
    /// This fault in each of them and no other, or these.
    #[arg(long = "fault")]
    faults: Vec<Fault>,
    /// With this bug planted: all seeds, until one of them finds it.
    #[arg(long)]
    mutant: Option<Mutant>,
    /// Each known bug, one after the other, with --seeds seeds at most.
    #[arg(long)]
    mutants: bool,
    /// What the test runner gives to all tests.
    #[arg(long, hide = true)]
    test_threads: Option<usize>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.mutants {
        return mutants(&args);
    }
    match args.seed {
        Some(seed) => one(&args, seed),
        None => many(&args),
    }
}

/// How soon each bug is found. One that is not found is a failure: of the simulation.
fn mutants(args: &Args) -> ExitCode {
    let mut missed = 0;
    for mutant in Mutant::ALL {
        let found = (args.from..args.from + args.seeds).find_map(|seed| {
            mutant::plant(Some(*mutant));
            let report = sim::run(&plan(args, seed));
            mutant::plant(None);
            (!report.holds()).then_some(report)
        });
        match found {
            Some(report) => {
                let tried = report.seed - args.from + 1;
                let first = report.violations.first().map(ToString::to_string);
                println!(
                    "{:<24} {tried:>5}  {}",
                    mutant.name(),
                    first.unwrap_or_default()
                );
            }
            None => {
                missed += 1;
                println!("{:<24} not found in {} seeds", mutant.name(), args.seeds);
            }
        }
    }
    verdict(missed == 0)
}

/// The kept ones, and those that were asked for. A planted bug is counted by the latter.
fn seeds(args: &Args) -> Vec<u64> {
    let kept = include_str!("regressions.txt").lines();
    let kept = kept.filter(|line| !line.starts_with('#') && args.mutant.is_none());
    let number = |line: &str| {
        let number = line.split_whitespace().next().map(str::parse);
        number
            .and_then(Result::ok)
            .unwrap_or_else(|| panic!("regressions.txt: no seed in {line:?}"))
    };
    kept.map(number)
        .chain(args.from..args.from + args.seeds)
        .collect()
}

fn plan(args: &Args, seed: u64) -> Plan {
    Plan::with(seed, &args.faults)
}

fn one(args: &Args, seed: u64) -> ExitCode {
    mutant::plant(args.mutant);
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .without_time()
        .init();
    let plan = Plan {
        all_lines: true,
        ..plan(args, seed)
    };
    let report = sim::run(&plan);
    for line in &report.lines {
        println!("{line}");
    }
    print!("{report}");
    verdict(report.holds())
}

fn verdict(holds: bool) -> ExitCode {
    match holds {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn many(args: &Args) -> ExitCode {
    println!("seeds {} to {}", args.from, args.from + args.seeds - 1);
    let begun = Instant::now();
    let (seeds, next, over) = (seeds(args), AtomicUsize::new(0), AtomicBool::new(false));
    let totals = Mutex::new(Totals::default());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if args.threads == 0 {
        cores
    } else {
        args.threads
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let late =
                        args.seconds > 0 && begun.elapsed() > Duration::from_secs(args.seconds);
                    let next = next.fetch_add(1, Ordering::Relaxed);
                    let seed = seeds.get(next).copied();
                    let Some(seed) = seed.filter(|_| !late && !over.load(Ordering::Relaxed)) else {
                        return;
                    };
                    mutant::plant(args.mutant);
                    let mut report = sim::run(&plan(args, seed));
                    if args.twice > 0 && seed.is_multiple_of(args.twice) {
                        report.compare(&sim::run(&plan(args, seed)));
                    }
                    let mut totals = totals.lock().unwrap_or_else(PoisonError::into_inner);
                    totals.add(&report);
                    tell(args, &report, &totals, &over);
                }
            });
        }
    });
    let totals = totals.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("{totals}");
    let took = begun.elapsed().as_secs_f64();
    println!(
        "in {took:.1} s: {:.0} times as fast as the time that was simulated",
        totals.simulated.as_secs_f64() / took
    );
    verdict(totals.failed.is_empty())
}

/// Failures at once; ten of them are enough, and one where a bug was planted.
fn tell(args: &Args, report: &Report, totals: &Totals, over: &AtomicBool) {
    if !report.holds() {
        print!("{report}");
        let mutant = args
            .mutant
            .map(|mutant| format!("--mutant {}", mutant.name()));
        let faults = args
            .faults
            .iter()
            .map(|fault| format!("--fault '{}'", fault.name()));
        let more: Vec<String> = mutant.into_iter().chain(faults).collect();
        let more = match more.is_empty() {
            true => String::new(),
            false => format!(" ARGS=\"{}\"", more.join(" ")),
        };
        println!("  again: make sim SEED={}{more}", report.seed);
        let enough = if args.mutant.is_some() { 1 } else { 10 };
        over.store(totals.failed.len() >= enough, Ordering::Relaxed);
    }
}
