//! Namespaces: what is set for them, and what they use.

use std::collections::{BTreeMap, BTreeSet};

use model::{Namespace, State, Tenant};

use super::Malformed;
use crate::v1;

impl TryFrom<v1::SetNamespaceRequest> for model::SetNamespace {
    type Error = Malformed;

    fn try_from(asked: v1::SetNamespaceRequest) -> Result<model::SetNamespace, Malformed> {
        let mut users = BTreeMap::new();
        for v1::UserWeight { user, weight } in asked.users {
            if let Some(other) = users.insert(user.clone(), weight) {
                let text = format!("user `{user}` has two weights: {other} and {weight}");
                return Err(Malformed(text));
            }
        }
        Ok(model::SetNamespace {
            namespace: Namespace::new(&asked.name)?,
            weight: asked.weight,
            users,
            max_running: asked.max_running,
            max_queued: asked.max_queued,
        })
    }
}

/// One namespace as it stands; it need not be known.
pub fn namespace_out(state: &State, name: &Namespace) -> v1::Namespace {
    let settings = state.namespace_settings(name).cloned().unwrap_or_default();
    let (queued, running) = state.load(name);
    let mut tenants: BTreeSet<Tenant> = state.tenants_of(name).into_iter().cloned().collect();
    tenants.extend(settings.users.keys().map(|user| Tenant {
        namespace: name.clone(),
        user: user.as_str().into(),
    }));
    let users: Vec<v1::Tenant> = tenants
        .iter()
        .map(|tenant| tenant_out(state, tenant))
        .collect();
    let used = users.iter().map(|user| user.used_ms);
    v1::Namespace {
        name: name.to_string(),
        weight: settings.weight,
        max_running: settings.max_running,
        max_queued: settings.max_queued,
        used_ms: used.fold(0, u64::saturating_add),
        queued,
        running,
        users,
    }
}

fn tenant_out(state: &State, tenant: &Tenant) -> v1::Tenant {
    let (_, weight) = state.weights(tenant);
    let (queued, running) = state.load_of(tenant);
    v1::Tenant {
        user: tenant.user.to_string(),
        weight,
        used_ms: state.usage(tenant, state.time()).used,
        queued,
        running,
    }
}
