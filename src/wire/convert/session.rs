//! Outcomes and dispositions: what agents report, and what became of it.

use model::{End, Interruption, Timestamp};

use super::{Malformed, fence};
use crate::v1;
use crate::v1::outcome::End as WireEnd;

impl From<&model::Verdict> for v1::Verdict {
    fn from(verdict: &model::Verdict) -> v1::Verdict {
        v1::Verdict {
            fence: Some(verdict.fence.into()),
            outcome: Some(v1::Outcome::from(&verdict.outcome)),
        }
    }
}

impl TryFrom<v1::Verdict> for model::Verdict {
    type Error = Malformed;

    fn try_from(verdict: v1::Verdict) -> Result<model::Verdict, Malformed> {
        let outcome = verdict
            .outcome
            .ok_or_else(|| Malformed::missing("the outcome"))?;
        Ok(model::Verdict {
            fence: fence(verdict.fence)?,
            outcome: outcome.try_into()?,
        })
    }
}

impl From<&model::Outcome> for v1::Outcome {
    fn from(outcome: &model::Outcome) -> v1::Outcome {
        v1::Outcome {
            end: Some(end_out(&outcome.end)),
            stdout: outcome.stdout.clone().into(),
            stderr: outcome.stderr.clone().into(),
            stdout_bytes: outcome.stdout_bytes,
            stderr_bytes: outcome.stderr_bytes,
            started_at: outcome.started_at.0,
            finished_at: outcome.finished_at.0,
            usage: outcome.usage.map(v1::Usage::from),
        }
    }
}

impl TryFrom<v1::Outcome> for model::Outcome {
    type Error = Malformed;

    fn try_from(outcome: v1::Outcome) -> Result<model::Outcome, Malformed> {
        let end = outcome.end.ok_or_else(|| Malformed::missing("the end"))?;
        Ok(model::Outcome {
            end: end_in(end)?,
            stdout: outcome.stdout.into(),
            stderr: outcome.stderr.into(),
            stdout_bytes: outcome.stdout_bytes,
            stderr_bytes: outcome.stderr_bytes,
            started_at: Timestamp(outcome.started_at),
            finished_at: Timestamp(outcome.finished_at),
            usage: outcome.usage.map(model::Usage::from),
            // Made by the controller that takes it to the log.
            blobs: Box::default(),
        })
    }
}

fn end_out(end: &End) -> WireEnd {
    match end {
        End::Exited { code } => WireEnd::Exited(v1::Exited {
            code: Some(*code),
            signal: None,
        }),
        End::Signalled { signal } => WireEnd::Exited(v1::Exited {
            code: None,
            signal: Some(*signal),
        }),
        End::TimedOut => WireEnd::TimedOut(v1::TimedOut {}),
        End::Killed => WireEnd::Killed(v1::Killed {
            reason: String::new(),
        }),
        End::NotStarted { reason } => WireEnd::NotStarted(v1::NotStarted {
            reason: reason.clone(),
        }),
        End::Failed { reason } => WireEnd::Failed(v1::Failed {
            reason: reason.clone(),
        }),
        End::Impossible { reason } => WireEnd::Impossible(v1::Impossible {
            reason: reason.clone(),
        }),
        End::Declined { reason } => WireEnd::Declined(v1::Declined {
            reason: reason.clone(),
        }),
        End::Interrupted { cause, reason } => WireEnd::Interrupted(v1::Interrupted {
            reason: reason.clone(),
            cause: cause_out(*cause).into(),
        }),
    }
}

fn end_in(end: WireEnd) -> Result<End, Malformed> {
    Ok(match end {
        WireEnd::Exited(v1::Exited {
            code: Some(code),
            signal: None,
        }) => End::Exited { code },
        WireEnd::Exited(v1::Exited {
            code: None,
            signal: Some(signal),
        }) => End::Signalled { signal },
        WireEnd::Exited(_) => {
            return Err(Malformed(
                "an exit has a code or a signal, and not both".into(),
            ));
        }
        WireEnd::TimedOut(_) => End::TimedOut,
        WireEnd::Killed(_) => End::Killed,
        WireEnd::NotStarted(v1::NotStarted { reason }) => End::NotStarted { reason },
        WireEnd::Failed(v1::Failed { reason }) => End::Failed { reason },
        WireEnd::Impossible(v1::Impossible { reason }) => End::Impossible { reason },
        WireEnd::Declined(v1::Declined { reason }) => End::Declined { reason },
        WireEnd::Interrupted(interrupted) => End::Interrupted {
            cause: cause_in(interrupted.cause()),
            reason: interrupted.reason,
        },
    })
}

fn cause_out(cause: Interruption) -> v1::InterruptionCause {
    match cause {
        Interruption::AgentDied => v1::InterruptionCause::AgentDied,
        Interruption::EndedByAgent => v1::InterruptionCause::EndedByAgent,
    }
}

/// What is not said counts against the task: else one that kills its agents could go on for ever.
fn cause_in(cause: v1::InterruptionCause) -> Interruption {
    match cause {
        v1::InterruptionCause::Unspecified | v1::InterruptionCause::AgentDied => {
            Interruption::AgentDied
        }
        v1::InterruptionCause::EndedByAgent => Interruption::EndedByAgent,
    }
}

impl From<model::Usage> for v1::Usage {
    fn from(usage: model::Usage) -> v1::Usage {
        v1::Usage {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
        }
    }
}

impl From<v1::Usage> for model::Usage {
    fn from(usage: v1::Usage) -> model::Usage {
        model::Usage {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
        }
    }
}

impl From<model::Disposition> for v1::Disposition {
    fn from(disposition: model::Disposition) -> v1::Disposition {
        match disposition {
            model::Disposition::Accepted => v1::Disposition::Accepted,
            model::Disposition::Duplicate => v1::Disposition::Duplicate,
            model::Disposition::Stale => v1::Disposition::Stale,
            model::Disposition::UnknownTask => v1::Disposition::UnknownTask,
        }
    }
}
