//! How agents are chosen.

use model::{Kind, Namespace, Scope, State};

use super::Malformed;
use crate::v1;

/// In place of a strategy: as the next wider scope says.
pub const INHERIT: &str = "inherit";

impl TryFrom<v1::SetPolicyRequest> for model::SetPolicy {
    type Error = Malformed;

    fn try_from(asked: v1::SetPolicyRequest) -> Result<model::SetPolicy, Malformed> {
        let strategy = match asked.strategy.as_str() {
            INHERIT => None,
            "" => return Err(Malformed::missing("the strategy")),
            name => Some(name.parse()),
        };
        let said = |error: &dyn std::fmt::Display| Malformed(error.to_string());
        Ok(model::SetPolicy {
            scope: scope_in(&asked.namespace, &asked.kind)?,
            strategy: strategy
                .transpose()
                .map_err(|error: model::ParseStrategyError| said(&error))?,
        })
    }
}

/// Empty: any.
pub(super) fn scope_in(namespace: &str, kind: &str) -> Result<Scope, Malformed> {
    let named = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let namespace = named(namespace).map(|name| Namespace::new(&name));
    let kind = named(kind).map(|name| name.parse::<Kind>()).transpose();
    Ok(Scope {
        namespace: namespace.transpose()?,
        kind: kind.map_err(|error| Malformed(error.to_string()))?,
    })
}

/// Its namespace and its kind.
pub(super) fn scope_out(scope: &Scope) -> (String, String) {
    let namespace = scope.namespace.as_ref().map(Namespace::to_string);
    let kind = scope.kind.map(|kind| kind.as_str().to_owned());
    (namespace.unwrap_or_default(), kind.unwrap_or_default())
}

/// What was set, the widest scope first.
pub fn policies_out(state: &State) -> Vec<v1::Policy> {
    let policies = state.policies().map(|(scope, policy)| {
        let (namespace, kind) = scope_out(scope);
        v1::Policy {
            namespace,
            kind,
            strategy: policy.strategy.to_string(),
            by: policy.by.clone(),
            since: policy.since.0,
        }
    });
    policies.collect()
}
