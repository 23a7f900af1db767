//! How long sorts of work take on one agent, learned from what succeeded there.
//!
//! What fails is left out: an agent on which all fails at once would look quick, and draw all there is. The average is one
//! of logarithms, in which a task of hours among tasks of seconds is one step among many; the latest counts an eighth.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{Magnitude, Millis, WORKS_MAX, Work};

/// Parts of a quarter of an octave.
const PARTS: u32 = 64;
/// How far the average has to be from what is shown before that changes: else it would sway at each edge.
const APART: u32 = PARTS * 3 / 4;
const LATEST: u32 = 8;

#[derive(Debug, Clone, Copy)]
struct Pace {
    /// The average magnitude, in parts.
    parts: u32,
    /// Of how many, as far as that matters.
    count: u32,
    /// The greater the later.
    learned: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Paces {
    known: BTreeMap<Work, Pace>,
    shown: Arc<BTreeMap<Work, Magnitude>>,
    learned: u64,
}

impl Paces {
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// As coarse as decisions go by it.
    pub fn shown(&self) -> Arc<BTreeMap<Work, Magnitude>> {
        Arc::clone(&self.shown)
    }

    /// What an earlier leader had learned.
    pub fn begin_with(&mut self, shown: &Arc<BTreeMap<Work, Magnitude>>) {
        let known = shown.iter().map(|(work, magnitude)| {
            let pace = Pace {
                parts: u32::from(magnitude.0) * PARTS,
                count: LATEST,
                learned: 0,
            };
            (work.clone(), pace)
        });
        self.known = known.collect();
        self.shown = Arc::clone(shown);
    }

    pub fn learn(&mut self, work: Work, took: Millis) {
        self.learned += 1;
        let new = u32::from(Magnitude::of(took.0.max(1)).0) * PARTS;
        let pace = self.known.entry(work.clone()).or_insert(Pace {
            parts: new,
            count: 0,
            learned: 0,
        });
        pace.learned = self.learned;
        pace.count = (pace.count + 1).min(LATEST);
        pace.parts = (pace.parts * (pace.count - 1) + new) / pace.count;
        let parts = pace.parts;
        let shown = self.shown.get(&work).map(|it| u32::from(it.0) * PARTS);
        if shown.is_none_or(|shown| shown.abs_diff(parts) > APART) {
            let magnitude = u8::try_from((parts + PARTS / 2) / PARTS).unwrap_or(u8::MAX);
            Arc::make_mut(&mut self.shown).insert(work, Magnitude(magnitude));
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if self.known.len() > WORKS_MAX
            && let Some((oldest, _)) = self.known.iter().min_by_key(|(_, pace)| pace.learned)
        {
            let oldest = oldest.clone();
            self.known.remove(&oldest);
            Arc::make_mut(&mut self.shown).remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use model::Kind;

    use super::*;

    const PROCESS: Work = Work::Kind(Kind::Process);

    fn shown(paces: &Paces) -> u64 {
        paces.shown()[&PROCESS].value()
    }

    #[test]
    fn it_follows_what_it_is_told_and_one_odd_task_changes_little() {
        let mut paces = Paces::default();
        paces.learn(PROCESS, Millis(100));
        assert_eq!(shown(&paces), 90);
        // Ten hours among tenths of a second.
        (0..20).for_each(|_| paces.learn(PROCESS, Millis(100)));
        paces.learn(PROCESS, Millis(36_000_000));
        assert!((90..800).contains(&shown(&paces)), "{}", shown(&paces));
        (0..60).for_each(|_| paces.learn(PROCESS, Millis(10_000)));
        assert!(
            (8_000..=12_000).contains(&shown(&paces)),
            "{}",
            shown(&paces)
        );
    }

    #[test]
    fn what_sways_at_an_edge_is_shown_as_it_was() {
        let mut paces = Paces::default();
        let mut changes = 0;
        let mut last = None;
        for n in 0..1_000 {
            // Two magnitudes side by side, in turns.
            paces.learn(PROCESS, Millis(if n % 2 == 0 { 127 } else { 129 }));
            changes += u32::from(last.replace(shown(&paces)) != Some(shown(&paces)));
        }
        assert_eq!(changes, 1);
    }

    #[test]
    fn a_new_leader_goes_on_from_what_is_in_the_log_and_so_many_are_kept() {
        let mut before = Paces::default();
        (0..20).for_each(|_| before.learn(PROCESS, Millis(1_000)));
        let mut paces = Paces::default();
        paces.begin_with(&before.shown());
        paces.learn(PROCESS, Millis(1_000));
        assert_eq!(paces.shown(), before.shown());
        for n in 0..2 * WORKS_MAX {
            paces.learn(Work::Model(format!("m{n}")), Millis(5));
        }
        assert_eq!(
            (paces.known.len(), paces.shown().len()),
            (WORKS_MAX, WORKS_MAX)
        );
        assert!(!paces.shown().contains_key(&PROCESS));
    }
}
