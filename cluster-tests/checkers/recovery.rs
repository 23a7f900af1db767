//! I13: after the last fault is healed it goes on, soon, and comes to an end.

use std::time::Duration;

use super::evidence::Case;
use super::finding::{Checker, Finding};
use super::violation::{Invariant, Kind, Violation};
use crate::history::{Fault, History, Moment, Operation};
use crate::report::span;

/// From the moment at which nothing is broken any more to the first success.
const SOON: Duration = Duration::from_secs(2);

pub struct Recovery;

impl Checker for Recovery {
    fn invariant(&self) -> Invariant {
        Invariant::I13
    }

    fn sentence(&self) -> &'static str {
        "each time that nothing is broken any more, a write succeeds within 2 s, if anybody asks for one; in the end every \
         task has ended on every controller"
    }

    fn check(&self, case: &Case<'_>) -> Finding {
        let evidence = case.evidence;
        let mut finding = Finding::of(self);
        let history = &evidence.history;
        for healed in healings(&history.faults) {
            judge_healing(history, healed, &mut finding);
        }
        super::endings::check(evidence, &mut finding);
        finding
    }
}

/// Moments at which a fault was healed and no other one was left.
fn healings(faults: &[Fault]) -> Vec<(Moment, &Fault)> {
    let mut found = Vec::new();
    for fault in faults {
        let Some(at) = fault.healed else {
            continue;
        };
        let open = |it: &&Fault| {
            it.id != fault.id && it.begun <= at && it.healed.is_none_or(|end| end > at)
        };
        if !faults.iter().any(|it| open(&it)) {
            found.push((at, fault));
        }
    }
    found
}

/// How long it took until a write succeeded, each time that nothing was broken any more: with the fault that was the
/// last to be healed. Without those after which the next one came first.
pub fn healing_times(history: &History) -> Vec<(&Fault, Duration)> {
    let timed = |(healed, fault)| {
        let (at, _) = first_write(history, healed)?;
        let comes_first = next_fault(history, healed).is_some_and(|begun| begun < at);
        (!comes_first).then(|| (fault, at.since(healed)))
    };
    let healings = healings(&history.faults).into_iter();
    healings.filter_map(timed).collect()
}

/// When something was broken again.
fn next_fault(history: &History, after: Moment) -> Option<Moment> {
    let begun = history.faults.iter().map(|it| it.begun);
    begun.filter(|begun| *begun > after).min()
}

fn writes(history: &History) -> impl Iterator<Item = &Operation> {
    let operations = history.operations.iter();
    operations.filter(|it| !it.action.is_read())
}

/// The first that succeeded from a moment on.
fn first_write(history: &History, from: Moment) -> Option<(Moment, &Operation)> {
    writes(history)
        .filter(|it| it.outcome.answer().is_some() && it.answered >= Some(from))
        .filter_map(|it| Some((it.answered?, it)))
        .min_by_key(|(at, _)| *at)
}

fn judge_healing(history: &History, (healed, fault): (Moment, &Fault), finding: &mut Finding) {
    let limit = Moment(healed.0.saturating_add(Moment::of(SOON).0));
    let first = first_write(history, healed);
    // Something else was broken before it could show.
    if next_fault(history, healed)
        .is_some_and(|begun| begun < limit && first.is_none_or(|(at, _)| at > begun))
    {
        return;
    }
    if first.is_some_and(|(at, _)| at <= limit) {
        finding.saw(1);
        return;
    }
    // One that was asked for early enough to have succeeded in time.
    let asked = |it: &&Operation| {
        let until = it.answered.unwrap_or(Moment(u64::MAX));
        it.invoked < limit && until > healed
    };
    let Some(waiting) = writes(history).find(asked) else {
        let (name, target) = (&fault.name, &fault.target);
        let gap = format!("nobody asked for a write in the 2 s after `{name} {target}` was healed");
        finding.gaps.push(gap);
        return;
    };
    let (name, target) = (&fault.name, &fault.target);
    if first.is_none() && history.end() < limit {
        let gap = format!("the run ended within 2 s after `{name} {target}` was healed");
        finding.gaps.push(gap);
        return;
    }
    finding.saw(1);
    let when = match first {
        Some((at, _)) => format!("the first write succeeded after {}", span(at.since(healed))),
        None => "no write succeeded any more".to_owned(),
    };
    let seen = format!(
        "`{name} {target}` was healed at {:.3} s, and {when}",
        healed.seconds()
    );
    let violation = Violation::new(Kind::SlowToHeal, seen).at(healed);
    let shown = first.map_or(waiting, |(_, operation)| operation);
    finding
        .violations
        .push(violation.operation(shown).at(healed));
}
