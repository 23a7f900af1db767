//! Tasks that were never assigned, as they stand in line: who of them has to go first.
//!
//! Whose turn it is among tenants follows from what each has used, which the scheduler's own tests look into; here only
//! what holds whatever that is.

use std::collections::{BTreeMap, BTreeSet};

use model::{Class, Namespace, Requirement, TaskId, TaskSpec};

/// Older tasks of one line that a newer one is compared with: those that wait longest.
const COMPARED: usize = 8;

type Line = BTreeSet<(Class, TaskId)>;

/// Who asked: a namespace, and a user in it.
pub type Asker = (Namespace, String);

#[derive(Debug, Default)]
pub struct Lines {
    /// By what they need.
    all: BTreeMap<Requirement, Line>,
    /// By that, and by who asked.
    own: BTreeMap<(Requirement, Asker), Line>,
}

impl Lines {
    pub fn join(&mut self, asker: &Asker, spec: &TaskSpec, id: TaskId) {
        let place = (spec.class(), id);
        let need = || spec.need().into();
        self.all.entry(need()).or_default().insert(place);
        let own = self.own.entry((need(), asker.clone())).or_default();
        own.insert(place);
    }

    /// Whether it was there.
    pub fn leave(&mut self, asker: &Asker, spec: &TaskSpec, id: TaskId) -> bool {
        let place = (spec.class(), id);
        let key = (spec.need().into(), asker.clone());
        take(&mut self.own, &key, place);
        take(&mut self.all, &key.0, place)
    }

    /// Some that have to go before it: of higher classes anybody's, of its own those of the same asker that are older.
    pub fn before(&self, asker: &Asker, spec: &TaskSpec, id: TaskId) -> Vec<TaskId> {
        let (class, need) = (spec.class(), Requirement::from(spec.need()));
        let higher = self.all.get(&need).into_iter();
        let higher = higher.flat_map(|line| line.range(..(class, TaskId(0))).take(COMPARED));
        let own = self.own.get(&(need, asker.clone())).into_iter();
        let older = own.flat_map(|line| line.range((class, TaskId(0))..(class, id)).take(COMPARED));
        higher.chain(older).map(|(_, id)| *id).collect()
    }
}

/// Takes one out; no line is empty.
fn take<K: Ord>(lines: &mut BTreeMap<K, Line>, key: &K, place: (Class, TaskId)) -> bool {
    let Some(line) = lines.get_mut(key) else {
        return false;
    };
    let was_there = line.remove(&place);
    if line.is_empty() {
        lines.remove(key);
    }
    was_there
}
