//! An event as JSON: one line of `quorate events`.

use model::TaskId;
use serde_json::{Value, json};
use wire::v1;

use super::{state_name, text, time};
use crate::output::SCHEMA;

pub fn event_json(event: &v1::Event) -> Value {
    let state = match event.state() {
        v1::TaskState::Unspecified => Value::Null,
        state => Value::from(state_name(state)),
    };
    json!({
        "schema": SCHEMA,
        "index": event.index,
        "n": event.n,
        "time": time(Some(event.time)),
        "type": event.r#type,
        "task": event.task.map(|id| TaskId(id).to_string()),
        "epoch": event.epoch,
        "agent": text(&event.agent),
        "state": state,
        "reason": text(&event.reason),
        "segment": event.segment,
        "namespace": text(&event.namespace),
        "kind": text(&event.kind),
        "rule": text(&event.rule),
    })
}
