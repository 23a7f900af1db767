//! I12: who goes first.

use super::evidence::Case;
use super::finding::{Checker, Finding};
use super::violation::Invariant;

pub struct Precedence;

impl Checker for Precedence {
    fn invariant(&self) -> Invariant {
        Invariant::I12
    }

    fn sentence(&self) -> &'static str {
        "of two tasks that require the same, the one of the higher class, unless the other has waited for its class's patience, else of one user's the older, is assigned first, \
         if it was acknowledged before the other was asked for (retries, tasks with files beside the log, and between \
         namespaces those with a quota, are left out; who has used how much is not looked at)"
    }

    fn check(&self, case: &Case<'_>) -> Finding {
        let mut finding = Finding::of(self);
        case.replay.report_to(&mut finding);
        finding
    }
}
