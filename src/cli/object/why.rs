//! The answer to *why*: why a task runs where it runs, or why it waits.

use serde_json::{Value, json};
use wire::v1;

use super::{cell, state_name, task_id, text, time};
use crate::output::{SCHEMA, Table};

pub fn why_json(why: &v1::WhyReply) -> Value {
    let task = why.task.clone().unwrap_or_default();
    let refusal =
        |count: &v1::RefusalCount| json!({ "reason": count.reason, "agents": count.agents });
    json!({
        "schema": SCHEMA,
        "task": task_id(&task),
        "state": state_name(task.state()),
        "summary": why.summary,
        "decision": why.decision.iter().map(candidate_json).collect::<Vec<_>>(),
        "decided_at_index": (why.decided_at_index > 0).then_some(why.decided_at_index),
        "strategy": text(&why.strategy),
        "strategy_now": text(&why.strategy_now),
        "policy_version": (why.decided_at_index > 0).then_some(why.policy_version),
        "refusals": why.refusals.iter().map(refusal).collect::<Vec<_>>(),
        "queue_position": why.queue_position,
        "ahead": why.ahead.as_ref().map(ahead_json),
        "agents_now": why.agents_now.iter().map(candidate_json).collect::<Vec<_>>(),
        "likely_wait_ms": why.likely_wait_ms,
        "likely_wait_is_guess": why.likely_wait_is_guess,
        "estimate": why.estimate.map(|estimate| json!({
            "made_at": time(Some(estimate.made_at)),
            "expected_wait_ms": estimate.expected_wait_ms,
            "waited_ms": estimate.waited_ms,
        })),
    })
}

/// What would become of a task that is not there: `agent` where it would be assigned at once.
pub fn plan_json(plan: &v1::WhyReply) -> Value {
    let why = why_json(plan);
    let agent = plan.decision.first().map(|winner| winner.agent.clone());
    json!({
        "schema": SCHEMA,
        "summary": why["summary"],
        "agent": agent,
        "strategy": why["strategy_now"],
        "decision": why["decision"],
        "refusals": why["refusals"],
        "queue_position": why["queue_position"],
        "ahead": why["ahead"],
        "agents_now": why["agents_now"],
        "likely_wait_ms": why["likely_wait_ms"],
        "likely_wait_is_guess": why["likely_wait_is_guess"],
    })
}

pub fn plan_text(plan: &v1::WhyReply) -> String {
    let plan = match plan.decision.is_empty() {
        true => plan.clone(),
        // It would not wait, and the decision has more to tell than each agent by itself.
        false => v1::WhyReply {
            queue_position: None,
            agents_now: Vec::new(),
            ..plan.clone()
        },
    };
    why_text(&plan)
}

fn ahead_json(ahead: &v1::QueueAhead) -> Value {
    json!({
        "higher_class": ahead.higher,
        "other_namespaces": ahead.namespaces,
        "other_users": ahead.users,
        "older": ahead.older,
        "is_least": ahead.is_least,
        "first": ahead.first.iter().map(|id| format!("t{id}")).collect::<Vec<_>>(),
        "rival": ahead.rival.as_ref().map(|rival| json!({
            "namespace": rival.namespace,
            "user": text(&rival.user),
            "used_slot_ms": rival.used_ms,
            "weight": rival.weight,
            "own_used_slot_ms": rival.own_used_ms,
            "own_weight": rival.own_weight,
        })),
    })
}

/// `3 of a higher class, 5 of its own user, and older, first t4, t7, t8`; empty where it is next.
fn ahead_text(ahead: &v1::QueueAhead) -> String {
    let parts = [
        (ahead.higher, "of a higher class, or risen to one"),
        (ahead.namespaces, "of namespaces whose turn is before"),
        (
            ahead.users,
            "of users in its namespace whose turn is before",
        ),
        (ahead.older, "of its own user, and older"),
    ];
    let parts = parts.iter().filter(|(count, _)| *count > 0);
    let parts = parts.map(|(count, why)| format!("{count} {why}"));
    let first = ahead.first.iter().map(|id| format!("t{id}"));
    let first = first.collect::<Vec<_>>().join(", ");
    let first = match first.is_empty() {
        true => None,
        false => Some(format!("first {first}")),
    };
    parts.chain(first).collect::<Vec<_>>().join(", ")
}

fn candidate_json(candidate: &v1::Candidate) -> Value {
    let term = |term: &v1::ScoreTerm| json!({ "name": term.name, "value": term.value, "weight": term.weight });
    json!({
        "agent": candidate.agent,
        "score": candidate.score,
        "terms": candidate.terms.iter().map(term).collect::<Vec<_>>(),
        "refused": text(&candidate.refused),
    })
}

