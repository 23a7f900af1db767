//! Whether the members hold the same state, judged by one of them: [`compare`].
//!
//! At the same index all states are equal, or one of them is wrong; which one, only a majority of the
//! voters can say. A member that is outvoted stops. Where no majority is heard on either side (two voters
//! that differ; three, of which one is silent) nobody stops: half of them would be the wrong ones, and
//! all of them would be an outage that a person can still decide on.

use std::collections::{BTreeMap, BTreeSet};

use model::{ControllerId, StateHashes};

/// What came out of a comparison. Only [`Finding::Outvoted`] is a reason to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// Wherever two can be compared they agree.
    Same,
    /// A majority of the voters holds another state than this member.
    Outvoted(Difference),
    /// Others differ from this member, and a majority agrees with it.
    Upheld(Difference),
    /// Others differ from this member, and too few are heard for a majority on either side.
    Undecided(Difference),
}

impl Finding {
    /// Whether it says of the same members what the one before said. The index moves on by itself.
    pub fn is_no_news_after(&self, last: &Finding) -> bool {
        use Finding::{Outvoted, Same, Undecided, Upheld};
        match (self, last) {
            (Same, Same) => true,
            (Outvoted(now), Outvoted(before))
            | (Upheld(now), Upheld(before))
            | (Undecided(now), Undecided(before)) => now.holders == before.holders,
            (Same | Outvoted(_) | Upheld(_) | Undecided(_), _) => false,
        }
    }
}

/// Where a state differs from this member's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The first one at which it is known.
    pub index: u64,
    ours: [u8; 32],
    theirs: [u8; 32],
    /// Who holds `theirs`.
    holders: Vec<ControllerId>,
}

impl Difference {
    /// For the person who finds this member stopped.
    pub fn reason_to_stop(&self) -> String {
        format!(
            "at entry {} the hash of its state is {}, and {}, a majority of the voters, have {}: the state \
             here is wrong; keep this data directory and report it, then start this controller again, \
             and if it stops again, let the machine join under a new id, with an empty data directory",
            self.index,
            self.ours(),
            self.names(),
            self.theirs(),
        )
    }

    pub fn names(&self) -> String {
        let names: Vec<_> = self.holders.iter().map(ToString::to_string).collect();
        names.join(", ")
    }

    pub fn ours(&self) -> String {
        hex::encode(self.ours)
    }

    pub fn theirs(&self) -> String {
        hex::encode(self.theirs)
    }
}

