//! I3: one live epoch of a task at a time, each higher than the one before; and agents start just those.

use std::collections::{BTreeMap, BTreeSet};

use super::evidence::{Case, Evidence, Execution, Final, Sign};
use super::finding::{Checker, Finding};
use super::violation::{Invariant, Kind, Violation};
use crate::journal::Begun;

pub struct Epochs;

impl Checker for Epochs {
    fn invariant(&self) -> Invariant {
        Invariant::I3
    }

    fn sentence(&self) -> &'static str {
        "the log assigns a task only while it has no live attempt, with the entry's index as its epoch; a process starts \
         once for an assignment, never without one, after its agent has written it down, and no earlier one of its task \
         lives on"
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
                true => replay.assigned.contains_key(&(task, epoch)),
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
        two_at_once(evidence, &mut finding);
        journals(case, &mut finding);
        finding
    }
}

/// Who says that it lives after a later attempt had started. Told once of each.
fn two_at_once(evidence: &Evidence, finding: &mut Finding) {
    let mut started: BTreeMap<u64, u64> = BTreeMap::new();
    let mut starts = evidence.executions.iter().enumerate().peekable();
    let mut told: BTreeSet<Execution> = BTreeSet::new();
    for Sign { of, starts: before } in &evidence.signs {
        finding.saw(1);
        while let Some((_, start)) = starts.next_if(|(n, _)| n < before) {
            let latest = started.entry(start.task).or_default();
            *latest = start.epoch.max(*latest);
        }
        let later = started.get(&of.task).filter(|latest| **latest > of.epoch);
        if let Some(later) = later.filter(|_| told.insert(*of)) {
            let Execution { task, epoch } = of;
            let seen = format!(
                "t{task} still ran under epoch {epoch} when it had been started under epoch {later}"
            );
            let violation = Violation::new(Kind::TwoAtOnce, seen);
            finding
                .violations
                .push(violation.entry(*epoch).entry(*later));
        }
    }
}

/// What agents wrote down before they started it: once each, what was given to them, and all that ran.
fn journals(case: &Case<'_>, finding: &mut Finding) {
    let Case { evidence, replay } = case;
    let mut written = BTreeSet::new();
    for (agent, begun) in &evidence.journals {
        let mut own = BTreeSet::new();
        for Begun { task, epoch } in begun {
            finding.saw(1);
            written.insert((*task, *epoch));
            if !own.insert((*task, *epoch)) {
                let seen =
                    format!("{agent} began t{task} twice under epoch {epoch}, says its journal");
                let violation = Violation::new(Kind::RanTwice, seen).entry(*epoch);
                finding.violations.push(violation);
            }
            let given = replay.assigned.get(&(*task, *epoch));
            let given_to_it = given.is_some_and(|to| to.as_str() == agent);
            if replay.gaps.is_empty() && !given_to_it {
                let given = given.map_or_else(
                    || "no entry of the log assigns it under that epoch".to_owned(),
                    |to| format!("the log assigns it to {to}"),
                );
                let seen =
                    format!("{agent} began t{task} under epoch {epoch}, says its journal; {given}");
                let violation = Violation::new(Kind::RanUnasked, seen).entry(*epoch);
                finding.violations.push(violation);
            }
        }
    }
    let ran = evidence
        .executions
        .iter()
        .filter(|_| !evidence.journals.is_empty());
    for Execution { task, epoch } in ran {
        if !written.contains(&(*task, *epoch)) {
            let seen = format!(
                "t{task} ran under epoch {epoch}, and no agent's journal says that it was begun"
            );
            let violation = Violation::new(Kind::NotWritten, seen).entry(*epoch);
            finding.violations.push(violation);
        }
    }
}

fn too_low(task: &Final) -> Option<Violation> {
    let task = &task.task;
    // Submitted and assigned in one entry is allowed, so equal is.
    (task.attempt > 0 && task.epoch < task.submit_index).then(|| {
        let (id, epoch, submit) = (task.id, task.epoch, task.submit_index);
        let seen = format!(
            "t{id} has epoch {epoch}, which is the index of the entry that assigned it; it was submitted at {submit}"
        );
        Violation::new(Kind::EpochTooLow, seen).entry(submit)
    })
}

fn finals(evidence: &Evidence) -> BTreeMap<u64, &crate::history::TaskSeen> {
    let all = evidence.finals.values().flatten();
    all.map(|it| (it.task.id, &it.task)).collect()
}
