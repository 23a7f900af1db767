//! A rule by hand, as a program and as a person sees it.

use serde_json::{Value, json};
use wire::v1;

use super::{cell, text, time};
use crate::output::{SCHEMA, Table, Width, span};

pub fn rule_json(it: &v1::Rule) -> Value {
    json!({
        "schema": SCHEMA,
        "id": it.id,
        "action": it.action,
        "most": (it.most > 0).then_some(it.most),
        "namespace": text(&it.namespace),
        "kind": text(&it.kind),
        "agents": it.agents,
        "require": it.require,
        "agents_now": it.fits,
        "reason": it.reason,
        "by": it.by,
        "since": time(Some(it.since)),
        "expires_at": time(it.expires_at),
    })
}

pub fn rule_table(rules: &[v1::Rule], width: Width, now: u64) -> String {
    let mut header = vec!["ID", "RULE", "AGENTS NOW", "EXPIRES IN", "REASON"];
    if width == Width::Wide {
        header.extend(["BY", "SINCE"]);
    }
    let mut table = Table::new(&header);
    for it in rules {
        let left = it.expires_at.map(|end| end.saturating_sub(now));
        let mut row = vec![
            it.id.clone(),
            it.words.clone(),
            it.fits.to_string(),
            left.map_or_else(|| "-".to_owned(), span),
            it.reason.clone(),
        ];
        if width == Width::Wide {
            let since = time(Some(it.since));
            row.extend([it.by.clone(), cell(since.as_str().unwrap_or_default())]);
        }
        table.row(row);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule() -> v1::Rule {
        v1::Rule {
            id: "r17".into(),
            action: "cap".into(),
            most: 2,
            namespace: "nightly".into(),
            kind: String::new(),
            agents: vec!["a1".into(), "a2".into()],
            require: vec!["zone=b".into()],
            fits: 1,
            reason: "its disk is slow".into(),
            by: "ann".into(),
            since: 1_700_000_000_123,
            expires_at: Some(1_700_000_090_123),
            words: "cap tasks of namespace nightly at 2 on each of a1, a2 with zone=b".into(),
        }
    }

    #[test]
    fn a_rule_is_told_in_words_with_its_reason_and_what_is_left_of_its_time() {
        let shown = rule_table(&[rule()], Width::Normal, 1_700_000_030_123);
        assert_eq!(
            shown,
            "ID   RULE                                                               AGENTS NOW  EXPIRES IN  REASON\n\
             r17  cap tasks of namespace nightly at 2 on each of a1, a2 with zone=b  1           60s         its disk is slow"
        );
    }

    #[test]
    fn what_is_not_said_of_a_rule_is_null() {
        let json = rule_json(&v1::Rule {
            most: 0,
            expires_at: None,
            ..rule()
        });
        let nulls = (&json["most"], &json["kind"], &json["expires_at"]);
        assert_eq!(nulls, (&Value::Null, &Value::Null, &Value::Null));
        assert_eq!(json["agents"], json!(["a1", "a2"]));
        assert_eq!(
            (&json["since"], &json["agents_now"]),
            (&json!("2023-11-14T22:13:20.123Z"), &json!(1))
        );
    }
}
