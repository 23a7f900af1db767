//! What the record of a task says by itself, in memory or in the archive: where it was, why there, and how long it waited.

use model::{Millis, Phase, Strategy, Task};

use super::{Explanation, sentences};
use crate::score::{self, Way};

/// Explains a task that does not wait.
pub fn explain_decided(task: &Task) -> Explanation {
    let lead = match &task.phase {
        Phase::Queued { .. } => Some("It waits.".into()),
        Phase::Assigned { .. } => None,
        Phase::Succeeded => Some("It succeeded.".into()),
        Phase::Failed { reason } => Some(format!("It failed: {reason}.")),
        Phase::Cancelled(cancel) => Some(format!("It was cancelled by {cancel}.")),
        Phase::Unknown { .. } => Some(format!("Nobody knows how it ended: {}.", task.reason())),
        Phase::DeadLetter { reason } => Some(format!("It was given up: {reason}.")),
    };
    let has_to_end = match &task.phase {
        Phase::Assigned { .. } => Some(task.reason()).filter(|why| !why.is_empty()),
        _ => None,
    };
    let has_to_end = has_to_end.map(|why| format!("It has to end: {why}."));
    let past = past(task).into_iter().chain(how_wrong(task));
    Explanation {
        summary: sentences(lead.into_iter().chain(past).chain(has_to_end)),
        formula: None,
        ahead: None,
        agents: Vec::new(),
        wait: None,
    }
}

/// The same of a task that nobody has submitted yet.
pub fn would(task: &Task, explanation: &Explanation) -> String {
    if task.trace.is_some() {
        return format!("It would be assigned to {}.", decided(task));
    }
    let waits = explanation.summary.as_str();
    let others = [("It waits", "It would wait"), ("It is ", "It would be ")];
    let found = others.iter().find_map(|(is, would)| {
        let rest = waits.strip_prefix(is)?;
        Some(format!("{would}{rest}"))
    });
    found.unwrap_or_else(|| waits.to_owned())
}

/// `9 s`, `3 min`; what is less than a second is told as that.
pub fn span(millis: Millis) -> String {
    match millis.0 {
        0..1_000 => "less than 1 s".into(),
        under @ 1_000..120_000 => format!("{} s", under / 1_000),
        under @ 120_000..7_200_000 => format!("{} min", under / 60_000),
        more => format!("{} h", more / 3_600_000),
    }
}

/// Where its latest attempt was, and how long it took to get there; or that it never got anywhere.
fn past(task: &Task) -> Vec<String> {
    let submitted = Some(task.waits_since).filter(|since| since.0 > 0);
    let Some(latest) = &task.latest else {
        let waited = submitted.zip(task.ended);
        let waited =
            waited.map(|(since, ended)| format!("It had waited {}.", span(ended.since(since))));
        let nowhere = "It was never assigned to an agent.".to_owned();
        return std::iter::once(nowhere).chain(waited).collect();
    };
    let place = match (&task.phase, task.attempts, task.started_at) {
        (Phase::Assigned { .. }, 0 | 1, _) | (_, 0 | 1, None) => "It was assigned to".into(),
        (Phase::Assigned { .. }, attempts, _) => format!("Its attempt {attempts} was assigned to"),
        (_, 0 | 1, Some(_)) => "It ran on".into(),
        (_, attempts, _) => format!("The last of its {attempts} attempts was on"),
    };
    let assigned = Some(latest.since).filter(|since| since.0 > 0);
    let after = assigned.zip(submitted);
    let after = after.map(|(assigned, since)| match task.attempts {
        0 | 1 => format!("It had waited {} before that.", span(assigned.since(since))),
        _ => format!(
            "That began {} after its submit.",
            span(assigned.since(since))
        ),
    });
    let placed = format!("{place} {}.", decided(task));
    std::iter::once(placed).chain(after).collect()
}

/// How right the estimate was that was made of it, if one was; a sentence.
fn how_wrong(task: &Task) -> Option<String> {
    let (expected, real) = task.latest.as_ref()?.waits()?;
    let (expected, real) = (span(expected), span(real));
    Some(format!(
        "It was estimated to wait {expected}, and waited {real} from then on."
    ))
}

fn decided(task: &Task) -> String {
    const LATER: &str = "chosen as a later release chooses";
    let Some(record) = &task.trace else {
        return "no agent yet".into();
    };
    let Some(trace) = record.read() else {
        let latest = task.latest.as_ref();
        let agent = latest.map_or("an agent", |it| it.agent.as_str());
        return format!("{agent}, {LATER}");
    };
    let others = match trace.runners_up.first() {
        Some(second) => format!("; next was {}", second.agent),
        None => "; no other agent could take it".into(),
    };
    // The scores stand beside it, in the decision, in a unit that needs no explanation there.
    let formula = score::formula_of(trace.policy_version);
    let why = match formula {
        None => LATER.to_owned(),
        Some(it) if !it.prefers => words(it.way).to_owned(),
        Some(it) => match trace.winner.terms.first() {
            Some(0) => format!("preferred, and {}", words(it.way)),
            _ => format!(
                "{}; none that is preferred more could take it",
                words(it.way)
            ),
        },
    };
    format!("{}, {why}{others}", trace.winner.agent)
}

fn words(way: Way) -> &'static str {
    let strategy = match way {
        Way::Strategy(strategy) => strategy,
        Way::Preemption => return "where least was lost by what had to end for it",
    };
    match strategy {
        Strategy::Adaptive => "the best by load and pace",
        Strategy::RoundRobin | Strategy::WeightedRoundRobin => "whose turn it was",
        Strategy::LeastConnections => "the one with the fewest attempts",
        Strategy::IpHash => "the first with room for its client",
        Strategy::PowerOfTwo => "the less loaded of two that were drawn",
        Strategy::Binpack => "the fullest that has room",
        Strategy::Spread => "the one with the fewest attempts of its namespace",
    }
}