pub fn why_text(why: &v1::WhyReply) -> String {
    let mut parts = vec![why.summary.clone()];
    if let Some(position) = why.queue_position {
        let is_least = why.ahead.as_ref().is_some_and(|ahead| ahead.is_least);
        let later = if is_least { " or later" } else { "" };
        let ahead = why.ahead.as_ref().map(ahead_text).unwrap_or_default();
        let before = match ahead.is_empty() {
            true => String::new(),
            false => format!("; before it go {ahead}"),
        };
        parts.push(format!(
            "place in the queue: {position}{later} (1 is next){before}"
        ));
    }
    if !why.decision.is_empty() {
        // A task that is only planned has none.
        let at = match why.decided_at_index {
            0 => String::new(),
            index => format!(", at log index {index}"),
        };
        parts.push(format!(
            "the decision{at} ({}; lower scores win):\n{}",
            cell(&why.strategy),
            candidates(&why.decision)
        ));
    }
    if !why.refusals.is_empty() {
        let lines = why.refusals.iter().map(|count| match count.agents {
            1 => format!("  1 agent: {}", count.reason),
            agents => format!("  {agents} agents: {}", count.reason),
        });
        parts.push(format!(
            "refused then:\n{}",
            lines.collect::<Vec<_>>().join("\n")
        ));
    }
    if !why.agents_now.is_empty() {
        parts.push(format!(
            "the agents now ({}):\n{}",
            cell(&why.strategy_now),
            candidates(&why.agents_now)
        ));
    }
    parts.retain(|part| !part.is_empty());
    parts.join("\n\n")
}

fn candidates(candidates: &[v1::Candidate]) -> String {
    let mut table = Table::new(&["  AGENT", "SCORE", "TERMS", "REFUSED"]);
    for candidate in candidates {
        let terms = candidate.terms.iter().map(|term| {
            format!(
                "{} {} × {}",
                term.name,
                thousandths(term.value),
                thousandths(term.weight)
            )
        });
        table.row(vec![
            format!("  {}", candidate.agent),
            candidate.score.map_or_else(|| "-".into(), thousandths),
            cell(&terms.collect::<Vec<_>>().join(", ")),
            cell(&candidate.refused),
        ]);
    }
    table.render()
}

/// `1250` is 1.25.
fn thousandths(value: i64) -> String {
    let sign = if value < 0 { "-" } else { "" };
    let whole = value.unsigned_abs() / 1000;
    let rest = format!("{:03}", value.unsigned_abs() % 1000);
    let rest = rest.trim_end_matches('0');
    if rest.is_empty() {
        format!("{sign}{whole}")
    } else {
        format!("{sign}{whole}.{rest}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why() -> v1::WhyReply {
        v1::WhyReply {
            task: Some(v1::Task {
                id: 3,
                state: v1::TaskState::Running.into(),
                ..Default::default()
            }),
            summary: "t3 runs on a1: it had the lowest score of 1 agent that could take it".into(),
            decision: vec![v1::Candidate {
                agent: "a1".into(),
                score: Some(1250),
                terms: vec![v1::ScoreTerm {
                    name: "assigned".into(),
                    value: 500,
                    weight: 2500,
                }],
                refused: String::new(),
            }],
            decided_at_index: 12,
            strategy: "adaptive".into(),
            policy_version: 1,
            refusals: vec![v1::RefusalCount {
                reason: "all its slots are taken".into(),
                agents: 1,
            }],
            ..Default::default()
        }
    }

    #[test]
    fn why_in_json() {
        let golden = include_str!("../testdata/why.json");
        assert_eq!(
            serde_json::to_string_pretty(&why_json(&why())).unwrap(),
            golden.trim()
        );
    }

    #[test]
    fn why_in_words_begins_with_the_answer() {
        let text = why_text(&why());
        assert!(text.starts_with("t3 runs on a1: it had"), "{text}");
        assert!(text.contains("a1     1.25   assigned 0.5 × 2.5"), "{text}");
        assert!(text.contains("1 agent: all its slots are taken"), "{text}");
    }

    #[test]
    fn what_goes_before_a_task_is_told_with_the_reason() {
        let mut waiting = v1::WhyReply {
            queue_position: Some(6),
            ahead: Some(v1::QueueAhead {
                higher: 3,
                older: 2,
                ..v1::QueueAhead::default()
            }),
            ..v1::WhyReply::default()
        };
        let wanted = "place in the queue: 6 (1 is next); before it go 3 of a higher class, or risen to one, \
                      2 of its own user, and older";
        assert!(why_text(&waiting).ends_with(wanted), "{waiting:?}");
        assert_eq!(why_json(&waiting)["ahead"]["higher_class"], 3);
        (waiting.queue_position, waiting.ahead) = (Some(1), Some(v1::QueueAhead::default()));
        assert!(why_text(&waiting).ends_with("(1 is next)"));
    }

    #[test]
    fn thousandths_are_shown_without_needless_zeros() {
        assert_eq!(thousandths(0), "0");
        assert_eq!(thousandths(-1050), "-1.05");
        assert_eq!(thousandths(2000), "2");
    }
}
