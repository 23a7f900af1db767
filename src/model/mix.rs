//! How many attempts somebody holds of each sort of task.

use std::collections::BTreeMap;

use crate::id::Namespace;
use crate::policy::Scope;
use crate::spec::Kind;

/// What strategies and rules tell tasks apart by.
pub type Sort = (Namespace, Kind);

/// Attempts by sort.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mix(BTreeMap<Sort, u32>);

impl Mix {
    /// One more.
    pub fn add(&mut self, sort: Sort) {
        *self.0.entry(sort).or_insert(0) += 1;
    }

    /// One less; of a sort of which none is left nothing is kept.
    pub fn remove(&mut self, sort: &Sort) {
        match self.0.get_mut(sort) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) | None => drop(self.0.remove(sort)),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn count(&self, sort: &Sort) -> u32 {
        self.0.get(sort).copied().unwrap_or(0)
    }

    /// Of all sorts that a scope has in it.
    pub fn count_in(&self, scope: &Scope) -> u32 {
        let sorts = self.0.iter();
        let sorts = sorts.filter(|((namespace, kind), _)| scope.has(namespace, *kind));
        sorts.map(|(_, count)| *count).sum()
    }
}
