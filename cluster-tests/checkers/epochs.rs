//! I3: one live epoch of a task at a time, each higher than the one before; and agents start just those.

use std::collections::{BTreeMap, BTreeSet};

use super::evidence::{Case, Evidence, Execution, Final};
use super::finding::{Checker, Finding};
use super::violation::{Invariant, Kind, Violation};

pub struct Epochs;

impl Checker for Epochs {
    fn invariant(&self) -> Invariant {
        Invariant::I3
    }

    fn sentence(&self) -> &'static str {
        "the log assigns a task only while it has no live attempt, with the entry's index as its epoch; a process starts \
         once for an assignment, and never without one"
    }

    fn check(&self, case: &Case<'_>) -> Finding {
        let evidence = case.evidence;
        let mut finding = Finding::of(self);
        let replay = &case.replay;
        replay.report_to(&mut finding);
        for task in evidence.finals.values().flatten() {
            finding.saw(1);
            finding.violations.extend(too_low(task));
        }
        let finals = finals(evidence);
        let mut starts: BTreeSet<Execution> = BTreeSet::new();
        let mut latest: BTreeMap<u64, u64> = BTreeMap::new();
        for start in &evidence.executions {
            finding.saw(1);
            let Execution { task, epoch } = *start;
            if !starts.insert(*start) {
                let seen = format!("t{task} ran twice under epoch {epoch}");
                let violation = Violation::new(Kind::RanTwice, seen).entry(epoch);
                finding.violations.push(violation);
                continue;
            }
            let assigned = match replay.gaps.is_empty() {
                true => replay.assigned.contains(&(task, epoch)),
                // Of the epochs only the last one is known without the log.
                false => finals
                    .get(&task)
                    .is_none_or(|it| (it.submit_index..=it.epoch).contains(&epoch)),
            };
            let known = replay.gaps.is_empty() || finals.contains_key(&task) || finals.is_empty();
            if !assigned || !known {
                let seen = format!("t{task} ran under epoch {epoch}, which it never had");
                finding
                    .violations
                    .push(Violation::new(Kind::RanUnasked, seen));
            }
            if let Some(before) = latest.insert(task, epoch).filter(|before| *before > epoch) {
                let seen = format!("t{task} started under epoch {before}, then under {epoch}");
                let violation = Violation::new(Kind::EpochFell, seen);
                finding
                    .violations
                    .push(violation.entry(before).entry(epoch));
            }
        }
        finding
    }
}

fn too_low(task: &Final) -> Option<Violation> {
    let task = &task.task;
    // Submitted and assigned in one entry is allowed, so equal is.
    (task.attempt > 0 && task.epoch < task.submit_index).then(|| {
        let (id, epoch, submit) = (task.id, task.epoch, task.submit_index);
        let seen = format!("t{id} has epoch {epoch}, before its submit at {submit}");
        Violation::new(Kind::EpochTooLow, seen)
            .entry(epoch)
            .entry(submit)
    })
}

fn finals(evidence: &Evidence) -> BTreeMap<u64, &crate::history::TaskSeen> {
    let all = evidence.finals.values().flatten();
    all.map(|it| (it.task.id, &it.task)).collect()
}
