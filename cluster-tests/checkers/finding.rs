//! What a checker answers.

use serde::{Deserialize, Serialize};

use super::evidence::Case;
use super::violation::{Invariant, Violation};

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
    pub violations: Vec<Violation>,
    /// What it lacked, so that more may be broken than it found.
    pub gaps: Vec<String>,
    /// Why there is nothing to check in this product yet.
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
            Standing::NotApplicable => "not applicable yet",
        }
    }
}
