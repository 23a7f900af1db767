//! The report of a run, for programs, and its verdict.
//!
//! A run is worth something only if it was one: enough was asked for, every fault took hold, and every checker had what it
//! needs. Otherwise it is invalid, whatever was found or not.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::checkers::{Evidence, Finding, Standing, Violation, healing_times};
use crate::history::{Counts, Expiries, History, Operation, Outcome};
use crate::report::Samples;

const SCHEMA: u32 = 1;

/// What was run, as far as the history does not say it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    pub scenario: String,
    pub seed: u64,
    /// Of the binary under test, of this harness, of the kernel.
    pub versions: BTreeMap<String, String>,
    /// What carried, delayed and cut the network: `netns`, `proxy` or `direct`.
    pub network: String,
    /// Acknowledged operations below which the run shows nothing.
    pub floor: u64,
    /// Faults below which it shows nothing.
    pub least_faults: u64,
    /// The command that does it again.
    pub replay: String,
    /// Kinds of faults that belong to the scenario and can't be had here, with what they need.
    #[serde(default)]
    pub left_out: Vec<String>,
    /// Kinds that could have been inflicted, and were not: the run was too short for all.
    #[serde(default)]
    pub not_inflicted: Vec<String>,
    /// What the cluster did that no checker can see: it could not be used any more.
    pub failures: Vec<String>,
    /// What the harness could not do, so that more may be broken than it found.
    pub gaps: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    Valid,
    Violated,
    Invalid,
}

impl Verdict {
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Valid => "VALID",
            Verdict::Violated => "VIOLATED",
            Verdict::Invalid => "INVALID",
        }
    }
}

/// Faults of one name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultCount {
    pub begun: u64,
    pub took_effect: u64,
    pub healed: u64,
    /// How it was seen that they took effect, each way once.
    pub proofs: Vec<String>,
    /// Milliseconds until a write succeeded, each time that one of them was the last to be healed.
    #[serde(default)]
    pub served_after_ms: Vec<u64>,
}

impl FaultCount {
    pub fn served_after(&self) -> Samples {
        let millis = self.served_after_ms.iter().copied();
        Samples::new(millis.map(Duration::from_millis).collect())
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub schema: u32,
    pub verdict: Verdict,
    /// Why it is not valid; empty where it is.
    pub reasons: Vec<String>,
    #[serde(flatten)]
    pub run: Run,
    pub seconds: f64,
    pub operations: Counts,
    /// By what was asked for.
    pub by_action: BTreeMap<String, Counts>,
    /// By name.
    pub faults: BTreeMap<String, FaultCount>,
    /// Changes of leadership, the first leader included.
    pub reigns: u64,
    #[serde(default)]
    pub expiries: Expiries,
    pub findings: Vec<Finding>,
}

impl Report {
    pub fn of(run: Run, evidence: &Evidence, findings: Vec<Finding>) -> Report {
        let history = &evidence.history;
        let faults = faults(history);
        let operations = history.counts();
        let (verdict, reasons) = verdict(&run, operations, &faults, &findings);
        Report {
            schema: SCHEMA,
            verdict,
            reasons,
            run,
            seconds: history.end().seconds(),
            operations,
            by_action: by_action(history),
            faults,
            reigns: history.reigns.len() as u64,
            expiries: history.expiries(),
            findings,
        }
    }

    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let mut bytes =
            serde_json::to_vec_pretty(self).map_err(|error| Error::format(path, error))?;
        bytes.push(b'\n');
        std::fs::write(path, bytes).map_err(Error::file("writing", path))
    }

    /// Leaves all of it in a directory: `NAME.json` for programs, `NAME.html` for people, and the history as
    /// `NAME.history.jsonl`, from which it can be judged again.
    pub fn keep(&self, evidence: &Evidence, directory: &Path, name: &str) -> Result<(), Error> {
        std::fs::create_dir_all(directory).map_err(Error::file("creating", directory))?;
        let file = |end: &str| directory.join(format!("{name}.{end}"));
        self.write(&file("json"))?;
        let html = file("html");
        std::fs::write(&html, super::page(self, evidence))
            .map_err(Error::file("writing", &html))?;
        evidence.history.write(&file("history.jsonl"))
    }

