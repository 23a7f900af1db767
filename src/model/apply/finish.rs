//! An agent's report. It counts only under the live fence; every other one is answered with what
//! it is (duplicate, stale, unknown), so that the agent can forget it, and changes nothing.

use mutant::Mutant;

use crate::apply::{Outcome as Answer, Step};
use crate::backoff::backoff;
use crate::command::{Reply, Verdict};
use crate::event::Event;
use crate::id::{AgentId, Fence, TaskId};
use crate::limit;
use crate::outcome::{Disposition, End, Interruption, Outcome};
use crate::principal::Principal;
use crate::rejected::Rejected;
use crate::share::ran_for;
use crate::spec::TaskSpec;
use crate::state::State;
use crate::task::{Attempt, Cancellation, Phase, Task};
use crate::time::Timestamp;
use crate::version::StateVersion;

/// Whether a task may be assigned again once it was.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeats {
    Allowed,
    Never,
}

impl State {
    pub(super) fn finish_attempt(
        &mut self,
        principal: &Principal,
        verdict: Verdict,
        step: &mut Step<'_>,
    ) -> Answer {
        let Verdict { fence, outcome } = verdict;
        let finished = |disposition| {
            Ok(Reply::Finished {
                task: fence.task,
                disposition,
            })
        };
        let Some(task) = self.tasks.get(&fence.task) else {
            return finished(Disposition::UnknownTask);
        };
        if fence.generation != self.meta.generation {
            return finished(Disposition::Stale);
        }
        if task.settled == Some(fence.epoch) {
            return finished(Disposition::Duplicate);
        }
        let counts =
            |attempt: &&Attempt| attempt.epoch == fence.epoch || mutant::is(Mutant::NoEpochCheck);
        let Some(attempt) = open_attempt(task).filter(counts) else {
            return finished(Disposition::Stale);
        };
        if attempt.agent.as_str() != principal.name {
            return Err(Rejected::Forbidden {
                principal: principal.name.clone(),
                need: format!("task {} is held by agent {}", task.id, attempt.agent),
            });
        }
        let (task, attempt) = (task.clone(), attempt.clone());
        self.settle(task, &attempt, outcome.bounded(), step);
        finished(Disposition::Accepted)
    }

    /// Whether a report under this fence would still count.
    pub fn awaits(&self, fence: Fence) -> bool {
        let task = self.tasks.get(&fence.task);
        let open = task.and_then(open_attempt);
        fence.generation == self.meta.generation
            && open.is_some_and(|attempt| attempt.epoch == fence.epoch)
    }

    fn settle(&mut self, task: Task, attempt: &Attempt, outcome: Outcome, step: &mut Step<'_>) {
        let fence = Fence {
            task: task.id,
            generation: self.meta.generation,
            epoch: attempt.epoch,
        };
        let held_slot = task.live().is_some();
        let spec = self.specs.shared(&task.id);
        let spec = spec.as_deref();
        if held_slot {
            self.charge_for(&task, spec, (attempt, Some(&outcome)), step);
        }
        let repeats = repeats(spec);
        let retries = spec.map_or(0, |spec| spec.retries);
        let reason = || describe(&outcome.end, &attempt.agent);
        let yields = attempt.preempted_by.filter(|_| is_given_up(&outcome.end));
        let mut next = task;
        next.settled = Some(attempt.epoch);
        next.started_at = Some(outcome.started_at).filter(|at| at.0 > 0);
        next.finished_at = Some(outcome.finished_at).filter(|at| at.0 > 0);
        next.phase = match &outcome.end {
            End::Exited { code: 0 } => Phase::Succeeded,
            _ if let Some(by) = yields => after_preemption(&mut next, attempt, by),
            End::Declined { .. } => {
                let not_before = self.wait_after_decline(&next, step);
                after_decline(&next, repeats, reason(), not_before)
            }
            End::Interrupted { cause, .. } => {
                if *cause == Interruption::AgentDied {
                    note_lost_agent(&mut next, &attempt.agent, repeats);
                }
                after_interruption(&next, attempt, repeats, reason(), step)
            }
            End::Exited { .. }
            | End::Signalled { .. }
            | End::TimedOut
            | End::NotStarted { .. }
            | End::Failed { .. } => after_failure(&mut next, retries, reason(), step),
            End::Impossible { .. } => after_failure(&mut next, 0, reason(), step),
            End::Killed => after_kill(&next, &attempt.agent),
        };
        self.write_result(next.id, outcome);
        if held_slot {
            step.events.push(Event::AttemptEnded {
                fence,
                agent: attempt.agent.clone(),
            });
        }
        self.write_ended(next, step);
    }

