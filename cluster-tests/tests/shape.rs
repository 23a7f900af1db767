//! The shapes that answers have in JSON, as the contract for the command line lists them: every key is
//! there in every state, ids are texts, times are RFC 3339 in UTC with milliseconds.

use std::collections::BTreeSet;

use cluster_tests::cluster::{Cli, Completed};
use serde_json::Value;

/// The one version of every object that this release prints.
const SCHEMA: u64 = 1;

pub const TASK: [&str; 19] = [
    "schema",
    "id",
    "name",
    "kind",
    "namespace",
    "user",
    "class",
    "state",
    "not_before",
    "agent",
    "epoch",
    "attempt",
    "submitted_at",
    "started_at",
    "finished_at",
    "submit_index",
    "last_index",
    "reason",
    "result",
];
const RESULT: [&str; 6] = [
    "exit_code",
    "stdout",
    "stderr",
    "truncated",
    "output",
    "usage",
];
pub const NAMESPACE: [&str; 9] = [
    "schema",
    "name",
    "weight",
    "max_running",
    "max_queued",
    "queued",
    "running",
    "used_slot_ms",
    "users",
];
pub const STATUS: [&str; 7] = [
    "schema",
    "cluster_id",
    "leader",
    "term",
    "stale",
    "members",
    "queue",
];
pub const MEMBER: [&str; 12] = [
    "id",
    "role",
    "address",
    "state",
    "applied",
    "lag",
    "state_hash",
    "disk_free_bytes",
    "disk_nearly_full",
    "hash_index",
    "hash_at",
    "version",
];
pub const AGENT: [&str; 19] = [
    "schema",
    "id",
    "state",
    "connected",
    "slots",
    "backends",
    "busy",
    "supply",
    "taken",
    "labels",
    "limits",
    "version",
    "incarnation",
    "registered_index",
    "status",
    "health",
    "hot",
    "attempts",
    "cordon",
];
pub const WHY: [&str; 16] = [
    "schema",
    "task",
    "state",
    "summary",
    "decision",
    "decided_at_index",
    "policy_version",
    "strategy",
    "strategy_now",
    "refusals",
    "queue_position",
    "ahead",
    "agents_now",
    "likely_wait_ms",
    "likely_wait_is_guess",
    "estimate",
];
pub const PLAN: [&str; 11] = [
    "schema",
    "summary",
    "agent",
    "strategy",
    "decision",
    "refusals",
    "queue_position",
    "ahead",
    "agents_now",
    "likely_wait_ms",
    "likely_wait_is_guess",
];
pub const RULE: [&str; 13] = [
    "schema",
    "id",
    "action",
    "most",
    "namespace",
    "kind",
    "agents",
    "require",
    "agents_now",
    "reason",
    "by",
    "since",
    "expires_at",
];
pub const CONTEXT: [&str; 9] = [
    "schema",
    "name",
    "current",
    "addresses",
    "ca",
    "cert",
    "key",
    "token",
    "namespace",
];

const RUNS: &str = "the command line can be run";

/// Exactly these keys, in whatever order.
pub fn assert_keys(value: &Value, keys: &[&str]) {
    let object = value.as_object();
    let found = object.map(|object| object.keys().map(String::as_str).collect());
    let wanted: BTreeSet<&str> = keys.iter().copied().collect();
    assert_eq!(found, Some(wanted), "{value}");
}

/// An object of its own: it says its version besides.
pub fn assert_object(value: &Value, keys: &[&str]) {
    assert_keys(value, keys);
    assert_eq!(value["schema"], SCHEMA, "{value}");
}

/// The items of a list that has no further page.
pub fn items(list: &Value) -> &[Value] {
    assert_object(list, &["schema", "items", "next"]);
    assert_eq!(list["next"], Value::Null, "{list}");
    list["items"].as_array().expect("items are a list")
}

pub fn assert_task(task: &Value) {
    assert_object(task, &TASK);
    let id = task["id"].as_str().and_then(|id| id.strip_prefix('t'));
    assert!(id.is_some_and(|id| id.parse::<u64>().is_ok()), "{task}");
    assert!(is_time(&task["submitted_at"]), "{task}");
    for key in ["started_at", "finished_at", "not_before"] {
        assert!(task[key].is_null() || is_time(&task[key]), "{key}: {task}");
    }
    for key in ["attempt", "submit_index", "last_index"] {
        assert!(task[key].is_u64(), "{key}: {task}");
    }
    for key in ["kind", "namespace", "user", "class", "state"] {
        assert!(task[key].is_string(), "{key}: {task}");
    }
    if let Value::Object(result) = &task["result"] {
        let mut keys = RESULT.to_vec();
        // Bytes that are no text stand beside their name, which is then null.
        for (name, encoded) in [("stdout", "stdout_base64"), ("stderr", "stderr_base64")] {
            if result[name].is_null() {
                assert!(result[encoded].is_string(), "{task}");
                keys.push(encoded);
            }
        }
        assert_keys(&task["result"], &keys);
    }
}

