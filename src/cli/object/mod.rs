//! How things look from outside: as JSON, whose keys are a contract, and as rows for people.
//!
//! Keys are always there, `null` where nothing is known; ids are strings, times RFC 3339.

mod agent;
mod backend;
mod cluster;
mod entry;
mod event;
mod join_token;
mod namespace;
mod policy;
mod rule;
mod task;
mod why;

pub use agent::{agent_detail, agent_json, agent_table};
pub use backend::{Backend, backend_detail, backend_json, backend_table};
pub use cluster::{member_json, members_table, status_json, status_table};
pub use entry::op_words;
pub use event::event_json;
pub use join_token::{join_token_json, join_token_table};
pub use namespace::{namespace_detail, namespace_json, namespace_table};
pub use policy::{in_force, policy_json, policy_scope, policy_table, with_default};
pub use rule::{rule_json, rule_table};
pub use task::{ended, state_name, task_detail, task_id, task_json, task_table};
pub use why::{plan_json, plan_text, why_json, why_text};

use serde_json::Value;

use crate::output::rfc3339;

/// `null` for an empty text.
fn text(text: &str) -> Value {
    if text.is_empty() {
        Value::Null
    } else {
        Value::from(text)
    }
}

fn time(millis: Option<u64>) -> Value {
    millis
        .filter(|at| *at > 0)
        .and_then(rfc3339)
        .map_or(Value::Null, Value::from)
}

/// `-` for an empty cell, so that columns can be counted.
fn cell(text: &str) -> String {
    if text.is_empty() {
        "-".to_owned()
    } else {
        text.to_owned()
    }
}
