//! What administrators set for a namespace: its share, those of its users, and how much it may have at once.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::Namespace;
use crate::limit;
use crate::rejected::Rejected;
use crate::share::Tenant;
use crate::state::State;

/// The weight of a namespace or a user of which nothing was said.
pub const WEIGHT: u32 = 1;

/// What holds of one namespace. It need not have any tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamespaceSettings {
    /// Its share beside the other namespaces.
    pub weight: u32,
    /// Those of its users beside each other, where they are not [`WEIGHT`].
    pub users: BTreeMap<String, u32>,
    /// The most live attempts at once; 0: no limit.
    pub max_running: u32,
    /// Submits are refused while so many of its tasks wait; 0: no limit.
    pub max_queued: u32,
}

impl Default for NamespaceSettings {
    fn default() -> NamespaceSettings {
        NamespaceSettings {
            weight: WEIGHT,
            users: BTreeMap::new(),
            max_running: 0,
            max_queued: 0,
        }
    }
}

/// Says what is to hold of a namespace; what is left out stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetNamespace {
    pub namespace: Namespace,
    pub weight: Option<u32>,
    pub users: BTreeMap<String, u32>,
    pub max_running: Option<u32>,
    pub max_queued: Option<u32>,
}

impl SetNamespace {
    pub fn validate(&self) -> Result<(), Rejected> {
        let invalid = |why: String| Err(Rejected::Invalid(why));
        if !self.namespace.is_valid() {
            return invalid(format!("bad namespace `{}`", self.namespace));
        }
        let asked = [self.weight, self.max_running, self.max_queued];
        if asked.iter().all(Option::is_none) && self.users.is_empty() {
            return invalid("nothing is said of the namespace".into());
        }
        let most = limit::SHARE_WEIGHT_MAX;
        let is_bad = |weight: &u32| !(1..=most).contains(weight);
        if self.weight.as_ref().is_some_and(is_bad) {
            return invalid(format!("a namespace's weight is 1 to {most}"));
        }
        for (user, weight) in &self.users {
            if user.is_empty() || user.len() > limit::NAME_MAX_BYTES {
                return invalid("a user's name has 1 to 256 bytes".into());
            }
            if is_bad(weight) {
                return invalid(format!(
                    "the weight of a user is 1 to {most}: `{user}` can't have {weight}"
                ));
            }
        }
        Ok(())
    }

    /// With what was said, what stays as it is.
    pub(crate) fn over(&self, known: &NamespaceSettings) -> NamespaceSettings {
        let mut users = known.users.clone();
        for (user, weight) in &self.users {
            users.insert(user.clone(), *weight);
        }
        users.retain(|_, weight| *weight != WEIGHT);
        NamespaceSettings {
            weight: self.weight.unwrap_or(known.weight),
            users,
            max_running: self.max_running.unwrap_or(known.max_running),
            max_queued: self.max_queued.unwrap_or(known.max_queued),
        }
    }

    pub(crate) fn size(&self) -> usize {
        self.users.keys().map(|user| user.len() + 8).sum()
    }
}

impl State {
    /// What was set for a namespace; `None` where nothing was, and the defaults hold.
    pub fn namespace_settings(&self, namespace: &Namespace) -> Option<&NamespaceSettings> {
        self.namespaces.get(namespace)
    }

    /// Namespaces of which something was set, by name.
    pub fn set_namespaces(&self) -> impl Iterator<Item = (&Namespace, &NamespaceSettings)> {
        self.namespaces.iter()
    }

    /// The weights of a tenant: of its namespace, and of the user in it.
    pub fn weights(&self, tenant: &Tenant) -> (u32, u32) {
        self.namespaces
            .get(&tenant.namespace)
            .map_or((WEIGHT, WEIGHT), |settings| {
                let user = settings.users.get(&*tenant.user);
                (settings.weight, user.copied().unwrap_or(WEIGHT))
            })
    }

    /// What all tenants of a namespace have in the cluster now: those that wait, and those that run.
    pub fn load(&self, namespace: &Namespace) -> (u64, u32) {
        let tally = self.index.namespaces.get(namespace);
        tally.map_or((0, 0), |tally| (tally.queued, tally.live))
    }

    /// The same of one tenant.
    pub fn load_of(&self, tenant: &Tenant) -> (u64, u32) {
        let tally = self.index.tenants.get(tenant);
        tally.map_or((0, 0), |tally| (tally.queued, tally.live))
    }

    /// How many more attempts a namespace may have; `None`: there is no limit.
    pub fn running_left(&self, namespace: &Namespace) -> Option<u32> {
        let most = self.namespaces.get(namespace)?.max_running;
        (most > 0).then(|| most.saturating_sub(self.load(namespace).1))
    }

    /// Whether a namespace may have one more task that waits.
    pub(crate) fn may_queue(&self, namespace: &Namespace) -> Result<(), Rejected> {
        let settings = self.namespaces.get(namespace);
        match settings.map_or(0, |settings| settings.max_queued) {
            0 => Ok(()),
            most if self.load(namespace).0 < u64::from(most) => Ok(()),
            most => Err(Rejected::QuotaUsedUp {
                namespace: namespace.clone(),
                most: most.into(),
            }),
        }
    }
}
