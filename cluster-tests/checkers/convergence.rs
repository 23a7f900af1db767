//! I6: whether members that applied the same entries hold the same state.

use std::collections::BTreeMap;

use super::evidence::Case;
use super::finding::{Checker, Finding};
use super::violation::{Invariant, Kind, Violation};
use crate::cluster::{MemberStatus, Status};
use crate::log::Log;

pub struct Convergence;

impl Checker for Convergence {
    fn invariant(&self) -> Invariant {
        Invariant::I6
    }

    fn sentence(&self) -> &'static str {
        "members that show a hash for the same index show the same, which is that of the log applied here; their logs are \
         equal as far as they are committed"
    }

    fn check(&self, case: &Case<'_>) -> Finding {
        let evidence = case.evidence;
        let mut finding = Finding::of(self);
        let replay = &case.replay;
        // Members are compared with each other in any case: a gap only takes the log away.
        replay.report_to(&mut finding);
        let samples = evidence.statuses.iter();
        finding.saw(
            samples
                .flat_map(|it| &it.members)
                .flat_map(hashes_of)
                .count(),
        );
        finding.violations.extend(check_hashes(&evidence.statuses));
        finding
            .violations
            .extend(check_logs(&evidence.logs, replay.through));
        finding
    }
}

/// Equal index, equal hash: among all the samples, at `applied` and at the last common multiple.
pub fn check_hashes<'a>(samples: impl IntoIterator<Item = &'a Status>) -> Vec<Violation> {
    let mut seen: BTreeMap<u64, (&str, &str)> = BTreeMap::new();
    let mut violations = Vec::new();
    for member in samples.into_iter().flat_map(|status| &status.members) {
        for (index, hash) in hashes_of(member) {
            let (first, known) = seen.entry(index).or_insert((&member.id, hash));
            if *known != hash {
                let seen = format!(
                    "states differ at index {index}: {first} {known}, {} {hash}",
                    member.id
                );
                violations.push(Violation::new(Kind::HashesDiffer, seen).entry(index));
            }
        }
    }
    violations
}

/// What a member shows: the hash where it is now, and that at the last common multiple.
pub fn hashes_of(member: &MemberStatus) -> impl Iterator<Item = (u64, &str)> {
    let now = member.applied.zip(member.state_hash.as_deref());
    let common = member.hash_index.zip(member.hash_at.as_deref());
    // Before its first multiple, a member has nothing to say about one.
    let told = now.into_iter().chain(common);
    told.filter(|(index, hash)| *index > 0 && !hash.is_empty())
}

/// The first index at which two logs differ, up to where they are committed.
fn check_logs(logs: &BTreeMap<String, Log>, through: u64) -> Vec<Violation> {
    let mut violations = Vec::new();
    let Some((reference, longest)) = logs.iter().max_by_key(|(_, log)| log.last()) else {
        return violations;
    };
    for (controller, log) in logs.iter().filter(|(name, _)| *name != reference) {
        let entries = log.entries.iter().take_while(|it| it.index <= through);
        let differs = entries.filter_map(|it| Some((it, longest.get(it.index)?)));
        if let Some((one, other)) = { differs }.find(|(one, other)| one != other) {
            let (index, term, theirs) = (one.index, one.term, other.term);
            let seen = format!(
                "entry {index} is of term {term} on {controller} and of term {theirs} on {reference}, and not the same"
            );
            violations.push(Violation::new(Kind::LogsDiffer, seen).entry(index));
        }
    }
    violations
}

/// All members answer, and have applied the same entries.
pub fn is_converged(status: &Status) -> bool {
    let mut applied = status.members.iter().map(|member| member.applied);
    match applied.next() {
        Some(Some(first)) => applied.all(|other| other == Some(first)),
        Some(None) | None => false,
    }
}
