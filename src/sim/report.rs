//! What a run showed, and the sum of many.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::judge::Violation;
use crate::network::Swallowed;
use crate::plan::Fault;

/// What was done in a run, by name.
pub type Counts = BTreeMap<&'static str, u64>;

#[derive(Debug, Clone)]
pub struct Report {
    pub seed: u64,
    /// What did not hold; nothing is good.
    pub violations: Vec<Violation>,
    /// Of all lines of the trace: equal for equal seeds.
    pub digest: [u8; 32],
    pub lines: Vec<String>,
    pub simulated: Duration,
    /// Faults that took effect.
    pub faults: BTreeMap<Fault, u64>,
    pub counts: Counts,
    pub network: Swallowed,
    /// From the end of all faults to the first accepted submit.
    pub recovered_after: Option<Duration>,
}

impl Report {
    /// Another run of the same seed has to be the same, line by line.
    pub fn compare(&mut self, again: &Report) {
        *self.counts.entry("seeds run twice").or_default() += 1;
        if self.digest == again.digest {
            return;
        }
        let pairs = self.lines.iter().zip(&again.lines);
        let parted = pairs.clone().find(|(one, other)| one != other);
        self.violations.push(Violation {
            at: 0,
            rule: "one seed, one run",
            what: format!("the runs part at {parted:?}"),
        });
    }

    pub fn holds(&self) -> bool {
        self.violations.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.simulated.as_secs();
        writeln!(
            f,
            "seed {}: {seconds} s of virtual time, digest {}",
            self.seed,
            hex::encode(&self.digest[..8])
        )?;
        for violation in &self.violations {
            writeln!(f, "  {violation}")?;
        }
        Ok(())
    }
}

/// The sum of many runs.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    pub seeds: u64,
    pub simulated: Duration,
    pub faults: BTreeMap<Fault, u64>,
    pub counts: Counts,
    pub network: Swallowed,
    pub recovered: Vec<Duration>,
    pub failed: Vec<u64>,
}

impl Totals {
    pub fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.simulated += report.simulated;
        for (fault, count) in &report.faults {
            *self.faults.entry(*fault).or_default() += count;
        }
        for (what, count) in &report.counts {
            *self.counts.entry(what).or_default() += count;
        }
        let (sum, one) = (&mut self.network, &report.network);
        sum.cut += one.cut;
        sum.lost += one.lost;
        sum.doubled += one.doubled;
        sum.travelled += one.travelled;
        self.recovered.extend(report.recovered_after);
        if !report.holds() {
            self.failed.push(report.seed);
        }
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "faults that took effect:")?;
        for (fault, count) in &self.faults {
            writeln!(f, "{count:>10}  {}", fault.name())?;
        }
        let network = &self.network;
        writeln!(f, "{:>10}  messages swallowed by a cut", network.cut)?;
        writeln!(f, "{:>10}  messages lost", network.lost)?;
        writeln!(f, "{:>10}  messages doubled", network.doubled)?;
        writeln!(f, "what happened:")?;
        for (what, count) in &self.counts {
            writeln!(f, "{count:>10}  {what}")?;
        }
        let mut recovered = self.recovered.clone();
        recovered.sort_unstable();
        if let (Some(median), Some(longest)) =
            (recovered.get(recovered.len() / 2), recovered.last())
        {
            let p99 = recovered[recovered.len() * 99 / 100];
            writeln!(
                f,
                "first success after healing: p50 {} ms, p99 {} ms, longest {} ms",
                median.as_millis(),
                p99.as_millis(),
                longest.as_millis()
            )?;
        }
        write!(
            f,
            "{} seeds, {:.1} hours of virtual time, {} of them broke a promise",
            self.seeds,
            self.simulated.as_secs_f64() / 3_600.0,
            self.failed.len()
        )
    }
}
