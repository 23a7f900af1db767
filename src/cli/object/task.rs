//! A task: cli.md's object, a row of a list, and everything about one.

use serde_json::{Map, Value, json};
use wire::v1::{self, TaskState};

use super::{cell, text, time};
use crate::exit::Exit;
use crate::output::{SCHEMA, Table, Width, ago, fields, insert_bytes, lossy, rfc3339};
use crate::shell;

/// A command in a cell is cut here, in characters.
const COMMAND_CELL_MAX: usize = 48;

pub fn task_id(task: &v1::Task) -> String {
    model::TaskId(task.id).to_string()
}

pub fn state_name(state: TaskState) -> &'static str {
    match state {
        TaskState::Queued => "queued",
        TaskState::Assigned => "assigned",
        TaskState::Running => "running",
        TaskState::Succeeded => "succeeded",
        TaskState::Failed => "failed",
        TaskState::Cancelled => "cancelled",
        TaskState::Unknown => "unknown",
        TaskState::DeadLetter => "dead_letter",
        // A controller of a later release may know more states than we do.
        TaskState::Unspecified => "unspecified",
    }
}

/// How a command that waited for this task ends; nothing while it is not settled.
pub fn ended(task: &v1::Task) -> Option<Exit> {
    match task.state() {
        TaskState::Succeeded => Some(Exit::Ok),
        TaskState::Failed | TaskState::Cancelled | TaskState::Unknown | TaskState::DeadLetter => {
            Some(Exit::TaskFailed)
        }
        TaskState::Queued | TaskState::Assigned | TaskState::Running | TaskState::Unspecified => {
            None
        }
    }
}

pub fn task_json(task: &v1::Task) -> Value {
    let spec = task.spec.clone().unwrap_or_default();
    json!({
        "schema": SCHEMA,
        "id": task_id(task),
        "name": text(&spec.name),
        "kind": task.kind,
        "namespace": spec.namespace,
        "user": text(&task.user),
        "class": text(&task.class),
        "state": state_name(task.state()),
        "not_before": time(task.not_before),
        "agent": text(&task.agent),
        "epoch": (task.epoch > 0).then_some(task.epoch),
        "attempt": task.attempt,
        "submitted_at": time(task.submitted_at),
        "started_at": time(task.started_at),
        "finished_at": time(task.finished_at),
        "submit_index": task.submit_index,
        "last_index": task.last_index,
        "reason": text(&task.reason),
        "result": task.result.as_ref().map(|result| result_json(result, spec.inference.is_some())),
    })
}

fn result_json(result: &v1::TaskResult, answers: bool) -> Value {
    let mut object = Map::new();
    // A model has no exit code, and what it says is its output.
    let exit_code = result.exit_code.filter(|_| !answers);
    object.insert("exit_code".into(), exit_code.into());
    let answer = || lossy(&result.stdout, is_cut(&result.stdout, result.stdout_bytes));
    let none = v1::TaskResult::default();
    let streams = if answers { &none } else { result };
    let (stdout, stderr) = (&streams.stdout, &streams.stderr);
    insert_bytes(
        &mut object,
        "stdout",
        stdout,
        is_cut(stdout, streams.stdout_bytes),
    );
    insert_bytes(
        &mut object,
        "stderr",
        stderr,
        is_cut(stderr, streams.stderr_bytes),
    );
    object.insert("truncated".into(), result.truncated.into());
    object.insert("output".into(), answers.then(answer).into());
    object.insert(
        "usage".into(),
        result.usage.as_ref().map_or(Value::Null, usage_json),
    );
    Value::Object(object)
}

fn usage_json(usage: &v1::Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
    })
}

/// Whether only the end of this stream is kept. The other one may be whole.
fn is_cut(kept: &[u8], total: u64) -> bool {
    kept.len() as u64 != total
}

