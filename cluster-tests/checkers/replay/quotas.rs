//! What namespaces may have at once, and what they have: counted once more.

use std::collections::{BTreeMap, BTreeSet};

use model::{Namespace, SetNamespace, TaskId};

use crate::checkers::violation::Kind;

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

/// What is wrong, and in words.
pub type Wrong = Option<(Kind, String)>;

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

    /// A submit was taken. Whether a quota was there to be kept, and what is wrong.
    pub fn submitted(&mut self, namespace: &Namespace, id: TaskId) -> (bool, Wrong) {
        let quota = self.of.entry(namespace.clone()).or_default();
        let (now, most) = (quota.queued.len(), quota.max_queued as usize);
        quota.queued.insert(id);
        let seen =
            format!("{id} was taken while {now} of {namespace} waited, and its quota is {most}");
        let wrong = (most > 0 && now >= most).then_some((Kind::OverQuota, seen));
        (most > 0, wrong)
    }

    /// The same of an assignment.
    pub fn begun(&mut self, namespace: &Namespace, id: TaskId) -> (bool, Wrong) {
        let quota = self.of.entry(namespace.clone()).or_default();
        quota.queued.remove(&id);
        let (now, most) = (quota.running.len(), quota.max_running as usize);
        quota.running.insert(id);
        let seen =
            format!("{id} was assigned while {now} of {namespace} ran, and its quota is {most}");
        let wrong = (most > 0 && now >= most).then_some((Kind::OverQuota, seen));
        (most > 0, wrong)
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
