//! The trail: the state hashes that a member left behind it, by which running members compare what they
//! hold.
//!
//! `State` keeps the hash of the last multiple of 256 only, and under load two members that ask each
//! other are seldom at the same one. Here is every multiple of late, so that there is one in common.

use model::StateHashes;

/// Hashes kept: 16,384 entries, some seconds of the heaviest load. A member that is further behind is
/// compared once it has caught up.
const KEPT: usize = 64;

#[derive(Debug, Default)]
pub struct Trail(StateHashes);

impl Trail {
    /// The trail of a state that came as a whole. What was here before it says nothing about it.
    pub fn beginning_at(hash_at: (u64, [u8; 32])) -> Self {
        let mut trail = Self::default();
        trail.add(hash_at);
        trail
    }

    pub fn add(&mut self, (index, hash): (u64, [u8; 32])) {
        // Before its first multiple, a state has nothing to say about one.
        if index > 0 {
            self.0.insert(index, hash);
        }
        if self.0.len() > KEPT {
            self.0.pop_first();
        }
    }

    pub fn hashes(&self) -> StateHashes {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trail_keeps_the_latest_hashes_and_none_of_before_the_first_multiple() {
        assert!(Trail::beginning_at((0, [0; 32])).hashes().is_empty());
        let mut trail = Trail::beginning_at((256, [1; 32]));
        for multiple in 2..=66 {
            trail.add((multiple * 256, [2; 32]));
        }
        let kept = trail.hashes();
        assert_eq!(kept.len(), KEPT);
        assert_eq!(kept.keys().next(), Some(&(3 * 256)));
        assert_eq!(kept.keys().last(), Some(&(66 * 256)));
    }
}