/// Tasks as a table. `now`: the wall clock, for ages.
pub fn task_table(tasks: &[v1::Task], width: Width, now: u64) -> String {
    let mut table = match width {
        Width::Normal => Table::new(&["ID", "STATE", "AGENT", "AGE", "NAME", "COMMAND"]),
        Width::Wide => Table::new(&[
            "ID",
            "STATE",
            "AGENT",
            "AGE",
            "NAME",
            "COMMAND",
            "NAMESPACE",
            "USER",
            "CLASS",
            "ATTEMPT",
            "EPOCH",
            "SUBMITTED",
            "REASON",
        ]),
    };
    for task in tasks {
        let spec = task.spec.clone().unwrap_or_default();
        let mut row = vec![
            task_id(task),
            shown_state(task),
            cell(&task.agent),
            task.submitted_at
                .map_or_else(|| "-".into(), |at| ago(at, now)),
            cell(&spec.name),
            command(&spec, Some(COMMAND_CELL_MAX)),
        ];
        if width == Width::Wide {
            row.extend([
                spec.namespace,
                cell(&task.user),
                cell(&task.class),
                task.attempt.to_string(),
                cell(&epoch(task)),
                cell(&task.submitted_at.and_then(rfc3339).unwrap_or_default()),
                cell(&task.reason),
            ]);
        }
        table.row(row);
    }
    table.render()
}

/// One task in full, for a person.
pub fn task_detail(task: &v1::Task, now: u64) -> String {
    let spec = task.spec.clone().unwrap_or_default();
    let at = |millis: Option<u64>| {
        let rendered = millis
            .filter(|at| *at > 0)
            .and_then(|at| rfc3339(at).map(|text| (at, text)));
        rendered.map_or_else(String::new, |(at, text)| {
            if at > now {
                text
            } else {
                format!("{text} ({} ago)", ago(at, now))
            }
        })
    };
    let mut rows = vec![
        ("id", task_id(task)),
        ("name", spec.name.clone()),
        ("state", shown_state(task)),
        ("reason", task.reason.clone()),
        ("agent", task.agent.clone()),
        ("its GPUs", gpus(task)),
        ("attempt", task.attempt.to_string()),
        ("epoch", epoch(task)),
        match spec.inference {
            Some(_) => ("asks", command(&spec, None)),
            None => ("command", command(&spec, None)),
        },
        ("submitted", at(task.submitted_at)),
        ("not before", at(task.not_before)),
        ("started", at(task.started_at)),
        ("finished", at(task.finished_at)),
        ("by", task.user.clone()),
        ("namespace", spec.namespace.clone()),
        ("class", task.class.clone()),
    ];
    rows.extend(asked(&spec));
    rows.push(("request id", task.request_id.clone()));
    rows.push((
        "log index",
        format!("{} to {}", task.submit_index, task.last_index),
    ));
    if let Some(result) = &task.result {
        match spec.inference {
            Some(_) => rows.extend(answer_rows(result)),
            None => rows.extend(result_rows(result)),
        }
    }
    rows.retain(|(_, value)| !value.is_empty());
    fields(&rows)
}

/// `1 and 0 of a1`: by their places.
fn gpus(task: &v1::Task) -> String {
    let places: Vec<String> = task.gpus.iter().map(ToString::to_string).collect();
    match places.is_empty() {
        true => String::new(),
        false => format!("{} of {}", places.join(" and "), task.agent),
    }
}

/// What was asked for beyond the command.
fn asked(spec: &v1::TaskSpec) -> Vec<(&'static str, String)> {
    let process = spec.process.clone().unwrap_or_default();
    let limit = |millis: u64| match millis {
        0 => String::new(),
        millis => humantime::format_duration(std::time::Duration::from_millis(millis)).to_string(),
    };
    let labels = spec
        .labels
        .iter()
        .map(|label| format!("{}={}", label.key, label.value));
    let mut env: Vec<String> = process.env.keys().cloned().collect();
    env.sort();
    let retries = match spec.retries {
        Some(retries) if retries > 0 => retries.to_string(),
        _ => String::new(),
    };
    let size = |mib: u64| match mib {
        0 => String::new(),
        mib => model::Mebibytes(mib).to_string(),
    };
    let cpu = match spec.cpu_milli {
        0 => String::new(),
        milli => model::Processors(milli.into()).to_string(),
    };
    let vram = size(spec.vram_mib);
    let gpus = match (spec.gpus, spec.vram_mib) {
        (0, 0) => String::new(),
        (0, _) => format!("{vram} of one"),
        (gpus, 0) => gpus.to_string(),
        (gpus, _) => format!("{gpus} with {vram} each"),
    };
    vec![
        ("labels", labels.collect::<Vec<_>>().join(" ")),
        ("requires", spec.require.join(", ")),
        ("prefers", spec.prefer.join(", ")),
        // Values may be secrets: names only.
        ("environment", env.join(" ")),
        ("directory", process.cwd),
        ("timeout", limit(spec.timeout_ms)),
        ("deadline", limit(spec.deadline_ms)),
        ("retries", retries),
        ("at most once", yes(spec.at_most_once)),
        ("preemptible", yes(spec.preemptible)),
        ("cpu", cpu),
        ("memory", size(spec.memory_mib)),
        ("gpus", gpus),
    ]
}

