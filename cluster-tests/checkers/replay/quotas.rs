//! What namespaces may have at once, and what they have: counted once more.

use std::collections::{BTreeMap, BTreeSet};

use model::{Namespace, SetNamespace, TaskId};

#[derive(Debug, Default)]
pub struct Quotas {
    of: BTreeMap<Namespace, Quota>,
}

#[derive(Debug, Default)]
struct Quota {
    max_running: u32,
    max_queued: u32,
    running: BTreeSet<TaskId>,
    queued: BTreeSet<TaskId>,
}

impl Quotas {
    pub fn set(&mut self, said: &SetNamespace) {
        let quota = self.of.entry(said.namespace.clone()).or_default();
        quota.max_running = said.max_running.unwrap_or(quota.max_running);
        quota.max_queued = said.max_queued.unwrap_or(quota.max_queued);
    }

    /// Whether its tasks may have to wait though there is room.
    pub fn holds_up(&self, namespace: &Namespace) -> bool {
        let quota = self.of.get(namespace);
        quota.is_some_and(|quota| quota.max_running > 0)
    }

    /// A submit was taken. `None` where no quota was there to be kept.
    pub fn submitted(&mut self, namespace: &Namespace, id: TaskId) -> Option<Kept> {
        let quota = self.of.entry(namespace.clone()).or_default();
        let kept = kept(quota.max_queued, &quota.queued, |now, most| {
            format!("{id} was taken while {now} of {namespace} waited, and its quota is {most}")
        });
        quota.queued.insert(id);
        kept
    }

    /// The same of an assignment.
    pub fn begun(&mut self, namespace: &Namespace, id: TaskId) -> Option<Kept> {
        let quota = self.of.entry(namespace.clone()).or_default();
        quota.queued.remove(&id);
        let kept = kept(quota.max_running, &quota.running, |now, most| {
            format!("{id} was assigned while {now} of {namespace} ran, and its quota is {most}")
        });
        quota.running.insert(id);
        kept
    }

    pub fn queued_again(&mut self, namespace: &Namespace, id: TaskId) {
        let quota = self.of.entry(namespace.clone()).or_default();
        quota.queued.insert(id);
    }

    /// Its attempt, or its wait, is over.
    pub fn over(&mut self, id: TaskId, namespace: &Namespace) {
        if let Some(quota) = self.of.get_mut(namespace) {
            quota.running.remove(&id);
            quota.queued.remove(&id);
        }
    }
}

/// Whether one more keeps a quota; else what was seen, in words.
pub type Kept = Result<(), String>;

fn kept(
    most: u32,
    now: &BTreeSet<TaskId>,
    seen: impl FnOnce(usize, usize) -> String,
) -> Option<Kept> {
    let (now, most) = (now.len(), most as usize);
    (most > 0).then(|| match now < most {
        true => Ok(()),
        false => Err(seen(now, most)),
    })
}
