//! I11: what namespaces may have at once.

use super::evidence::Case;
use super::finding::{Checker, Finding};
use super::violation::Invariant;

pub struct Quotas;

impl Checker for Quotas {
    fn invariant(&self) -> Invariant {
        Invariant::I11
    }

    fn sentence(&self) -> &'static str {
        "a namespace with a quota never has more live attempts than that, and no submit is taken while as many of its tasks wait"
    }

    fn check(&self, case: &Case<'_>) -> Finding {
        let mut finding = Finding::of(self);
        case.replay.report_to(&mut finding);
        finding
    }
}