/// What is not so is not shown.
fn yes(holds: bool) -> String {
    if holds { "yes".into() } else { String::new() }
}

fn result_rows(result: &v1::TaskResult) -> Vec<(&'static str, String)> {
    let exit = match (result.exit_code, result.signal) {
        (Some(code), _) => code.to_string(),
        (None, Some(signal)) => format!("none, killed by signal {signal}"),
        (None, None) => String::new(),
    };
    let cut = if result.truncated {
        format!(
            "kept is the end: {} of {} bytes of stdout, {} of {} of stderr",
            result.stdout.len(),
            result.stdout_bytes,
            result.stderr.len(),
            result.stderr_bytes
        )
    } else {
        String::new()
    };
    vec![
        ("exit code", exit),
        ("truncated", cut),
        (
            "stdout",
            lossy(&result.stdout, is_cut(&result.stdout, result.stdout_bytes)),
        ),
        (
            "stderr",
            lossy(&result.stderr, is_cut(&result.stderr, result.stderr_bytes)),
        ),
    ]
}

fn answer_rows(result: &v1::TaskResult) -> Vec<(&'static str, String)> {
    let cut = is_cut(&result.stdout, result.stdout_bytes);
    let kept = format!(
        "kept is the end: {} of {} bytes",
        result.stdout.len(),
        result.stdout_bytes
    );
    let tokens = result.usage.as_ref().map(|usage| {
        format!(
            "{} of the prompt, {} of the answer",
            usage.prompt_tokens, usage.completion_tokens
        )
    });
    vec![
        ("tokens", tokens.unwrap_or_default()),
        ("truncated", if cut { kept } else { String::new() }),
        ("output", lossy(&result.stdout, cut)),
    ]
}

fn shown_state(task: &v1::Task) -> String {
    let name = state_name(task.state());
    if task.cancel_requested && ended(task).is_none() {
        format!("{name} (cancelling)")
    } else {
        name.to_owned()
    }
}

fn epoch(task: &v1::Task) -> String {
    if task.epoch == 0 {
        String::new()
    } else {
        task.epoch.to_string()
    }
}

/// A command as one could type it, cut to a number of characters.
fn command(spec: &v1::TaskSpec, max: Option<usize>) -> String {
    let words = spec.process.iter().flat_map(|process| &process.command);
    let words: Vec<_> = words.map(|word| shell::word(word)).collect();
    let text = match &spec.inference {
        Some(inference) => format!("{}: {}", inference.model, asks(&inference.request)),
        None => words.join(" "),
    };
    match max {
        Some(max) if text.chars().count() > max => {
            text.chars().take(max - 1).chain(['…']).collect()
        }
        _ => text,
    }
}

