//! What is printed: as things happen, at the end of a run, and at the end of all.

use std::path::Path;
use std::time::{Duration, Instant};

use cluster_tests::Error;
use cluster_tests::campaign::Outcome;
use cluster_tests::checkers::{Finding, Standing};
use cluster_tests::history::Expiries;
use cluster_tests::report::{Report, Samples, count, grouped, span};

use super::plan::{Planned, Total};

/// Violations that are printed; all are in the report.
const SHOWN: usize = 5;

/// Says what happens in one run, and when.
pub struct Voice(Instant);

impl Voice {
    pub fn new() -> Voice {
        Voice(Instant::now())
    }

    pub fn say(&self, text: &str) {
        println!("[{:6.1} s] {text}", self.0.elapsed().as_secs_f64());
    }
}

pub fn begin(number: usize, of: usize, run: &Planned) {
    let which = match of {
        1 => String::new(),
        _ => format!("run {number} of {of}: "),
    };
    println!(
        "\n{which}{}, seed {}, {}: {}\n",
        run.scenario.name,
        run.seed,
        span(run.length),
        run.scenario.about
    );
}

/// The verdict of a run, and where its report is.
pub fn end(outcome: &Outcome, directory: &Path, run: &Planned) -> Result<(), Error> {
    let report = &outcome.report;
    let name = format!("{}-{}", run.scenario.name, run.seed);
    report.keep(&outcome.evidence, directory, &name)?;
    println!();
    promises(&report.findings);
    for violation in report.violations().take(SHOWN) {
        println!("  {violation}");
    }
    let more = report.violations().count().saturating_sub(SHOWN);
    if more > 0 {
        println!("  {} more are in the report", grouped(more as u64));
    }
    println!("\n{}  {}", report.verdict.as_str(), counts(report));
    for reason in &report.reasons {
        println!("  - {reason}");
    }
    served(&report.served_after());
    println!(
        "report  {}",
        directory.join(format!("{name}.html")).display()
    );
    if let Some(kept) = &outcome.kept {
        println!("files   {}, until the next run", kept.display());
    }
    println!("again   {}", report.run.replay);
    Ok(())
}

/// The names of those of the same standing on one line.
fn promises(findings: &[Finding]) {
    let order = [
        Standing::Violated,
        Standing::Unproven,
        Standing::Holds,
        Standing::NothingSeen,
        Standing::NotApplicable,
    ];
    for standing in order {
        let of_it: Vec<String> = findings
            .iter()
            .filter(|finding| finding.standing() == standing)
            .map(|finding| finding.invariant.to_string())
            .collect();
        if !of_it.is_empty() {
            println!("  {:<18} {}", standing.as_str(), of_it.join(" "));
        }
    }
}

fn counts(report: &Report) -> String {
    let operations = report.operations;
    let faults: u64 = report.faults.values().map(|count| count.took_effect).sum();
    format!(
        "{} operations acknowledged, {} refused, {} unknown; {} with proven effect; {} of leader{}",
        grouped(operations.ok),
        grouped(operations.refused),
        grouped(operations.unknown),
        count(faults.try_into().unwrap_or(usize::MAX), "fault"),
        count(
            report
                .reigns
                .saturating_sub(1)
                .try_into()
                .unwrap_or(usize::MAX),
            "change"
        ),
        expiries(report.expiries),
    )
}

/// Empty where none ran out.
fn expiries(Expiries { leases, attempts }: Expiries) -> String {
    match leases {
        0 => String::new(),
        _ => format!(
            "; {} of agents ran out, with {}",
            count(leases.try_into().unwrap_or(usize::MAX), "lease"),
            count(attempts.try_into().unwrap_or(usize::MAX), "attempt")
        ),
    }
}

/// How soon it was healed, each time that nothing was broken any more.
fn served(after: &Samples) {
    if !after.is_empty() {
        println!("healed  a write succeeded after {after}");
    }
}

/// All runs together, where there were several.
pub fn total(total: &Total, planned: usize) {
    if planned < 2 {
        return;
    }
    let faults = total.faults.values().map(|struck| struck.took_effect);
    let faults: u64 = faults.sum();
    let verdicts: Vec<String> = total
        .verdicts
        .iter()
        .map(|(verdict, runs)| format!("{runs} {verdict}"))
        .collect();
    println!(
        "\nof {}: {}; {} under load, {} operations acknowledged, {} faults, {} changes of leader{}",
        count(planned, "run"),
        verdicts.join(", "),
        span(Duration::from_secs_f64(total.seconds)),
        grouped(total.operations.ok),
        grouped(faults),
        grouped(total.reigns),
        expiries(total.expiries),
    );
    let mut all = Samples::default();
    for (name, struck) in &total.faults {
        let (times, after) = (struck.took_effect, &struck.served_after);
        match after.is_empty() {
            true => println!("  {name:<22} {times:>6}"),
            false => println!("  {name:<22} {times:>6}   a write after healing: {after}"),
        }
        all.add(after);
    }
    served(&all);
    if !total.left_out.is_empty() {
        println!(
            "left out, because they can't be had here: {}",
            total.left_out.join(", ")
        );
    }
    for (name, seed, again) in &total.bad {
        println!("not valid: {name}, seed {seed}: {again}");
    }
}
