//! An agent, as a program and as a person sees it.

use model::{Mebibytes, Processors};
use serde_json::{Map, Value, json};
use wire::v1;

use super::{cell, text, time};
use crate::output::{SCHEMA, Table, Width, ago, fields, span};

pub fn agent_json(agent: &v1::Agent) -> Value {
    let labels: Map<String, Value> = agent
        .labels
        .iter()
        .map(|label| (label.key.clone(), label.value.clone().into()))
        .collect();
    let attempt = |fence: &v1::Fence| json!({ "task": model::TaskId(fence.task).to_string(), "epoch": fence.epoch });
    json!({
        "schema": SCHEMA,
        "id": agent.id,
        "state": agent.state,
        "connected": agent.connected,
        "slots": agent.slots,
        "busy": agent.busy,
        "supply": agent.supply.as_ref().map(|supply| json!({
            "cpu_milli": supply.cpu_milli,
            "memory_mib": supply.memory_mib,
            "gpu_vram_mib": supply.gpu_vram_mib,
        })),
        "taken": taken_json(agent.taken.unwrap_or_default()),
        "labels": labels,
        "limits": text(&agent.limits),
        "version": text(&agent.version),
        "incarnation": text(&agent.incarnation),
        "registered_index": agent.registered_index,
        "status": agent.status.as_ref().map(status_json),
        "health": agent.health,
        "hot": agent.health.map(|_| agent.hot),
        "attempts": agent.attempts.iter().map(attempt).collect::<Vec<_>>(),
        "cordon": agent.cordon.as_ref().map(cordon_json),
        "backends": agent.backends.iter().map(|backend| json!({
            "name": backend.name,
            "models": backend.models,
        })).collect::<Vec<_>>(),
    })
}

fn taken_json(taken: v1::Taken) -> Value {
    json!({
        "cpu_milli": taken.cpu_milli,
        "memory_mib": taken.memory_mib,
        "gpus": taken.gpus,
    })
}

fn cordon_json(cordon: &v1::Cordon) -> Value {
    let drain = |drain: &v1::Drain| json!({ "deadline": time(Some(drain.deadline)), "overdue": drain.overdue });
    json!({
        "by": cordon.by,
        "reason": text(&cordon.reason),
        "since": time(Some(cordon.since)),
        "drain": cordon.drain.as_ref().map(drain),
    })
}

/// Loads are thousandths, latency microseconds, 0 where it was not measured yet.
fn status_json(status: &v1::DeviceStatus) -> Value {
    json!({
        "id": status.id,
        "cpu_load": status.cpu_load,
        "own_cpu_load": status.own_cpu_load,
        "mem_usage": status.mem_usage,
        "net_latency": (status.net_latency > 0).then_some(status.net_latency),
        "timestamp": time(Some(status.timestamp)),
    })
}

pub fn agent_table(agents: &[v1::Agent], width: Width) -> String {
    let mut table = match width {
        Width::Normal => Table::new(&["ID", "STATE", "BUSY", "CPU", "MEMORY", "LABELS"]),
        Width::Wide => Table::new(&[
            "ID",
            "STATE",
            "BUSY",
            "CPU",
            "MEMORY",
            "LABELS",
            "LATENCY",
            "HEALTH",
            "CONNECTED",
            "LIMITS",
            "VERSION",
            "INCARNATION",
        ]),
    };
    for agent in agents {
        let status = agent.status.as_ref();
        let share = |pick: fn(&v1::DeviceStatus) -> u32| {
            status.map_or_else(|| "-".into(), |status| percent(pick(status)))
        };
        let mut row = vec![
            agent.id.clone(),
            agent.state.clone(),
            format!("{}/{}", agent.busy, agent.slots),
            share(|status| status.cpu_load),
            share(|status| status.mem_usage),
            cell(&labels(agent)),
        ];
        if width == Width::Wide {
            row.extend([
                cell(&status.map(latency).unwrap_or_default()),
                agent.health.map_or_else(|| "-".into(), score),
                if agent.connected {
                    "yes".into()
                } else {
                    "no".into()
                },
                cell(&agent.limits),
                cell(&agent.version),
                agent.incarnation.chars().take(8).collect(),
            ]);
        }
        table.row(row);
    }
    table.render()
}

