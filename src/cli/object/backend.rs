//! A back end, as a program and as a person sees it.

use serde_json::{Value, json};
use wire::v1;

use super::{cell, text};
use crate::output::{SCHEMA, Table, Width, fields};

/// With the agent that reaches it.
#[derive(Debug, Clone)]
pub struct Backend {
    pub agent: v1::Agent,
    pub backend: v1::Backend,
}

impl Backend {
    /// Its name is its agent's to give, so the agent is a part of it.
    pub fn id(&self) -> String {
        format!("{}/{}", self.agent.id, self.backend.name)
    }

    fn state(&self) -> &str {
        match (&*self.agent.state, self.backend.trouble.is_empty()) {
            (state @ ("lost" | "suspect" | "unknown"), _) => state,
            (_, false) => "unavailable",
            (_, true) => "ready",
        }
    }
}

pub fn backend_json(it: &Backend) -> Value {
    json!({
        "schema": SCHEMA,
        "id": it.id(),
        "agent": it.agent.id,
        "name": it.backend.name,
        "url": it.backend.url,
        "state": it.state(),
        "models": it.backend.models,
        "reason": text(&it.backend.trouble),
    })
}

pub fn backend_table(backends: &[Backend], width: Width) -> String {
    let mut table = match width {
        Width::Normal => Table::new(&["ID", "STATE", "MODELS"]),
        Width::Wide => Table::new(&["ID", "STATE", "MODELS", "URL", "REASON"]),
    };
    for it in backends {
        let mut row = vec![
            it.id(),
            it.state().to_owned(),
            cell(&it.backend.models.join(", ")),
        ];
        if width == Width::Wide {
            row.extend([it.backend.url.clone(), cell(&it.backend.trouble)]);
        }
        table.row(row);
    }
    table.render()
}

pub fn backend_detail(it: &Backend) -> String {
    let mut rows = vec![
        ("id", it.id()),
        ("state", it.state().to_owned()),
        ("reason", it.backend.trouble.clone()),
        ("models", it.backend.models.join(", ")),
        ("agent", it.agent.id.clone()),
        ("url", it.backend.url.clone()),
    ];
    rows.retain(|(_, value)| !value.is_empty());
    fields(&rows)
}
