//! Whether members that applied the same entries hold the same state.

use std::collections::BTreeMap;

use crate::checkers::Violation;
use crate::cluster::Status;

/// Equal index, equal hash: among all the samples, at `applied` and at the last common multiple.
pub fn check_hashes<'a>(samples: impl IntoIterator<Item = &'a Status>) -> Vec<Violation> {
    let mut seen: BTreeMap<u64, (String, String)> = BTreeMap::new();
    let mut violations = Vec::new();
    for member in samples.into_iter().flat_map(|status| &status.members) {
        let now = member.applied.zip(member.state_hash.clone());
        let common = member.hash_index.zip(member.hash_at.clone());
        for (index, hash) in now.into_iter().chain(common) {
            // Before its first multiple, a member has nothing to say about one.
            if index == 0 || hash.is_empty() {
                continue;
            }
            let (first, known) = seen
                .entry(index)
                .or_insert_with(|| (member.id.clone(), hash.clone()));
            if *known != hash {
                violations.push(Violation::HashesDiffer {
                    index,
                    one: format!("{first} {known}"),
                    other: format!("{} {hash}", member.id),
                });
            }
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
