//! A policy, as a program and as a person sees it.

use model::Strategy;
use serde_json::{Value, json};
use wire::v1;

use super::{cell, text, time};
use crate::output::{SCHEMA, Table};

pub fn policy_json(it: &v1::Policy) -> Value {
    json!({
        "schema": SCHEMA,
        "namespace": text(&it.namespace),
        "kind": text(&it.kind),
        "strategy": it.strategy,
        "by": text(&it.by),
        "since": time(Some(it.since)),
    })
}

/// `research/process`, with `*` for any.
pub fn policy_scope(it: &v1::Policy) -> String {
    let any = |name: &str| if name.is_empty() { "*" } else { name }.to_owned();
    format!("{}/{}", any(&it.namespace), any(&it.kind))
}

pub fn policy_table(policies: &[v1::Policy]) -> String {
    let mut table = Table::new(&["NAMESPACE", "KIND", "STRATEGY", "BY", "SINCE"]);
    let any = |name: &str| match name {
        "" => "(any)".to_owned(),
        name => name.to_owned(),
    };
    for it in policies {
        let since = time(Some(it.since));
        table.row(vec![
            any(&it.namespace),
            any(&it.kind),
            it.strategy.clone(),
            cell(&it.by),
            cell(since.as_str().unwrap_or_default()),
        ]);
    }
    table.render()
}

/// What holds where nothing was set.
fn default_policy() -> v1::Policy {
    v1::Policy {
        strategy: Strategy::default().to_string(),
        ..v1::Policy::default()
    }
}

/// With what holds for all tasks, where nobody said that.
pub fn with_default(policies: Vec<v1::Policy>) -> Vec<v1::Policy> {
    let is_said = policies
        .iter()
        .any(|it| it.namespace.is_empty() && it.kind.is_empty());
    let default = (!is_said).then(default_policy);
    default.into_iter().chain(policies).collect()
}

/// The one that holds for tasks of this namespace and kind. No namespace: for those of one without a word of its own.
pub fn in_force(policies: &[v1::Policy], namespace: &str, kind: &str) -> v1::Policy {
    let fits = |it: &v1::Policy| {
        let within = |of: &str, asked: &str| of.is_empty() || of == asked;
        within(&it.namespace, namespace) && within(&it.kind, kind)
    };
    let narrowness = |it: &v1::Policy| (!it.namespace.is_empty(), !it.kind.is_empty());
    let fitting = with_default(policies.to_vec()).into_iter().filter(fits);
    fitting
        .max_by_key(narrowness)
        .unwrap_or_else(default_policy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(namespace: &str, kind: &str, strategy: &str) -> v1::Policy {
        v1::Policy {
            namespace: namespace.into(),
            kind: kind.into(),
            strategy: strategy.into(),
            by: "ann".into(),
            since: 1_700_000_000_123,
        }
    }

    #[test]
    fn the_narrowest_holds_and_a_namespace_is_narrower_than_a_kind() {
        let all = || {
            vec![
                policy("", "inference", "ip_hash"),
                policy("blue", "", "binpack"),
                policy("blue", "inference", "spread"),
            ]
        };
        let held = |namespace: &str, kind: &str| in_force(&all(), namespace, kind).strategy;
        assert_eq!(held("blue", "inference"), "spread");
        assert_eq!(held("blue", "process"), "binpack");
        assert_eq!(held("red", "inference"), "ip_hash");
        assert_eq!(held("red", "process"), "adaptive");
    }

    #[test]
    fn what_holds_where_nothing_was_set_is_shown_too() {
        let shown = policy_table(&with_default(vec![policy("blue", "", "binpack")]));
        assert_eq!(
            shown,
            "NAMESPACE  KIND   STRATEGY  BY   SINCE\n\
             (any)      (any)  adaptive  -    -\n\
             blue       (any)  binpack   ann  2023-11-14T22:13:20.123Z"
        );
        let json = policy_json(&default_policy());
        assert_eq!(
            (&json["namespace"], &json["since"]),
            (&Value::Null, &Value::Null)
        );
        assert_eq!(json["strategy"], "adaptive");
    }
}
