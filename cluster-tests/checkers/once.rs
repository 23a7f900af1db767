//! I9: an at-most-once task is begun once, whatever happens to its agent.

use std::collections::{BTreeMap, BTreeSet};

use super::evidence::Case;
use super::finding::{Checker, Finding};
use super::violation::{Invariant, Kind, Violation};
use crate::journal::Begun;

pub struct Once;

impl Checker for Once {
    fn invariant(&self) -> Invariant {
        Invariant::I9
    }

    fn sentence(&self) -> &'static str {
        "a task that was submitted as at-most-once is assigned once in the log, and begun and started once by all agents together, by their journals and by what the processes wrote"
    }

    fn check(&self, case: &Case<'_>) -> Finding {
        let evidence = case.evidence;
        let mut finding = Finding::of(self);
        let replay = &case.replay;
        replay.report_to(&mut finding);
        let finals = evidence.finals.values().flatten();
        let finals = finals.filter(|it| it.at_most_once).map(|it| it.task.id);
        let once: BTreeSet<u64> = finals.chain(replay.at_most_once.iter().copied()).collect();
        let mut first: BTreeMap<u64, u64> = BTreeMap::new();
        for start in evidence
            .executions
            .iter()
            .filter(|it| once.contains(&it.task))
        {
            finding.saw(1);
            let before = first.insert(start.task, start.epoch);
            // Twice under one epoch breaks another promise as well, and this one.
            if let Some(before) = before {
                let (task, epoch) = (start.task, start.epoch);
                let seen =
                    format!("t{task} is at-most-once and ran under epochs {before} and {epoch}");
                let violation = Violation::new(Kind::RanAgain, seen);
                finding
                    .violations
                    .push(violation.entry(before).entry(epoch));
            }
        }
        let begun = evidence.journals.values().flatten();
        let mut begins: BTreeMap<u64, u64> = BTreeMap::new();
        for Begun { task, epoch } in begun.filter(|it| once.contains(&it.task)) {
            finding.saw(1);
            if let Some(before) = begins.insert(*task, *epoch) {
                let seen = format!(
                    "t{task} is at-most-once and was begun under epochs {before} and {epoch}, say the agents' journals"
                );
                let violation = Violation::new(Kind::RanAgain, seen);
                finding
                    .violations
                    .push(violation.entry(before).entry(*epoch));
            }
        }
        finding
    }
}
