//! The cluster's status and its members.

use std::time::Duration;

use serde_json::{Value, json};
use wire::v1;

use super::{cell, text};
use crate::output::{SCHEMA, Table, Width};

/// How much of a hash a person compares; JSON has all of it.
const HASH_CELL: usize = 12;

pub fn status_json(status: &v1::StatusReply) -> Value {
    json!({
        "schema": SCHEMA,
        "cluster_id": text(&status.cluster_id),
        "leader": text(&status.leader),
        "term": status.term,
        "stale": status.stale,
        "members": status.members.iter().map(member_fields).collect::<Vec<_>>(),
        "queue": status.queue.iter().map(waiting_json).collect::<Vec<_>>(),
    })
}

fn waiting_json(it: &v1::WaitingClass) -> Value {
    json!({
        "class": it.class,
        "tasks": it.tasks,
        "oldest_ms": it.oldest_ms,
    })
}

/// `12 standard tasks wait (the oldest submitted 3m 2s ago); 4 batch tasks wait`; nothing where nothing does.
fn waiting_text(queue: &[v1::WaitingClass]) -> Option<String> {
    let some = queue.iter().filter(|it| it.tasks > 0);
    let parts = some.map(|it| {
        let tasks = if it.tasks == 1 {
            "task waits"
        } else {
            "tasks wait"
        };
        let oldest = it.oldest_ms.map(|oldest| {
            let oldest = Duration::from_secs(oldest / 1_000);
            let ago = humantime::format_duration(oldest);
            format!(" (the oldest submitted {ago} ago)")
        });
        format!(
            "{} {} {tasks}{}",
            it.tasks,
            it.class,
            oldest.unwrap_or_default()
        )
    });
    let parts: Vec<String> = parts.collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// One member as an item of a list.
pub fn member_json(member: &v1::Member) -> Value {
    let mut json = json!({ "schema": SCHEMA });
    if let (Value::Object(json), Value::Object(fields)) = (&mut json, member_fields(member)) {
        json.extend(fields);
    }
    json
}

fn member_fields(member: &v1::Member) -> Value {
    let address = member.address.clone().unwrap_or_default();
    // Nothing is known of a member that did not answer, beyond what the membership says.
    let heard = reachable(member);
    json!({
        "id": member.id,
        "role": member.role,
        "address": { "grpc": address.grpc, "raft": address.raft, "https": address.https },
        "state": member.state,
        "applied": heard.then_some(member.applied),
        "lag": heard.then_some(member.lag),
        "state_hash": text(&member.state_hash),
        "hash_index": heard.then_some(member.hash_index),
        "hash_at": text(&member.hash_at),
        "version": text(&member.version),
        "disk_free_bytes": member.disk.map(|disk| disk.free_bytes),
        "disk_nearly_full": member.disk.map(|disk| disk.nearly_full),
    })
}

pub fn status_table(status: &v1::StatusReply, width: Width) -> String {
    let cluster = match status.cluster_id.as_str() {
        "" => "in no cluster yet".to_owned(),
        id => format!("cluster {id}"),
    };
    let mut lines = vec![cluster];
    let reachable = status
        .members
        .iter()
        .filter(|member| reachable(member))
        .count();
    let head = match status.leader.as_str() {
        "" => "no leader is known".to_owned(),
        leader => format!("leader {leader}, term {}", status.term),
    };
    lines.push(format!(
        "{head}, {reachable} of {} members answer",
        status.members.len()
    ));
    lines.push(format!("state version {}", status.state_version));
    if status.stale {
        lines
            .push("stale: no quorum could be reached, so this is what one member last knew".into());
    }
    lines.extend(waiting_text(&status.queue));
    lines.extend(status.members.iter().filter_map(clock_alarm));
    lines.extend(status.members.iter().filter_map(disk_alarm));
    format!(
        "{}\n\n{}",
        lines.join("\n"),
        members_table(&status.members, width)
    )
}

pub fn members_table(members: &[v1::Member], width: Width) -> String {
    let mut table = match width {
        Width::Normal => Table::new(&["ID", "STATE", "ROLE", "ADDRESS", "APPLIED", "LAG", "HASH"]),
        Width::Wide => Table::new(&[
            "ID",
            "STATE",
            "ROLE",
            "ADDRESS",
            "APPLIED",
            "LAG",
            "HASH",
            "HASH INDEX",
            "HASH AT",
            "RAFT",
            "HTTPS",
            "VERSION",
            "STATE VERSIONS",
            "CLOCK",
            "DISK FREE",
        ]),
    };
    for member in members {
        let address = member.address.clone().unwrap_or_default();
        let heard = reachable(member);
        let number = |value: u64| {
            if heard {
                value.to_string()
            } else {
                "-".to_owned()
            }
        };
        let hash = |hash: &str| cell(&hash.chars().take(HASH_CELL).collect::<String>());
        let mut row = vec![
            member.id.clone(),
            member.state.clone(),
            member.role.clone(),
            cell(&address.grpc),
            number(member.applied),
            number(member.lag),
            hash(&member.state_hash),
        ];
        if width == Width::Wide {
            row.extend([
                number(member.hash_index),
                hash(&member.hash_at),
                cell(&address.raft),
                cell(&address.https),
                cell(&member.version),
                versions_cell(member),
                member.clock_skew_ms.map_or_else(|| "-".to_owned(), skew),
                member
                    .disk
                    .map_or_else(|| "-".to_owned(), |disk| mebibytes(disk.free_bytes)),
            ]);
        }
        table.row(row);
    }
    table.render()
}

fn versions_cell(member: &v1::Member) -> String {
    match reachable(member) {
        true => wire::convert::versions_in(member.state_versions).to_string(),
        false => "-".to_owned(),
    }
}

/// What to say where a clock is too far from that of the controller that answers.
fn clock_alarm(member: &v1::Member) -> Option<String> {
    let most = server::CLOCK_SKEW_MAX;
    let ahead = member.clock_skew_ms?;
    (u128::from(ahead.unsigned_abs()) > most.as_millis()).then(|| {
        format!(
            "clock alarm: {}'s wall clock is {} from that of the controller that answers, \
             at most {} s are right",
            member.id,
            skew(ahead),
            most.as_secs()
        )
    })
}

/// What to say where a disk has no room for new work.
fn disk_alarm(member: &v1::Member) -> Option<String> {
    let disk = member.disk.filter(|disk| disk.nearly_full)?;
    Some(format!(
        "disk alarm: {} has {} left, and keeps {} for what runs: make room there",
        member.id,
        mebibytes(disk.free_bytes),
        mebibytes(disk.kept_bytes)
    ))
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

fn skew(milliseconds: i64) -> String {
    let sign = if milliseconds < 0 { '-' } else { '+' };
    let size = Duration::from_millis(milliseconds.unsigned_abs());
    format!("{sign}{:.3} s", size.as_secs_f64())
}

fn reachable(member: &v1::Member) -> bool {
    member.state != "unreachable"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: &str, state: &str) -> v1::Member {
        let heard = state != "unreachable";
        v1::Member {
            id: id.into(),
            role: "voter".into(),
            address: Some(v1::Addresses {
                grpc: "127.0.0.1:7400".into(),
                raft: "127.0.0.1:7401".into(),
                https: "127.0.0.1:7402".into(),
            }),
            state: state.into(),
            applied: if heard { 300 } else { 0 },
            lag: 0,
            state_hash: if heard {
                "ab".repeat(32)
            } else {
                String::new()
            },
            hash_index: if heard { 256 } else { 0 },
            hash_at: if heard {
                "cd".repeat(32)
            } else {
                String::new()
            },
            version: if heard { "0.1.0".into() } else { String::new() },
            clock_skew_ms: heard.then_some(0),
            state_versions: None,
            state_time: 0,
            disk: heard.then_some(v1::Disk {
                free_bytes: 9 << 30,
                kept_bytes: 1 << 29,
                nearly_full: false,
            }),
        }
    }

    fn status() -> v1::StatusReply {
        v1::StatusReply {
            cluster_id: "k7".into(),
            leader: "c1".into(),
            term: 2,
            state_version: 1,
            members: vec![member("c1", "leader"), member("c2", "unreachable")],
            queue: vec![waiting("interactive", 0, None), waiting("batch", 1, None)],
            ..Default::default()
        }
    }

    fn waiting(class: &str, tasks: u64, oldest_ms: Option<u64>) -> v1::WaitingClass {
        v1::WaitingClass {
            class: class.into(),
            tasks,
            oldest_ms,
        }
    }

    #[test]
    fn what_waits_is_told_by_class_and_for_how_long() {
        let queue = [
            waiting("critical", 0, None),
            waiting("standard", 12, Some(182_900)),
            waiting("batch", 1, None),
        ];
        assert_eq!(
            waiting_text(&queue).as_deref(),
            Some("12 standard tasks wait (the oldest submitted 3m 2s ago); 1 batch task waits")
        );
        assert_eq!(waiting_text(&queue[..1]), None);
    }

    #[test]
    fn a_status_in_json() {
        let golden = include_str!("../testdata/status.json");
        assert_eq!(
            serde_json::to_string_pretty(&status_json(&status())).unwrap(),
            golden.trim()
        );
    }

    #[test]
    fn a_controller_that_has_not_joined_knows_no_cluster() {
        let status = v1::StatusReply::default();
        assert_eq!(status_json(&status)["cluster_id"], Value::Null);
        assert!(status_table(&status, Width::Normal).starts_with("in no cluster yet"));
    }

    #[test]
    fn a_status_in_words() {
        let text = status_table(&status(), Width::Normal);
        assert!(
            text.starts_with(
                "cluster k7\nleader c1, term 2, 1 of 2 members answer\nstate version 1\n1 batch task waits\n\nID  "
            ),
            "{text}"
        );
        assert!(
            text.contains("c2  unreachable  voter  127.0.0.1:7400  -"),
            "{text}"
        );
        let stale = v1::StatusReply {
            stale: true,
            leader: String::new(),
            ..status()
        };
        assert!(status_table(&stale, Width::Normal).contains("no quorum"));
    }

    #[test]
    fn a_clock_that_is_too_far_off_is_an_alarm_in_words() {
        let with = |skew| {
            let mut status = status();
            status.members[1].clock_skew_ms = Some(skew);
            status_table(&status, Width::Wide)
        };
        let text = with(-2_001);
        assert!(
            text.contains(
                "members answer\nstate version 1\n1 batch task waits\nclock alarm: c2's wall clock is -2.001 s from"
            ),
            "{text}"
        );
        let near = with(2_000);
        assert!(
            !near.contains("alarm") && near.contains("+2.000 s"),
            "{near}"
        );
    }

    #[test]
    fn a_disk_that_is_nearly_full_is_an_alarm_in_words() {
        let mut status = status();
        let text = status_table(&status, Width::Wide);
        assert!(
            !text.contains("alarm") && text.contains("9216 MiB"),
            "{text}"
        );
        status.members[0].disk = Some(v1::Disk {
            free_bytes: 100 << 20,
            kept_bytes: 1 << 29,
            nearly_full: true,
        });
        let text = status_table(&status, Width::Normal);
        let alarm = "disk alarm: c1 has 100 MiB left, and keeps 512 MiB for what runs";
        assert!(text.contains(alarm), "{text}");
    }
}