    /// Until a write succeeded, each time that nothing was broken any more.
    pub fn served_after(&self) -> Samples {
        let mut all = Samples::default();
        for count in self.faults.values() {
            all.add(&count.served_after());
        }
        all
    }

    pub fn violations(&self) -> impl Iterator<Item = &Violation> {
        self.findings.iter().flat_map(|finding| &finding.violations)
    }
}

fn verdict(
    run: &Run,
    operations: Counts,
    faults: &BTreeMap<String, FaultCount>,
    findings: &[Finding],
) -> (Verdict, Vec<String>) {
    let mut broken = run.failures.clone();
    let mut invalid = run.gaps.clone();
    // What was seen broken first comes first.
    let mut findings: Vec<&Finding> = findings.iter().collect();
    findings.sort_by_key(|it| it.violations.first().map(Violation::place));
    for finding in findings {
        let (name, count) = (finding.invariant, finding.broken());
        let promise = name.sentence();
        match finding.standing() {
            Standing::Violated => broken.push(format!(
                "{name} is broken ({}): {promise}",
                super::count(usize::try_from(count).unwrap_or(usize::MAX), "violation")
            )),
            Standing::Unproven => {
                let gaps = finding.gaps.join("; ");
                invalid.push(format!("{name} could not be checked: {gaps}"));
            }
            Standing::Holds | Standing::NothingSeen | Standing::NotApplicable => {}
        }
    }
    if operations.ok < run.floor {
        let (ok, floor) = (operations.ok, run.floor);
        invalid.push(format!(
            "{ok} operations were acknowledged, and {floor} are wanted"
        ));
    }
    let begun: u64 = faults.values().map(|count| count.begun).sum();
    if begun < run.least_faults {
        let wanted = run.least_faults;
        invalid.push(format!(
            "{begun} faults were inflicted, and {wanted} are wanted"
        ));
    }
    for (name, count) in faults {
        let FaultCount {
            begun, took_effect, ..
        } = count;
        if took_effect < begun {
            let without = begun - took_effect;
            invalid.push(format!(
                "{without} of {begun} faults `{name}` had no proven effect"
            ));
        }
    }
    let verdict = match (broken.is_empty(), invalid.is_empty()) {
        (false, _) => Verdict::Violated,
        (true, false) => Verdict::Invalid,
        (true, true) => Verdict::Valid,
    };
    broken.extend(invalid);
    (verdict, broken)
}

fn faults(history: &History) -> BTreeMap<String, FaultCount> {
    let mut counts: BTreeMap<String, FaultCount> = BTreeMap::new();
    for fault in &history.faults {
        let count = counts.entry(fault.name.clone()).or_default();
        count.begun += 1;
        count.healed += u64::from(fault.healed.is_some());
        if let Some(effect) = &fault.effect {
            count.took_effect += 1;
            if !count.proofs.contains(&effect.proof) {
                count.proofs.push(effect.proof.clone());
            }
        }
    }
    for (fault, took) in healing_times(history) {
        let count = counts.entry(fault.name.clone()).or_default();
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        count.served_after_ms.push(millis);
    }
    counts
}

fn by_action(history: &History) -> BTreeMap<String, Counts> {
    let mut counts: BTreeMap<String, Counts> = BTreeMap::new();
    for operation in &history.operations {
        let count = counts.entry(verb(operation).to_owned()).or_default();
        match operation.outcome {
            Outcome::Ok(_) => count.ok += 1,
            Outcome::Refused { .. } => count.refused += 1,
            Outcome::Unknown { .. } => count.unknown += 1,
        }
    }
    counts
}

fn verb(operation: &Operation) -> &'static str {
    use crate::history::Action;
    match &operation.action {
        Action::Submit { .. } => "submit",
        Action::Cancel { .. } => "cancel",
        Action::Wait { .. } => "wait",
        Action::Get { .. } => "get",
        Action::List { .. } => "list",
        Action::Order { order, .. } => order.as_str(),
        Action::GetAgent { .. } => "get agent",
        Action::ListAgents => "list agents",
    }
}
