//! I4: who may be given work, and how much.

use super::evidence::Case;
use super::finding::{Checker, Finding};
use super::violation::Invariant;

pub struct Placements;

impl Checker for Placements {
    fn invariant(&self) -> Invariant {
        Invariant::I4
    }

    fn sentence(&self) -> &'static str {
        "each assignment in the log is to an agent that is registered, open and not lost then, satisfies what the task \
         requires, is kept from it by no rule made by hand, holds fewer attempts than its slots and the one that is sent ahead, and has left what the task asks for"
    }

    fn check(&self, case: &Case<'_>) -> Finding {
        let mut finding = Finding::of(self);
        case.replay.report_to(&mut finding);
        finding
    }
}
