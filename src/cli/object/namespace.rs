//! A namespace, as a program and as a person sees it.

use std::time::Duration;

use serde_json::{Value, json};
use wire::v1;

use crate::output::{SCHEMA, Table, Width, fields};

pub fn namespace_json(it: &v1::Namespace) -> Value {
    let users = it.users.iter().map(|user| {
        json!({
            "user": user.user,
            "weight": user.weight,
            "queued": user.queued,
            "running": user.running,
            "used_slot_ms": user.used_ms,
        })
    });
    json!({
        "schema": SCHEMA,
        "name": it.name,
        "weight": it.weight,
        "max_running": it.max_running,
        "max_queued": it.max_queued,
        "queued": it.queued,
        "running": it.running,
        "used_slot_ms": it.used_ms,
        "users": users.collect::<Vec<Value>>(),
    })
}

/// `3`, or `3 of 8` where there is a quota.
fn of_quota(count: u64, quota: u32) -> String {
    match quota {
        0 => count.to_string(),
        most => format!("{count} of {most}"),
    }
}

/// Time on slots, times prices: `1h 2m 3s`, or `850ms`.
fn used(millis: u64) -> String {
    let whole = match millis {
        0..10_000 => millis,
        _ => millis / 1_000 * 1_000,
    };
    humantime::format_duration(Duration::from_millis(whole)).to_string()
}

pub fn namespace_table(namespaces: &[v1::Namespace], width: Width) -> String {
    let mut table = match width {
        Width::Normal => Table::new(&["NAME", "WEIGHT", "RUNNING", "QUEUED", "USED"]),
        Width::Wide => Table::new(&["NAME", "USER", "WEIGHT", "RUNNING", "QUEUED", "USED"]),
    };
    for it in namespaces {
        let mut row = vec![
            it.name.clone(),
            it.weight.to_string(),
            of_quota(it.running.into(), it.max_running),
            of_quota(it.queued, it.max_queued),
            used(it.used_ms),
        ];
        if width == Width::Wide {
            row.insert(1, "-".to_owned());
        }
        table.row(row);
        for user in it.users.iter().filter(|_| width == Width::Wide) {
            let mut row = vec![it.name.clone(), user.user.clone()];
            row.extend(user_row(user));
            table.row(row);
        }
    }
    table.render()
}

fn user_row(user: &v1::Tenant) -> [String; 4] {
    [
        user.weight.to_string(),
        user.running.to_string(),
        user.queued.to_string(),
        used(user.used_ms),
    ]
}

pub fn namespace_detail(it: &v1::Namespace) -> String {
    let text = fields(&[
        ("name", it.name.clone()),
        ("weight", it.weight.to_string()),
        ("running", of_quota(it.running.into(), it.max_running)),
        ("queued", of_quota(it.queued, it.max_queued)),
        ("used", used(it.used_ms)),
    ]);
    if it.users.is_empty() {
        return text;
    }
    let mut table = Table::new(&["USER", "WEIGHT", "RUNNING", "QUEUED", "USED"]);
    for user in &it.users {
        let mut row = vec![user.user.clone()];
        row.extend(user_row(user));
        table.row(row);
    }
    format!("{text}\n\n{}", table.render())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn research() -> v1::Namespace {
        v1::Namespace {
            name: "research".into(),
            weight: 3,
            max_running: 8,
            max_queued: 0,
            used_ms: 3_723_456,
            queued: 17,
            running: 2,
            users: vec![v1::Tenant {
                user: "ann".into(),
                weight: 2,
                used_ms: 850,
                queued: 17,
                running: 2,
            }],
        }
    }

    #[test]
    fn a_namespace_shows_what_it_has_of_its_quota_and_who_uses_it() {
        assert_eq!(
            namespace_table(&[research()], Width::Normal),
            "NAME      WEIGHT  RUNNING  QUEUED  USED\n\
             research  3       2 of 8   17      1h 2m 3s"
        );
        assert_eq!(
            namespace_table(&[research()], Width::Wide),
            "NAME      USER  WEIGHT  RUNNING  QUEUED  USED\n\
             research  -     3       2 of 8   17      1h 2m 3s\n\
             research  ann   2       2        17      850ms"
        );
        assert_eq!(
            namespace_detail(&research()),
            "name     research\n\
             weight   3\n\
             running  2 of 8\n\
             queued   17\n\
             used     1h 2m 3s\n\n\
             USER  WEIGHT  RUNNING  QUEUED  USED\n\
             ann   2       2        17      850ms"
        );
    }

    #[test]
    fn every_key_is_there() {
        let json = namespace_json(&research());
        assert_eq!(json["users"][0]["used_slot_ms"], 850);
        assert_eq!(json["max_queued"], 0);
    }
}
