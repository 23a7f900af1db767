//! A back end, as a program and as a person sees it.

use std::time::Duration;

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
    let settings = settings_of(it);
    json!({
        "schema": SCHEMA,
        "id": it.id(),
        "agent": it.agent.id,
        "name": it.backend.name,
        "url": it.backend.url,
        "state": it.state(),
        "models": it.backend.models,
        "reason": text(&it.backend.trouble),
        "weight": settings.weight,
        "limit": settings.limit,
        "max_fails": settings.max_fails,
        "fail_timeout_ms": settings.fail_timeout.0,
    })
}

/// Of those that an older controller did not tell, what always holds.
fn settings_of(it: &Backend) -> model::BackendSettings {
    let settings = it.backend.settings.map(model::BackendSettings::from);
    settings.unwrap_or_default()
}

/// `8`, or `-` for none.
fn limit(settings: &model::BackendSettings) -> String {
    match settings.limit {
        0 => "-".to_owned(),
        limit => limit.to_string(),
    }
}

fn patience(settings: &model::BackendSettings) -> String {
    let span = humantime::format_duration(Duration::from_millis(settings.fail_timeout.0));
    match settings.max_fails {
        0 => "never left alone".to_owned(),
        1 => format!("left alone for {span} after a failure"),
        fails => format!("left alone for {span} after {fails} failures within {span}"),
    }
}

pub fn backend_table(backends: &[Backend], width: Width) -> String {
    let mut table = match width {
        Width::Normal => Table::new(&["ID", "STATE", "MODELS"]),
        Width::Wide => Table::new(&["ID", "STATE", "MODELS", "WEIGHT", "LIMIT", "URL", "REASON"]),
    };
    for it in backends {
        let mut row = vec![
            it.id(),
            it.state().to_owned(),
            cell(&it.backend.models.join(", ")),
        ];
        if width == Width::Wide {
            let settings = settings_of(it);
            row.extend([
                settings.weight.to_string(),
                limit(&settings),
                it.backend.url.clone(),
                cell(&it.backend.trouble),
            ]);
        }
        table.row(row);
    }
    table.render()
}

pub fn backend_detail(it: &Backend) -> String {
    let settings = settings_of(it);
    let mut rows = vec![
        ("id", it.id()),
        ("state", it.state().to_owned()),
        ("reason", it.backend.trouble.clone()),
        ("models", it.backend.models.join(", ")),
        ("agent", it.agent.id.clone()),
        ("url", it.backend.url.clone()),
        ("weight", settings.weight.to_string()),
        ("limit", limit(&settings)),
        ("failures", patience(&settings)),
    ];
    rows.retain(|(_, value)| !value.is_empty());
    fields(&rows)
}
