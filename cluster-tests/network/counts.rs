//! How often something happened to what travelled along an edge.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::network::{Edge, Effects};

/// A kind of disturbance, without how much of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Harm {
    Silence,
    Reset,
    Loss,
    Duplication,
    Delay,
    Rate,
    Corruption,
    HalfClose,
}

/// What was counted so far, by whoever disturbed it.
#[derive(Debug, Default)]
pub struct Counts(Mutex<BTreeMap<(Harm, Edge), u64>>);

impl Counts {
    pub fn add(&self, edge: &Edge, harm: Harm) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry((harm, edge.clone())).or_default() += 1;
    }

    pub fn of(&self, wanted: Harm) -> BTreeMap<Edge, u64> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_kind = counts.iter().filter(|((harm, _), _)| *harm == wanted);
        of_kind
            .map(|((_, edge), count)| (edge.clone(), *count))
            .collect()
    }
}

/// The bytes that are still to be changed, each by whoever comes first to some.
#[derive(Debug, Default)]
pub struct Corruptions(Mutex<BTreeMap<Edge, u32>>);

impl Corruptions {
    /// More of them are due where more rules say so; none where no rule does any more.
    pub fn change(&self, old: &Effects, new: &Effects) {
        let wanted = |effects: &Effects, edge: &Edge| {
            let effect = effects.get(edge).copied();
            effect.map_or(0, |effect| effect.corruptions)
        };
        let mut due = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        due.retain(|edge, _| wanted(new, edge) > 0);
        for edge in new.keys() {
            let more = wanted(new, edge).saturating_sub(wanted(old, edge));
            if more > 0 {
                *due.entry(edge.clone()).or_default() += more;
            }
        }
    }

    /// Whether one is due on this edge, which is then done.
    pub fn take(&self, edge: &Edge) -> bool {
        let mut due = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match due.get_mut(edge) {
            Some(left) if *left > 0 => {
                *left -= 1;
                true
            }
            Some(_) | None => false,
        }
    }
}
