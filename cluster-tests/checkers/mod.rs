//! Pure judges. They are given what was seen, and answer with what it breaks, never with a guess.
//!
//! ```text
//!  history ─┐
//!  logs ────┼─► Evidence ──► a Checker for each promise ──► Findings
//!  agents ──┤       └─► Replay: the log, applied from its beginning, beside all that was answered
//!  statuses ┘
//! ```
//!
//! A checker that has nothing to look at says so, and one that lacks what it needs says that: neither is green. What
//! the product does not have yet is listed with the reason.

mod absent;
mod convergence;
mod endings;
mod epochs;
mod events;
mod evidence;
mod finding;
mod linear;
mod once;
mod placement;
mod precedence;
mod quotas;
mod recovery;
mod replay;
mod results;
mod violation;
mod writes;

pub use convergence::{check_hashes, is_converged};
pub use evidence::{Case, Evidence, Execution, Final, Sign};
pub use finding::{Checker, Finding, Standing};
pub use recovery::healing_times;
pub use replay::{Books, Replay};
pub use violation::{Invariant, Kind, Violation};

/// Violations of one kind that are kept.
const KEPT: usize = 100;

/// All checkers, in the order of their names.
pub fn all() -> Vec<Box<dyn Checker>> {
    vec![
        Box::new(writes::Writes),
        Box::new(results::Results),
        Box::new(epochs::Epochs),
        Box::new(placement::Placements),
        Box::new(linear::Linearizability::default()),
        Box::new(convergence::Convergence),
        Box::new(absent::AUDIT),
        Box::new(events::Events),
        Box::new(once::Once),
        Box::new(absent::GANGS),
        Box::new(quotas::Quotas),
        Box::new(precedence::Precedence),
        Box::new(recovery::Recovery),
    ]
}

/// What each of them finds.
pub fn judge(evidence: &Evidence) -> Vec<Finding> {
    let case = Case::of(evidence);
    let mut findings: Vec<Finding> = all().iter().map(|checker| checker.check(&case)).collect();
    let shown = evidence.history.shown();
    for finding in &mut findings {
        for violation in &mut finding.violations {
            // What is seen in the log alone has its time from those who were told of it.
            let entry = violation.entries.iter().max();
            violation.at = violation.at.or_else(|| shown.at(*entry?));
        }
        finding.violations.sort_by_key(Violation::place);
        finding.bound(KEPT);
        if let Some(why) = &evidence.unlogged {
            finding.not_asked(why);
        }
    }
    findings
}

/// All that the evidence breaks. Empty is good, if the evidence is not.
pub fn check(evidence: &Evidence) -> Vec<Violation> {
    let findings = judge(evidence).into_iter();
    findings.flat_map(|finding| finding.violations).collect()
}
