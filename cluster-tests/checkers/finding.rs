//! What a checker answers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::evidence::Case;
use super::violation::{Invariant, Kind, Violation};

/// Holds a run to one promise.
pub trait Checker {
    fn invariant(&self) -> Invariant;

    /// What it looks at, in a sentence: as much of the promise as it can hold a run to.
    fn sentence(&self) -> &'static str;

    fn check(&self, case: &Case<'_>) -> Finding;
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub invariant: Invariant,
    pub sentence: String,
    /// How many things were held against the promise.
    pub looked_at: u64,
    /// The first of each kind, in the order in which they were seen.
    pub violations: Vec<Violation>,
    /// How many more there were.
    pub left_out: u64,
    /// What it lacked, so that more may be broken than it found.
    pub gaps: Vec<String>,
    /// Why there is nothing to check: in this product yet, or in this run.
    pub not_applicable: Option<String>,
}

/// A finding in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    Holds,
    Violated,
    /// Nothing broken was found, but not all that was needed was there.
    Unproven,
    /// The run gave it nothing to look at.
    NothingSeen,
    NotApplicable,
}

impl Finding {
    pub fn of(checker: &dyn Checker) -> Finding {
        Finding {
            invariant: checker.invariant(),
            sentence: checker.sentence().to_owned(),
            looked_at: 0,
            violations: Vec::new(),
            left_out: 0,
            gaps: Vec::new(),
            not_applicable: None,
        }
    }

    pub fn standing(&self) -> Standing {
        if !self.violations.is_empty() {
            return Standing::Violated;
        }
        match (&self.not_applicable, self.gaps.is_empty(), self.looked_at) {
            (Some(_), _, _) => Standing::NotApplicable,
            (None, false, _) => Standing::Unproven,
            (None, true, 0) => Standing::NothingSeen,
            (None, true, _) => Standing::Holds,
        }
    }

    /// All that were found, those included that are not told.
    pub fn broken(&self) -> u64 {
        self.violations.len() as u64 + self.left_out
    }

    /// Keeps so many of each kind: where all is broken, a hundred say as much as a million.
    pub fn bound(&mut self, each: usize) {
        let mut counts: BTreeMap<Kind, usize> = BTreeMap::new();
        let before = self.violations.len();
        self.violations.retain(|violation| {
            let count = counts.entry(violation.kind).or_default();
            *count += 1;
            *count <= each
        });
        self.left_out += (before - self.violations.len()) as u64;
    }

    /// That the log is missing is then no gap; what has nothing else to look at was not asked for.
    pub fn not_asked(&mut self, why: &str) {
        let before = self.gaps.len();
        self.gaps.retain(|gap| gap != why);
        if self.gaps.len() < before && self.looked_at == 0 {
            self.not_applicable = Some(why.to_owned());
        }
    }

    pub fn saw(&mut self, more: usize) {
        self.looked_at += more as u64;
    }
}

impl Standing {
    pub fn as_str(self) -> &'static str {
        match self {
            Standing::Holds => "holds",
            Standing::Violated => "VIOLATED",
            Standing::Unproven => "unproven",
            Standing::NothingSeen => "nothing seen",
            Standing::NotApplicable => "not applicable",
        }
    }
}
