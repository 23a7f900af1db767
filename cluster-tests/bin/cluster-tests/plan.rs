//! What is run one after the other, and what it comes to.

use std::collections::BTreeMap;
use std::time::Duration;

use cluster_tests::campaign::{self, Campaign, SCENARIOS, Scenario, Span};
use cluster_tests::history::{Counts, Expiries};
use cluster_tests::report::{Report, Samples, Verdict};

/// All scenarios, one after the other.
const ALL: &str = "all";
/// One cluster lives for no longer: its whole history is judged at once, in memory.
const LONGEST: Duration = Duration::from_secs(300);
/// With less, a run would be made of its start and its end.
const SHORTEST: Duration = Duration::from_secs(10);

/// A promise was broken.
pub const VIOLATED: u8 = 1;
/// What was seen shows nothing, for or against.
pub const INVALID: u8 = 3;
/// The command line can't be followed.
pub const MISTAKEN: u8 = 2;

/// One run.
#[derive(Debug, Clone)]
pub struct Planned {
    pub scenario: Scenario,
    pub seed: u64,
    pub length: Duration,
}

/// The runs of a scenario, or of all, which take so long together. Each has a seed of its own, counted on from the first.
pub fn runs(name: &str, seed: u64, length: Duration) -> Result<Vec<Planned>, String> {
    let scenarios = match name {
        ALL => SCENARIOS
            .iter()
            .filter(|it| it.span != Span::Long)
            .copied()
            .collect(),
        _ => {
            let names: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
            let unknown = || {
                format!(
                    "there is no scenario and no fault {name}; there are {ALL}, {}, and the faults that --list shows",
                    names.join(", ")
                )
            };
            vec![campaign::find(name).ok_or_else(unknown)?]
        }
    };
    let count = u32::try_from(scenarios.len()).unwrap_or(u32::MAX);
    let each = (length / count).max(SHORTEST.min(length));
    let is_long = scenarios.iter().any(|scenario| scenario.span == Span::Long);
    let longest = if is_long { each } else { LONGEST };
    let rounds = each.as_secs_f64() / longest.as_secs_f64();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count of rounds"
    )]
    let rounds = rounds.ceil().max(1.0) as u32;
    let mut runs = Vec::new();
    for _ in 0..rounds {
        for scenario in &scenarios {
            runs.push(Planned {
                scenario: *scenario,
                seed: seed.wrapping_add(runs.len() as u64),
                length: each / rounds,
            });
        }
    }
    Ok(runs)
}

/// What all runs came to.
#[derive(Debug, Default)]
pub struct Total {
    pub verdicts: BTreeMap<&'static str, u64>,
    /// The runs that are not VALID: the scenario, its seed, and the command that does it again.
    pub bad: Vec<(String, u64, String)>,
    /// Scenarios of which nothing can be had here.
    pub left_out: Vec<&'static str>,
    pub seconds: f64,
    pub operations: Counts,
    /// By name.
    pub faults: BTreeMap<String, Struck>,
    pub reigns: u64,
    pub expiries: Expiries,
    is_violated: bool,
}

/// Faults of one name.
#[derive(Debug, Default)]
pub struct Struck {
    pub took_effect: u64,
    /// Until a write succeeded, each time that one of them was the last to be healed.
    pub served_after: Samples,
}

impl Total {
    pub fn add(&mut self, report: &Report) {
        *self.verdicts.entry(report.verdict.as_str()).or_default() += 1;
        self.is_violated |= report.verdict == Verdict::Violated;
        if report.verdict != Verdict::Valid {
            let run = &report.run;
            self.bad
                .push((run.scenario.clone(), run.seed, run.replay.clone()));
        }
        self.seconds += report.seconds;
        self.operations.ok += report.operations.ok;
        self.operations.refused += report.operations.refused;
        self.operations.unknown += report.operations.unknown;
        self.reigns += report.reigns.saturating_sub(1);
        self.expiries.leases += report.expiries.leases;
        self.expiries.attempts += report.expiries.attempts;
        for (name, count) in &report.faults {
            let struck = self.faults.entry(name.clone()).or_default();
            struck.took_effect += count.took_effect;
            struck.served_after.add(&count.served_after());
        }
    }

    /// A run that did not come to a verdict.
    pub fn add_invalid(&mut self, run: &Campaign) {
        *self.verdicts.entry(Verdict::Invalid.as_str()).or_default() += 1;
        let name = run.scenario.name.to_owned();
        self.bad.push((name, run.seed, run.replay.clone()));
    }

    /// 0 only where there was a run, and each was VALID. What can't be had here is left out, and said; with
    /// `QUORATE_REQUIRE_ALL=1` everything has to be had.
    pub fn exit_code(&self) -> u8 {
        let requires_all = std::env::var("QUORATE_REQUIRE_ALL").is_ok_and(|it| it == "1");
        let is_short = requires_all && !self.left_out.is_empty();
        match (
            self.is_violated,
            self.bad.is_empty() && !is_short,
            self.verdicts.is_empty(),
        ) {
            (true, _, _) => VIOLATED,
            (false, true, false) => 0,
            (false, false, _) | (false, true, true) => INVALID,
        }
    }
}