/// A controller, with these keys: of an item of a list there is one more.
pub fn assert_member(member: &Value, keys: &[&str]) {
    assert_keys(member, keys);
    assert_keys(&member["address"], &["grpc", "raft", "https"]);
    for (key, among) in [
        ("role", &["voter", "learner"][..]),
        ("state", &["leader", "follower", "candidate", "unreachable"]),
    ] {
        let known = member[key].as_str().is_some_and(|it| among.contains(&it));
        assert!(known, "{key}: {member}");
    }
    let silent = member["state"] == "unreachable";
    for key in ["applied", "lag", "hash_index"] {
        assert_eq!(member[key].is_u64(), !silent, "{key}: {member}");
    }
    for key in ["state_hash", "hash_at", "version"] {
        assert_eq!(member[key].is_string(), !silent, "{key}: {member}");
    }
}

pub fn assert_agent(agent: &Value) {
    assert_object(agent, &AGENT);
    let status = [
        "id",
        "cpu_load",
        "own_cpu_load",
        "mem_usage",
        "net_latency",
        "timestamp",
    ];
    assert_keys(&agent["status"], &status);
    assert!(is_time(&agent["status"]["timestamp"]), "{agent}");
}

/// `2026-01-31T12:00:00.000Z`
pub fn is_time(value: &Value) -> bool {
    let pattern = "dddd-dd-ddTdd:dd:dd.dddZ";
    let fits = |(found, wanted): (char, char)| match wanted {
        'd' => found.is_ascii_digit(),
        exactly => found == exactly,
    };
    value.as_str().is_some_and(|text| {
        text.len() == pattern.len() && text.chars().zip(pattern.chars()).all(fits)
    })
}

/// A refusal, as a person and as a program is told of it: one line or one object on stderr, nothing on
/// stdout, the same exit code.
pub async fn assert_refused(cli: &Cli, arguments: &[&str], exit: i32, code: &str) {
    let told = cli.run(arguments).await.expect(RUNS);
    assert_eq!(told.code, Some(exit), "{arguments:?}: {}", told.stderr);
    assert_eq!(told.text(), "", "{arguments:?}");
    let line = told.stderr.trim_end();
    assert!(
        line.starts_with("error: ") && !line.contains('\n'),
        "{line}"
    );
    // In front, because what stands behind `--` is the task's.
    let asked = [&["-o", "json"], arguments].concat();
    let told = cli.run(&asked).await.expect(RUNS);
    assert_eq!(told.code, Some(exit), "{arguments:?}: {}", told.stderr);
    assert_eq!(told.text(), "", "{arguments:?}");
    let error: Value = serde_json::from_str(&told.stderr).expect(&told.stderr);
    assert_object(&error, &["schema", "error"]);
    let error = &error["error"];
    assert_keys(error, &["code", "message", "hint", "request_id"]);
    assert_eq!(error["code"], code, "{error}");
    let text = |key: &str| error[key].as_str().is_some_and(|text| !text.is_empty());
    assert!(text("message"), "{error}");
}

/// The same answer in each form: gives it as JSON, after a look at the others. `row` is a word that a
/// person must find in the table.
pub async fn in_every_form(cli: &Cli, arguments: &[&str], row: &str, ids: &[&str]) -> Value {
    let asked = async |format: &str| -> Completed {
        let asked = [&["-o", format], arguments].concat();
        cli.expect(&asked).await.expect(RUNS)
    };
    let table = cli.expect(arguments).await.expect(RUNS).text();
    assert!(table.contains(row), "{arguments:?}: no {row:?} in {table}");
    let wide = asked("wide").await.text();
    assert!(wide.contains(row), "{arguments:?}: no {row:?} in {wide}");
    let quiet = asked("quiet").await.text();
    let quiet: Vec<&str> = quiet.lines().collect();
    assert_eq!(quiet, ids, "{arguments:?}");
    let json = asked("json").await.text();
    assert_eq!(json.lines().count(), 1, "one value: {json}");
    let json: Value = serde_json::from_str(&json).expect(&json);
    let yaml = asked("yaml").await.text();
    let object = json.as_object().expect("every answer is an object");
    let keys: BTreeSet<&str> = object.keys().map(String::as_str).collect();
    assert_eq!(top_keys(&yaml), keys, "{yaml}");
    json
}

/// The keys of a YAML document's outermost map.
fn top_keys(yaml: &str) -> BTreeSet<&str> {
    let outermost = yaml.lines().filter(|line| !line.starts_with([' ', '-']));
    outermost
        .filter_map(|line| line.split_once(':'))
        .map(|(key, _)| key)
        .collect()
}