    /// The agent is lost: what becomes of a task it held.
    pub(super) fn lose_attempt(&mut self, id: TaskId, step: &mut Step<'_>) {
        let Some(mut next) = self.tasks.get(&id).cloned() else {
            return;
        };
        let Some(attempt) = next.live().cloned() else {
            return;
        };
        let spec = self.specs.shared(&id);
        self.charge_for(&next, spec.as_deref(), (&attempt, None), step);
        let repeats = repeats(spec.as_deref());
        let fence = Fence {
            task: id,
            generation: self.meta.generation,
            epoch: attempt.epoch,
        };
        let reason = format!("agent {} was lost: its lease ran out", attempt.agent);
        note_lost_agent(&mut next, &attempt.agent, repeats);
        next.phase = after_interruption(&next, &attempt, repeats, reason, step);
        step.events.push(Event::AttemptEnded {
            fence,
            agent: attempt.agent,
        });
        self.write_ended(next, step);
    }

    fn charge_for(
        &mut self,
        task: &Task,
        spec: Option<&TaskSpec>,
        (attempt, outcome): (&Attempt, Option<&Outcome>),
        step: &Step<'_>,
    ) {
        if let Some(spec) = spec {
            let took = ran_for(attempt, outcome, step.now);
            self.settle_account(task.tenant(spec), attempt, (took, spec.price()), step.now);
        }
    }

    /// The first time it goes on at once; what is given back again and again waits, or it would do nothing else.
    fn wait_after_decline(&self, task: &Task, step: &Step<'_>) -> Option<Timestamp> {
        let again = task.given_back();
        let waits = again > 0 && self.meta.state_version >= StateVersion::DECLINES_WAIT;
        waits.then(|| step.now.plus(backoff(task.id, again)))
    }

    /// Writes a task that left an attempt, or the queue, and says so.
    pub(super) fn write_ended(&mut self, mut task: Task, step: &mut Step<'_>) {
        task.last_index = step.index;
        if task.is_terminal() {
            task.ended = Some(step.now);
            task.finished_at = task.finished_at.or(Some(step.wall));
            step.events.push(Event::TaskEnded {
                task: task.id,
                state: task.state(),
            });
        } else {
            task.started_at = None;
            task.finished_at = None;
            step.events.push(Event::TaskRequeued { task: task.id });
        }
        self.write_task(task);
    }
}

/// What is not known may have been begun for the last time.
fn repeats(spec: Option<&TaskSpec>) -> Repeats {
    match spec {
        Some(spec) if !spec.at_most_once => Repeats::Allowed,
        Some(_) if mutant::is(Mutant::AtMostOnceRepeats) => Repeats::Allowed,
        Some(_) | None => Repeats::Never,
    }
}

/// The attempt that a report may still settle: the live one, or that of an unknown task.
fn open_attempt(task: &Task) -> Option<&Attempt> {
    match &task.phase {
        Phase::Assigned { attempt, .. } => Some(attempt),
        Phase::Unknown { attempt, .. } => Some(attempt),
        Phase::Queued { .. }
        | Phase::Succeeded
        | Phase::Failed { .. }
        | Phase::Cancelled(_)
        | Phase::DeadLetter { .. } => None,
    }
}

fn cancellation(task: &Task) -> Option<Box<Cancellation>> {
    match &task.phase {
        Phase::Assigned { cancel, .. } => cancel.clone(),
        Phase::Queued { .. }
        | Phase::Succeeded
        | Phase::Failed { .. }
        | Phase::Cancelled(_)
        | Phase::Unknown { .. }
        | Phase::DeadLetter { .. } => None,
    }
}

/// It failed by itself: that uses up a retry.
fn after_failure(task: &mut Task, retries: u32, reason: String, step: &Step<'_>) -> Phase {
    if let Some(cancel) = cancellation(task) {
        return Phase::Cancelled(cancel);
    }
    task.failures = task.failures.saturating_add(1);
    if matches!(task.phase, Phase::Unknown { .. }) || retries == 0 {
        Phase::Failed { reason }
    } else if task.failures <= retries {
        let not_before = step.now.plus(backoff(task.id, task.failures));
        let reason = format!("retry {} of {retries}: {reason}", task.failures);
        Phase::Queued {
            not_before: Some(not_before),
            reason,
        }
    } else {
        Phase::DeadLetter {
            reason: format!("all {retries} retries failed; the last: {reason}"),
        }
    }
}