/// What tasks have asked for of what it has: `1.5 of 8 CPUs, 2 GiB of 64 GiB, 1 of 2 GPUs (24 GiB, 24 GiB)`.
fn taken(agent: &v1::Agent) -> String {
    let Some(supply) = &agent.supply else {
        return String::new();
    };
    let taken = agent.taken.unwrap_or_default();
    let cpu = format!(
        "{} of {} CPUs",
        Processors(taken.cpu_milli),
        Processors(supply.cpu_milli.into())
    );
    let memory = format!(
        "{} of {}",
        Mebibytes(taken.memory_mib),
        Mebibytes(supply.memory_mib)
    );
    let each: Vec<String> = supply
        .gpu_vram_mib
        .iter()
        .map(|it| Mebibytes(*it).to_string())
        .collect();
    let gpus = match each.len() {
        0 => "no GPU".to_owned(),
        all => format!("{} of {all} GPUs ({})", taken.gpus, each.join(", ")),
    };
    [cpu, memory, gpus].join(", ")
}

pub fn agent_detail(agent: &v1::Agent, now: u64) -> String {
    let status = agent.status.as_ref();
    let attempts = agent.attempts.iter();
    let attempts = attempts.map(|at| format!("{} (epoch {})", model::TaskId(at.task), at.epoch));
    let heard = status.filter(|status| status.timestamp > 0);
    let heard = heard.map(|status| format!("{} ago", ago(status.timestamp, now)));
    let connected = if agent.connected {
        "with this controller"
    } else {
        "not with this controller"
    };
    let mut rows = vec![
        ("id", agent.id.clone()),
        ("state", agent.state.clone()),
        ("session", connected.to_owned()),
        ("busy", format!("{} of {} slots", agent.busy, agent.slots)),
        ("asked for", taken(agent)),
        ("attempts", attempts.collect::<Vec<_>>().join(", ")),
        ("cordon", cordon(agent, now)),
        ("labels", labels(agent)),
        (
            "cpu",
            status
                .map(|status| match status.own_cpu_load {
                    None => percent(status.cpu_load),
                    Some(_) => {
                        let others = percent(status.cpu_of_others());
                        format!("{}, {others} by others", percent(status.cpu_load))
                    }
                })
                .unwrap_or_default(),
        ),
        (
            "memory",
            status
                .map(|status| percent(status.mem_usage))
                .unwrap_or_default(),
        ),
        ("latency", status.map(latency).unwrap_or_default()),
        ("health", health(agent)),
        ("last status", heard.unwrap_or_default()),
        ("limits by", agent.limits.clone()),
        ("version", agent.version.clone()),
        ("incarnation", agent.incarnation.clone()),
        (
            "registered at",
            format!("log index {}", agent.registered_index),
        ),
    ];
    rows.retain(|(_, value)| !value.is_empty());
    fields(&rows)
}

/// Empty where nobody could say.
fn health(agent: &v1::Agent) -> String {
    let Some(health) = agent.health else {
        return String::new();
    };
    let hot = match agent.hot {
        true => {
            "; hot: others use its processors, and where idle agents could run a task it gets a twentieth of what they do"
        }
        false => "",
    };
    format!("{} (lower is better){hot}", score(health))
}

/// Thousandths.
fn score(thousandths: u32) -> String {
    format!("{}.{:03}", thousandths / 1_000, thousandths % 1_000)
}

/// Empty for one that is open for work.
fn cordon(agent: &v1::Agent, now: u64) -> String {
    let Some(cordon) = &agent.cordon else {
        return String::new();
    };
    let mut words = format!("by {}, {} ago", cordon.by, ago(cordon.since, now));
    if !cordon.reason.is_empty() {
        words = format!("{words}: {}", cordon.reason);
    }
    match &cordon.drain {
        None => words,
        Some(v1::Drain { overdue: true, .. }) => format!("{words}; its drain's time is up"),
        Some(drain) => {
            let left = span(drain.deadline.saturating_sub(now));
            format!("{words}; being drained, {left} left")
        }
    }
}

fn labels(agent: &v1::Agent) -> String {
    let labels = agent
        .labels
        .iter()
        .map(|label| format!("{}={}", label.key, label.value));
    labels.collect::<Vec<_>>().join(",")
}

fn percent(permille: u32) -> String {
    format!("{}%", (permille + 5) / 10)
}

