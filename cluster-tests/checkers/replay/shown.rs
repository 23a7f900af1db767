//! What an answer about a task should have said, from the state at that index.

use model::{End, Outcome, State, Task, TaskId};

use crate::history::{AgentSeen, ResultSeen, TaskSeen};

/// A task as the state has it.
pub fn held(state: &State, id: TaskId) -> Option<TaskSeen> {
    let task = state.task(id)?;
    let result = state.result(id);
    Some(of(task, result.as_deref(), state.generation().0))
}

pub fn of(task: &Task, result: Option<&Outcome>, generation: u64) -> TaskSeen {
    let latest = task.latest.as_deref();
    let reported = latest.is_some() && task.settled == latest.map(|attempt| attempt.epoch);
    let result = result.filter(|_| task.is_terminal() && reported);
    TaskSeen {
        id: task.id.0,
        state: task.state().into(),
        epoch: latest.map_or(0, |attempt| attempt.epoch.0),
        attempt: task.attempts,
        agent: latest.map_or_else(String::new, |attempt| attempt.agent.to_string()),
        submit_index: task.submit_index,
        last_index: task.last_index,
        generation,
        request_id: task.request_id.as_deref().unwrap_or_default().to_owned(),
        cancel_requested: matches!(
            task.phase,
            model::Phase::Assigned {
                cancel: Some(_),
                ..
            }
        ),
        result: result.map(result_of),
    }
}

fn result_of(outcome: &Outcome) -> ResultSeen {
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
    ResultSeen {
        exit_code,
        signal,
        stdout_bytes: outcome.stdout_bytes,
        stderr_bytes: outcome.stderr_bytes,
        // What lies beside the log can't be told from here.
        stdout_crc: match outcome.blobs.stdout {
            None => Some(crc32c::crc32c(&outcome.stdout)),
            Some(_) => None,
        },
    }
}

/// In what an answer differs, in words.
pub fn difference(is: &TaskSeen, shown: &TaskSeen) -> Option<String> {
    let (was, had) = (shown.state.settled(), is.state.settled());
    if was != had {
        return Some(format!("{}, and it was {}", was.as_str(), had.as_str()));
    }
    let numbers = [
        ("epoch", shown.epoch, is.epoch),
        ("attempt", shown.attempt.into(), is.attempt.into()),
        ("submit index", shown.submit_index, is.submit_index),
        ("last index", shown.last_index, is.last_index),
    ];
    if let Some((what, told, held)) = numbers.iter().find(|(_, told, held)| told != held) {
        return Some(format!("{what} {told}, and it was {held}"));
    }
    if shown.agent != is.agent {
        return Some(format!(
            "agent {:?}, and it was {:?}",
            shown.agent, is.agent
        ));
    }
    if shown.request_id != is.request_id {
        let (told, held) = (&shown.request_id, &is.request_id);
        return Some(format!("request {told:?}, and it was {held:?}"));
    }
    if shown.cancel_requested != is.cancel_requested {
        return Some("another word on whether its cancel was asked for".to_owned());
    }
    result_differs(&is.result, &shown.result)
}

/// In what an agent's standing differs, in words.
pub fn agent_difference(is: &AgentSeen, shown: &AgentSeen) -> Option<String> {
    let AgentSeen {
        id,
        incarnation,
        slots,
        attempts,
        cordoned,
        draining,
        lost,
    } = shown;
    let flags = [
        ("cordoned", *cordoned, is.cordoned),
        ("draining", *draining, is.draining),
        ("lost", *lost, is.lost),
    ];
    if let Some((what, told, _)) = flags.iter().find(|(_, told, held)| told != held) {
        let (told, held) = match told {
            true => (what.to_string(), "was not".to_owned()),
            false => (format!("not {what}"), "was".to_owned()),
        };
        return Some(format!("{id} was shown as {told}, and {held}"));
    }
    if *slots != is.slots {
        let held = is.slots;
        return Some(format!("{id} was shown with {slots} slots, and had {held}"));
    }
    if *incarnation != is.incarnation {
        let held = &is.incarnation;
        return Some(format!(
            "{id} was shown as incarnation {incarnation}, and was {held}"
        ));
    }
    let listed = |attempts: &[(u64, u64)]| match attempts {
        [] => "nothing".to_owned(),
        some => {
            let each = some
                .iter()
                .map(|(task, epoch)| format!("t{task} under epoch {epoch}"));
            each.collect::<Vec<_>>().join(", ")
        }
    };
    (*attempts != is.attempts).then(|| {
        let (told, held) = (listed(attempts), listed(&is.attempts));
        format!("{id} was shown with {told}, and had {held}")
    })
}

fn result_differs(held: &Option<ResultSeen>, shown: &Option<ResultSeen>) -> Option<String> {
    let text = |result: &Option<ResultSeen>| match result {
        Some(result) => result.to_string(),
        None => "none".to_owned(),
    };
    (!ResultSeen::agree(held, shown)).then(|| {
        let (told, is) = (text(shown), text(held));
        format!("the result {told}, and it was {is}")
    })
}

/// An agent, without what only its sessions know.
pub fn agent(state: &State, agent: &model::Agent) -> AgentSeen {
    let id = &agent.profile.id;
    let held = state.held_by(id);
    let attempts = held.filter_map(|task| Some((task.id.0, task.live()?.epoch.0)));
    AgentSeen {
        id: id.to_string(),
        incarnation: agent.profile.incarnation.to_string(),
        slots: agent.profile.slots,
        attempts: attempts.collect(),
        cordoned: agent.cordon.is_some(),
        draining: agent.drain().is_some(),
        lost: agent.state == model::AgentState::Lost,
    }
}
