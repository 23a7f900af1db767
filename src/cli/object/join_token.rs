//! A join token, as a program and as a person sees it. Its secret is in neither.

use serde_json::{Map, Value, json};
use wire::v1;

use super::{cell, text, time};
use crate::output::{SCHEMA, Table, Width, span};

pub fn join_token_json(token: &v1::JoinToken) -> Value {
    let labels: Map<String, Value> = token
        .labels
        .iter()
        .map(|label| (label.key.clone(), label.value.clone().into()))
        .collect();
    json!({
        "schema": SCHEMA,
        "id": token.id,
        "role": token.role,
        "state": token.state,
        "name": text(&token.name),
        "uses": token.uses,
        "uses_left": token.uses_left,
        "expires_at": time(Some(token.expires_at)),
        "validity_seconds": token.validity_ms / 1000,
        "labels": labels,
        "created_by": token.created_by,
        "admitted": token.admitted,
    })
}

pub fn join_token_table(tokens: &[v1::JoinToken], width: Width, now: u64) -> String {
    let mut header = vec!["ID", "ROLE", "STATE", "LEFT", "EXPIRES IN", "NAME"];
    if width == Width::Wide {
        header.extend(["CERTIFICATE", "LABELS", "BY", "LET IN"]);
    }
    let mut table = Table::new(&header);
    for token in tokens {
        let left = match token.expires_at.saturating_sub(now) {
            0 => "-".to_owned(),
            left => span(left),
        };
        let mut row = vec![
            token.id.clone(),
            token.role.clone(),
            token.state.clone(),
            format!("{} of {}", token.uses_left, token.uses),
            left,
            cell(&token.name),
        ];
        if width == Width::Wide {
            let labels = token.labels.iter();
            let labels = labels.map(|label| format!("{}={}", label.key, label.value));
            row.extend([
                span(token.validity_ms),
                cell(&labels.collect::<Vec<_>>().join(",")),
                token.created_by.clone(),
                cell(&token.admitted.join(",")),
            ]);
        }
        table.row(row);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> v1::JoinToken {
        v1::JoinToken {
            id: "1f2e3d4c".into(),
            role: "agent".into(),
            uses: 2,
            uses_left: 1,
            expires_at: 1_700_000_600_000,
            validity_ms: 86_400_000,
            state: "good".into(),
            created_by: "admin".into(),
            admitted: vec!["a7".into()],
            ..v1::JoinToken::default()
        }
    }

    #[test]
    fn every_key_is_there() {
        let json = join_token_json(&token());
        assert_eq!(json["name"], Value::Null);
        assert_eq!(json["expires_at"], "2023-11-14T22:23:20.000Z");
        assert_eq!(json["validity_seconds"], 86_400);
        assert_eq!(json["admitted"], json!(["a7"]));
        assert_eq!(json["labels"], json!({}));
    }

    #[test]
    fn a_table_says_what_is_left() {
        let table = join_token_table(&[token()], Width::Normal, 1_700_000_540_000);
        assert!(table.contains("1 of 2") && table.contains("60s"), "{table}");
    }
}