fn latency(status: &v1::DeviceStatus) -> String {
    match status.net_latency {
        0 => String::new(),
        micros @ 1..10_000 => format!("{}.{} ms", micros / 1000, micros % 1000 / 100),
        micros @ 10_000..10_000_000 => format!("{} ms", micros / 1000),
        micros => span(u64::from(micros) / 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent() -> v1::Agent {
        v1::Agent {
            backends: Vec::new(),
            id: "a1".into(),
            state: "ready".into(),
            slots: 2,
            busy: 1,
            labels: vec![v1::Label {
                key: "gpu".into(),
                value: "none".into(),
            }],
            incarnation: "00112233445566778899aabbccddeeff".into(),
            registered_index: 3,
            version: "0.1.0".into(),
            limits: "cgroup2".into(),
            status: Some(v1::DeviceStatus {
                id: "a1".into(),
                cpu_load: 126,
                mem_usage: 300,
                net_latency: 850,
                timestamp: 1_767_225_600_000,
                own_cpu_load: Some(100),
            }),
            health: Some(201),
            hot: false,
            attempts: vec![v1::Fence {
                task: 4,
                generation: 1,
                epoch: 12,
            }],
            connected: true,
            cordon: None,
            supply: Some(v1::Supply {
                cpu_milli: 8_000,
                memory_mib: 65_536,
                gpu_vram_mib: vec![24_576, 24_576],
            }),
            taken: Some(v1::Taken {
                cpu_milli: 1_500,
                memory_mib: 512,
                gpus: 1,
            }),
        }
    }

    #[test]
    fn a_cordon_says_by_whom_why_and_how_long_a_drain_still_has() {
        let drained = |drain| v1::Agent {
            cordon: Some(v1::Cordon {
                by: "ann".into(),
                reason: "new kernel".into(),
                since: 1_767_225_600_000,
                drain,
            }),
            ..agent()
        };
        let now = 1_767_225_660_000;
        let words = |drain| cordon(&drained(drain), now);
        assert_eq!(words(None), "by ann, 60s ago: new kernel");
        let deadline = 1_767_225_700_000;
        let drain = |overdue| Some(v1::Drain { deadline, overdue });
        assert!(words(drain(false)).ends_with("; being drained, 40s left"));
        assert!(words(drain(true)).ends_with("; its drain's time is up"));
        let json = agent_json(&drained(drain(false)));
        assert_eq!(
            json["cordon"].to_string(),
            r#"{"by":"ann","reason":"new kernel","since":"2026-01-01T00:00:00.000Z","drain":{"deadline":"2026-01-01T00:01:40.000Z","overdue":false}}"#
        );
    }

    #[test]
    fn what_tasks_have_asked_for_stands_beside_what_there_is() {
        let words = "1.5 of 8 CPUs, 512 MiB of 64 GiB, 1 of 2 GPUs (24 GiB, 24 GiB)";
        assert_eq!(taken(&agent()), words);
        let plain = v1::Agent {
            supply: Some(v1::Supply::default()),
            taken: None,
            ..agent()
        };
        assert_eq!(taken(&plain), "0 of 0 CPUs, 0 MiB of 0 MiB, no GPU");
        let old = v1::Agent {
            supply: None,
            ..agent()
        };
        assert_eq!(taken(&old), "");
    }

    #[test]
    fn an_agent_in_json() {
        let golden = include_str!("../testdata/agent.json");
        assert_eq!(
            serde_json::to_string_pretty(&agent_json(&agent())).unwrap(),
            golden.trim()
        );
    }

    #[test]
    fn an_agent_that_was_not_heard_has_the_same_keys() {
        let silent = agent_json(&v1::Agent {
            status: None,
            ..agent()
        });
        assert_eq!(silent["status"], Value::Null);
        assert_eq!(
            silent.as_object().unwrap().len(),
            agent_json(&agent()).as_object().unwrap().len()
        );
    }

    #[test]
    fn agents_in_a_table() {
        let expected = "ID  STATE  BUSY  CPU  MEMORY  LABELS\n\
                        a1  ready  1/2   13%  30%     gpu=none";
        assert_eq!(agent_table(&[agent()], Width::Normal), expected);
        assert!(agent_table(&[agent()], Width::Wide).contains("0.8 ms"));
    }
}
