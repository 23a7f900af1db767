//! A task as people see it: its record, spec and result in one message.

use bytes::Bytes;
use model::{End, StateName, Timestamp};

use crate::v1;

/// A task's message. `running`: its agent said that the process of the live attempt runs.
pub fn task(state: &model::State, task: &model::Task, running: bool) -> v1::Task {
    let (spec, result) = (state.spec(task.id), state.result(task.id));
    let payloads = (spec.as_deref(), result.as_deref());
    message(task, payloads, state.generation(), running)
}

/// The same for one that left memory.
pub fn archived_task(record: &model::TaskRecord) -> v1::Task {
    let payloads = (Some(&record.spec), record.result.as_ref());
    message(&record.task, payloads, record.generation, false)
}

fn message(
    task: &model::Task,
    (spec, outcome): (Option<&model::TaskSpec>, Option<&model::Outcome>),
    generation: model::Generation,
    running: bool,
) -> v1::Task {
    let latest = task.latest.as_ref();
    let not_before = match &task.phase {
        // State time follows wall time closely enough to show it.
        model::Phase::Queued { not_before, .. } => not_before.map(|at| at.0),
        model::Phase::Assigned { .. }
        | model::Phase::Succeeded
        | model::Phase::Failed { .. }
        | model::Phase::Cancelled(_)
        | model::Phase::Unknown { .. }
        | model::Phase::DeadLetter { .. } => None,
    };
    v1::Task {
        id: task.id.0,
        spec: spec.map(v1::TaskSpec::from),
        kind: task.kind.as_str().into(),
        user: task.user.as_ref().to_owned(),
        class: task.class.as_str().into(),
        state: shown_state(task, running).into(),
        not_before,
        agent: latest
            .map(|attempt| attempt.agent.to_string())
            .unwrap_or_default(),
        epoch: latest.map_or(0, |attempt| attempt.epoch.0),
        attempt: task.attempts,
        submitted_at: Some(task.submitted_at.0),
        started_at: task.started_at.map(|Timestamp(at)| at),
        finished_at: task.finished_at.map(|Timestamp(at)| at),
        submit_index: task.submit_index,
        last_index: task.last_index,
        reason: task.reason(),
        result: outcome
            .filter(|_| task.is_terminal() && reported(task))
            .map(result),
        request_id: task.request_id.as_deref().unwrap_or_default().to_owned(),
        generation: generation.0,
        lost_agents: u32::try_from(task.lost_agents.len()).unwrap_or(u32::MAX),
        gpus: latest.map_or_else(Vec::new, |attempt| {
            attempt.gpus.iter().map(|place| u32::from(*place)).collect()
        }),
        cancel_requested: matches!(
            task.phase,
            model::Phase::Assigned {
                cancel: Some(_),
                ..
            }
        ),
    }
}

/// Whether the kept result is the latest attempt's: after a lost one it is that of an earlier try.
fn reported(task: &model::Task) -> bool {
    let latest = task.latest.as_ref().map(|attempt| attempt.epoch);
    latest.is_some() && task.settled == latest
}

fn shown_state(task: &model::Task, running: bool) -> v1::TaskState {
    match task.state() {
        StateName::Assigned if running => v1::TaskState::Running,
        other => state(other),
    }
}

/// A state's name on the wire.
pub fn state(name: StateName) -> v1::TaskState {
    match name {
        StateName::Queued => v1::TaskState::Queued,
        StateName::Assigned => v1::TaskState::Assigned,
        StateName::Succeeded => v1::TaskState::Succeeded,
        StateName::Failed => v1::TaskState::Failed,
        StateName::Cancelled => v1::TaskState::Cancelled,
        StateName::Unknown => v1::TaskState::Unknown,
        StateName::DeadLetter => v1::TaskState::DeadLetter,
    }
}

/// The states of the log that a state on the wire stands for: running ones are assigned there.
pub fn states(name: v1::TaskState) -> &'static [StateName] {
    match name {
        v1::TaskState::Unspecified => &StateName::ALL,
        v1::TaskState::Queued => &[StateName::Queued],
        v1::TaskState::Assigned | v1::TaskState::Running => &[StateName::Assigned],
        v1::TaskState::Succeeded => &[StateName::Succeeded],
        v1::TaskState::Failed => &[StateName::Failed],
        v1::TaskState::Cancelled => &[StateName::Cancelled],
        v1::TaskState::Unknown => &[StateName::Unknown],
        v1::TaskState::DeadLetter => &[StateName::DeadLetter],
    }
}

fn result(outcome: &model::Outcome) -> v1::TaskResult {
    let (exit_code, signal) = match outcome.end {
        End::Exited { code } => (Some(code), None),
        End::Signalled { signal } => (None, Some(signal)),
        End::TimedOut
        | End::Killed
        | End::NotStarted { .. }
        | End::Failed { .. }
        | End::Impossible { .. }
        | End::Declined { .. }
        | End::Interrupted { .. } => (None, None),
    };
    v1::TaskResult {
        exit_code,
        signal,
        stdout: Bytes::copy_from_slice(&outcome.stdout),
        stderr: Bytes::copy_from_slice(&outcome.stderr),
        truncated: outcome.truncated(),
        stdout_bytes: outcome.stdout_bytes,
        stderr_bytes: outcome.stderr_bytes,
        usage: outcome.usage.map(v1::Usage::from),
        stdout_blob: outcome.blobs.stdout.map(v1::BlobRef::from),
        stderr_blob: outcome.blobs.stderr.map(v1::BlobRef::from),
    }
}
