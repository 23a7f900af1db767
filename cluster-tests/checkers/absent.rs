//! Promises about what the product does not have yet. They are listed so that nobody takes silence for a pass.

use super::evidence::Case;
use super::finding::{Checker, Finding};
use super::violation::Invariant;

pub struct Absent {
    invariant: Invariant,
    why: &'static str,
}

pub const AUDIT: Absent = Absent {
    invariant: Invariant::I7,
    why: "commands carry their principal in the log, but there is no hash chain over them",
};
pub const GANGS: Absent = Absent {
    invariant: Invariant::I10,
    why: "there are no gangs: each task is assigned by itself",
};

impl Checker for Absent {
    fn invariant(&self) -> Invariant {
        self.invariant
    }

    fn sentence(&self) -> &'static str {
        self.invariant.sentence()
    }

    fn check(&self, _: &Case<'_>) -> Finding {
        Finding {
            not_applicable: Some(self.why.to_owned()),
            ..Finding::of(self)
        }
    }
}