/// Nothing of it ran, so nothing is unknown; but a task that may be assigned only once was.
fn after_decline(
    task: &Task,
    repeats: Repeats,
    reason: String,
    not_before: Option<Timestamp>,
) -> Phase {
    if let Some(cancel) = cancellation(task) {
        return Phase::Cancelled(cancel);
    }
    match repeats {
        Repeats::Allowed => Phase::Queued { not_before, reason },
        Repeats::Never => Phase::Failed {
            reason: format!("{reason}; nothing ran"),
        },
    }
}

/// Whether its agent ended it because it was told to, or never began it.
fn is_given_up(end: &End) -> bool {
    match end {
        End::Killed | End::Declined { .. } => true,
        End::Interrupted { cause, .. } => *cause == Interruption::EndedByAgent,
        End::Exited { .. }
        | End::Signalled { .. }
        | End::TimedOut
        | End::NotStarted { .. }
        | End::Failed { .. }
        | End::Impossible { .. } => false,
    }
}

/// It has done nothing wrong: it goes on as soon as there is room again.
fn after_preemption(task: &mut Task, attempt: &Attempt, by: TaskId) -> Phase {
    task.preemptions += 1;
    match cancellation(task) {
        Some(cancel) => Phase::Cancelled(cancel),
        None => Phase::Queued {
            not_before: None,
            reason: format!("preempted on {} by task {by}", attempt.agent),
        },
    }
}

/// It may have run, and did not come to an end of its own: no retry is used up, but a task under
/// which several agents were lost is taken for the cause. The first time it goes on at once; one that
/// is interrupted again and again waits longer each time, as a retry does.
fn after_interruption(
    task: &Task,
    attempt: &Attempt,
    repeats: Repeats,
    reason: String,
    step: &Step<'_>,
) -> Phase {
    if let Some(cancel) = cancellation(task) {
        return Phase::Cancelled(cancel);
    }
    if repeats == Repeats::Never {
        return Phase::Unknown {
            attempt: Box::new(attempt.clone()),
            reason,
        };
    }
    if task.lost_agents.len() >= limit::LOST_AGENTS_MAX as usize {
        let agents: Vec<&str> = task.lost_agents.iter().map(AgentId::as_str).collect();
        let reason = format!(
            "{} agents were lost under it ({}); the last: {reason}",
            agents.len(),
            agents.join(", ")
        );
        Phase::DeadLetter { reason }
    } else {
        let again = task.given_back();
        let not_before = (again > 0).then(|| step.now.plus(backoff(task.id, again)));
        Phase::Queued { not_before, reason }
    }
}

/// Counts an agent once, and only where the task could go on to the next one.
fn note_lost_agent(task: &mut Task, agent: &AgentId, repeats: Repeats) {
    let counts = repeats == Repeats::Allowed && cancellation(task).is_none();
    if counts && !task.lost_agents.contains(agent) {
        task.lost_agents.push(agent.clone());
    }
}

/// Killed by its agent: because it was cancelled, else by a mistake that must not hide.
fn after_kill(task: &Task, agent: &AgentId) -> Phase {
    match cancellation(task) {
        Some(cancel) => Phase::Cancelled(cancel),
        None => Phase::Failed {
            reason: format!("agent {agent} killed it unasked"),
        },
    }
}

fn describe(end: &End, agent: &AgentId) -> String {
    match end {
        End::Exited { code } => format!("exited with code {code} on {agent}"),
        End::Signalled { signal } => format!("killed by signal {signal} on {agent}"),
        End::TimedOut => format!("timed out on {agent}"),
        End::Killed => format!("killed by {agent}"),
        End::NotStarted { reason } => format!("could not be started on {agent}: {reason}"),
        End::Failed { reason } => format!("failed on {agent}: {reason}"),
        End::Impossible { reason } => format!("can't be done, as {agent} was told: {reason}"),
        End::Declined { reason } => format!("declined by {agent}: {reason}"),
        End::Interrupted { reason, .. } => format!("interrupted on {agent}: {reason}"),
    }
}