/// Compares what the members `told`, this one among them, at every index that this one has a hash of.
/// Learners are looked at, and count for no majority.
pub fn compare(
    me: ControllerId,
    told: &BTreeMap<ControllerId, StateHashes>,
    voters: &BTreeSet<ControllerId>,
) -> Finding {
    let (mut upheld, mut undecided) = (None, None);
    for (index, ours) in told.get(&me).into_iter().flatten() {
        let mut holders: BTreeMap<[u8; 32], Vec<ControllerId>> = BTreeMap::new();
        for (id, hashes) in told {
            if let Some(hash) = hashes.get(index) {
                holders.entry(*hash).or_default().push(*id);
            }
        }
        let is_majority = |ids: &[ControllerId]| {
            let votes = ids.iter().filter(|id| voters.contains(id)).count();
            2 * votes > voters.len()
        };
        let upholds = holders.remove(ours).is_some_and(|with| is_majority(&with));
        let difference = |(theirs, holders): (&[u8; 32], &Vec<ControllerId>)| Difference {
            index: *index,
            ours: *ours,
            theirs: *theirs,
            holders: holders.clone(),
        };
        if let Some(against) = holders.iter().find(|(_, ids)| is_majority(ids)) {
            return Finding::Outvoted(difference(against));
        }
        let kind = if upholds { &mut upheld } else { &mut undecided };
        *kind = kind
            .take()
            .or_else(|| holders.iter().next().map(difference));
    }
    // With a majority at one index, a vote that some missed at another one is settled as well.
    match (upheld, undecided) {
        (Some(found), _) => Finding::Upheld(found),
        (None, Some(found)) => Finding::Undecided(found),
        (None, None) => Finding::Same,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What c1 thinks where c1, c2 and so on said these: pairs of an index and a hash's first byte.
    fn told(voters: u64, told: &[&[(u64, u8)]]) -> Finding {
        let hashes =
            |told: &&[(u64, u8)]| told.iter().map(|(at, hash)| (*at, [*hash; 32])).collect();
        let ids = (1..).map(ControllerId);
        let told = ids.clone().zip(told.iter().map(hashes)).collect();
        let voters = (1..=voters).map(ControllerId).collect();
        compare(ControllerId(1), &told, &voters)
    }

    fn difference(index: u64, ours: u8, theirs: u8, holders: &[u64]) -> Difference {
        Difference {
            index,
            ours: [ours; 32],
            theirs: [theirs; 32],
            holders: holders.iter().copied().map(ControllerId).collect(),
        }
    }

    #[test]
    fn members_that_agree_or_have_no_index_in_common_are_the_same() {
        let same = told(
            3,
            &[&[(256, 1), (512, 2)], &[(512, 2)], &[(256, 1), (768, 9)]],
        );
        assert_eq!(same, Finding::Same);
        assert_eq!(
            told(3, &[&[(256, 1)], &[(512, 2)], &[(768, 3)]]),
            Finding::Same
        );
        assert_eq!(told(1, &[&[(256, 1)]]), Finding::Same);
        assert_eq!(told(3, &[&[], &[(256, 1)], &[(256, 2)]]), Finding::Same);
    }

    #[test]
    fn a_member_against_a_majority_of_the_voters_is_outvoted_where_they_first_differ() {
        let others: &[(u64, u8)] = &[(256, 1), (512, 2), (768, 3)];
        assert_eq!(
            told(3, &[&[(256, 1), (512, 9), (768, 8)], others, others]),
            Finding::Outvoted(difference(512, 9, 2, &[2, 3]))
        );
        assert_eq!(
            told(5, &[&[(256, 9)], &[(256, 9)], others, others, others]),
            Finding::Outvoted(difference(256, 9, 1, &[3, 4, 5]))
        );
    }

    #[test]
    fn a_majority_is_of_all_voters_and_not_of_those_that_answer() {
        assert_eq!(
            told(5, &[&[(256, 9)], &[(256, 1)], &[(256, 1)]]),
            Finding::Undecided(difference(256, 9, 1, &[2, 3]))
        );
        assert_eq!(
            told(4, &[&[(256, 9)], &[(256, 9)], &[(256, 1)], &[(256, 1)]]),
            Finding::Undecided(difference(256, 9, 1, &[3, 4]))
        );
    }

    #[test]
    fn where_no_two_of_two_or_three_agree_nobody_stops() {
        assert_eq!(
            told(2, &[&[(256, 1)], &[(256, 2)]]),
            Finding::Undecided(difference(256, 1, 2, &[2]))
        );
        assert_eq!(
            told(3, &[&[(256, 1)], &[(256, 2)], &[(256, 3)]]),
            Finding::Undecided(difference(256, 1, 2, &[2]))
        );
    }

    #[test]
    fn a_member_with_the_majority_goes_on_also_where_not_all_can_be_compared() {
        assert_eq!(
            told(
                3,
                &[&[(256, 1), (512, 2)], &[(512, 2)], &[(256, 9), (512, 8)]]
            ),
            Finding::Upheld(difference(512, 2, 8, &[3]))
        );
    }

    #[test]
    fn a_learner_counts_for_no_majority_and_is_outvoted_like_anybody() {
        // c4 is a learner.
        let learner: &[(u64, u8)] = &[(256, 9)];
        let one: &[(u64, u8)] = &[(256, 1)];
        assert_eq!(
            told(3, &[one, &[(256, 9)], &[], learner]),
            Finding::Undecided(difference(256, 1, 9, &[2, 4]))
        );
        assert_eq!(
            told(3, &[one, one, one, learner]),
            Finding::Upheld(difference(256, 1, 9, &[4]))
        );
        let voters = (2..=4).map(ControllerId).collect();
        let hashes = |hash| StateHashes::from([(256, [hash; 32])]);
        let told = [(1, 9), (2, 1), (3, 1), (4, 1)];
        let told = told.map(|(id, hash)| (ControllerId(id), hashes(hash)));
        assert_eq!(
            compare(ControllerId(1), &BTreeMap::from(told), &voters),
            Finding::Outvoted(difference(256, 9, 1, &[2, 3, 4]))
        );
    }

    #[test]
    fn the_reason_to_stop_names_the_entry_both_hashes_who_and_what_to_do() {
        let reason = difference(512, 0xaa, 0xbb, &[2, 3]).reason_to_stop();
        for part in [
            "at entry 512",
            &"aa".repeat(32),
            &"bb".repeat(32),
            "c2, c3, a majority",
            "under a new id",
        ] {
            assert!(reason.contains(part), "{part} is missing in {reason}");
        }
    }

    #[test]
    fn the_same_difference_at_a_later_index_is_no_news() {
        let at = |index, holders| Finding::Undecided(difference(index, 1, 2, holders));
        assert!(at(512, &[2]).is_no_news_after(&at(256, &[2])));
        assert!(!at(512, &[2, 3]).is_no_news_after(&at(256, &[2])));
        assert!(!at(512, &[2]).is_no_news_after(&Finding::Same));
        assert!(!Finding::Same.is_no_news_after(&at(512, &[2])));
        assert!(Finding::Same.is_no_news_after(&Finding::Same));
    }
}
