//! What was found, and how much was looked at.

use std::collections::BTreeMap;

use crate::checkers::violation::{Invariant, Kind, Violation};

/// Violations of one kind that are kept, of the log's millions of entries.
const KEPT: u64 = 100;

#[derive(Debug, Clone, Default)]
pub struct Book {
    violations: Vec<Violation>,
    counts: BTreeMap<Kind, u64>,
    looked_at: BTreeMap<Invariant, u64>,
}

impl Book {
    pub fn note(&mut self, violation: Violation) {
        let count = self.counts.entry(violation.kind).or_default();
        *count += 1;
        if *count <= KEPT {
            self.violations.push(violation);
        }
    }

    /// So many more things were held against a promise.
    pub fn saw(&mut self, invariant: Invariant, more: u64) {
        *self.looked_at.entry(invariant).or_default() += more;
    }

    pub fn looked_at(&self, invariant: Invariant) -> u64 {
        self.looked_at.get(&invariant).copied().unwrap_or(0)
    }

    /// Those that were not kept.
    pub fn left_out(&self, invariant: Invariant) -> u64 {
        let counts = self.counts.iter();
        let counts = counts.filter(|(kind, _)| kind.invariant() == invariant);
        counts.map(|(_, count)| count.saturating_sub(KEPT)).sum()
    }

    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    pub fn violations_of(&self, invariant: Invariant) -> impl Iterator<Item = &Violation> {
        let violations = self.violations.iter();
        violations.filter(move |it| it.kind.invariant() == invariant)
    }
}