/// What a request asks, in short: its last message, or else as it is.
fn asks(request: &str) -> String {
    let parsed: Option<Value> = serde_json::from_str(request).ok();
    let last = parsed
        .as_ref()
        .and_then(|it| it.get("messages")?.as_array()?.last());
    let text = last.and_then(|message| message.get("content")?.as_str());
    text.unwrap_or(request).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> v1::TaskSpec {
        v1::TaskSpec {
            name: "nap".into(),
            namespace: "default".into(),
            process: Some(v1::ProcessSpec {
                command: vec!["sh".into(), "-c".into(), "echo it's; sleep 1".into()],
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn finished() -> v1::Task {
        v1::Task {
            id: 17,
            spec: Some(spec()),
            kind: "process".into(),
            user: "admin".into(),
            class: "standard".into(),
            state: TaskState::Failed.into(),
            agent: "a1".into(),
            epoch: 42,
            attempt: 1,
            submitted_at: Some(1_767_225_600_000),
            started_at: Some(1_767_225_600_010),
            finished_at: Some(1_767_225_601_010),
            submit_index: 41,
            last_index: 43,
            reason: "exit code 7".into(),
            result: Some(v1::TaskResult {
                exit_code: Some(7),
                stdout: b"it's\n".to_vec().into(),
                stderr: b"\xff".to_vec().into(),
                stdout_bytes: 5,
                stderr_bytes: 1,
                ..Default::default()
            }),
            request_id: "r1".into(),
            ..Default::default()
        }
    }

    #[test]
    fn a_finished_task_in_json() {
        let golden = include_str!("../testdata/task_finished.json");
        assert_eq!(
            serde_json::to_string_pretty(&task_json(&finished())).unwrap(),
            golden.trim()
        );
    }

    #[test]
    fn that_one_stream_was_cut_says_nothing_of_the_other() {
        let mut task = finished();
        let result = task.result.as_mut().unwrap();
        // A cut character at the front of stdout; on stderr the same byte is data.
        result.stdout = b"\xacuro".to_vec().into();
        result.stderr = b"\xacuro".to_vec().into();
        (result.stdout_bytes, result.stderr_bytes, result.truncated) = (1_000, 4, true);
        let shown = &task_json(&task)["result"];
        assert_eq!(shown["stdout"], "uro");
        assert!(shown["stderr_base64"].is_string(), "{shown}");
    }

    #[test]
    fn a_queued_task_has_the_same_keys() {
        let queued = v1::Task {
            id: 1,
            spec: Some(v1::TaskSpec {
                name: String::new(),
                ..spec()
            }),
            kind: "process".into(),
            user: "admin".into(),
            class: "standard".into(),
            state: TaskState::Queued.into(),
            submitted_at: Some(1_767_225_600_000),
            submit_index: 9,
            last_index: 9,
            ..Default::default()
        };
        let golden = include_str!("../testdata/task_queued.json");
        let json = task_json(&queued);
        assert_eq!(serde_json::to_string_pretty(&json).unwrap(), golden.trim());
        let keys = |json: &Value| {
            json.as_object()
                .unwrap()
                .keys()
                .cloned()
                .collect::<Vec<_>>()
        };
        assert_eq!(keys(&json), keys(&task_json(&finished())));
    }

    #[test]
    fn tasks_in_a_table() {
        let text = task_table(&[finished()], Width::Normal, 1_767_225_660_000);
        let expected = "ID   STATE   AGENT  AGE  NAME  COMMAND\n\
                        t17  failed  a1     60s  nap   sh -c 'echo it'\\''s; sleep 1'";
        assert_eq!(text, expected);
    }

    #[test]
    fn detail_names_variables_and_never_shows_their_values() {
        let mut task = finished();
        let process = task.spec.as_mut().unwrap().process.as_mut().unwrap();
        process.env.insert("PASSWORD".into(), "hunter2".into());
        let text = task_detail(&task, 1_767_225_660_000);
        assert!(
            text.contains("PASSWORD") && !text.contains("hunter2"),
            "{text}"
        );
        assert!(text.contains("exit code    7"), "{text}");
    }

    #[test]
    fn each_state_says_how_a_wait_for_it_ends() {
        let with = |state: TaskState| v1::Task {
            state: state.into(),
            ..Default::default()
        };
        assert_eq!(ended(&with(TaskState::Succeeded)), Some(Exit::Ok));
        let ends = [
            TaskState::Failed,
            TaskState::Cancelled,
            TaskState::Unknown,
            TaskState::DeadLetter,
        ];
        for state in ends {
            assert_eq!(ended(&with(state)), Some(Exit::TaskFailed));
        }
        for state in [TaskState::Queued, TaskState::Assigned, TaskState::Running] {
            assert_eq!(ended(&with(state)), None);
        }
    }
}
