//! The life of an attempt on this agent.

use std::sync::Arc;

use model::{Disposition, End, Fence, Gpus, Interruption, Millis, Outcome, TaskSpec, Verdict};
use mutant::Mutant;
use wire::v1;
use wire::v1::agent_frame::Body;

use crate::executor::{self, Exit, Urgency};
use crate::output::Fate;
use crate::worker::{Effect, Ended, RESEND, SETTLED_MAX, Stage, WAITING_MAX, Worker};

/// SIGKILL.
const KILL: i32 = 9;

#[derive(Debug)]
pub(super) struct Attempt {
    pub number: u32,
    /// Its GPUs, by their places among the agent's.
    pub gpus: Gpus,
    /// Attempts whose places it has got: it begins once they have ended.
    pub after: Vec<Fence>,
    pub phase: Phase,
}

#[derive(Debug)]
pub(super) enum Phase {
    /// For a slot, or for a lease.
    Waiting { spec: Arc<TaskSpec> },
    /// For the journal.
    Beginning {
        spec: Arc<TaskSpec>,
        ending: Option<Ending>,
    },
    Running {
        ending: Option<Ending>,
        urgency: Urgency,
        /// It is a question to a model.
        asks: bool,
    },
    /// For the journal, again.
    Recording(Box<Verdict>),
    /// For the cluster to settle it.
    Reporting {
        verdict: Box<Verdict>,
        sent: Option<Millis>,
    },
}

/// Why the agent ends an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Cancelled,
    Stale,
    LeaseLost,
    Stopping,
    Drained,
    Recalled,
    Preempted,
}

impl Ending {
    fn in_words(self) -> &'static str {
        match self {
            Ending::Cancelled => "it was cancelled",
            Ending::Stale => "the cluster had given it up",
            Ending::LeaseLost => "the agent's lease ran out: it could not reach a leader",
            Ending::Stopping => "the agent was stopped",
            Ending::Drained => "the agent is being drained",
            Ending::Recalled => "it had not begun, and was asked back",
            Ending::Preempted => "another task got its place",
        }
    }

    /// The end of an attempt of which no instruction ran.
    pub fn before_it_ran(self) -> Outcome {
        Outcome::bare(match self {
            Ending::Cancelled => End::Killed,
            Ending::Stale
            | Ending::LeaseLost
            | Ending::Stopping
            | Ending::Drained
            | Ending::Recalled
            | Ending::Preempted => End::Declined {
                reason: self.in_words().to_owned(),
            },
        })
    }

    /// The end of an attempt that was running.
    fn while_it_ran(self) -> End {
        match self {
            Ending::Cancelled => End::Killed,
            Ending::Stale
            | Ending::LeaseLost
            | Ending::Stopping
            | Ending::Drained
            | Ending::Recalled
            | Ending::Preempted => End::Interrupted {
                cause: Interruption::EndedByAgent,
                reason: self.in_words().to_owned(),
            },
        }
    }
}

impl Attempt {
    pub fn to_report(verdict: Verdict) -> Attempt {
        let phase = Phase::Reporting {
            verdict: Box::new(verdict),
            sent: None,
        };
        Attempt {
            number: 0,
            gpus: Gpus::new(),
            after: Vec::new(),
            phase,
        }
    }

    /// Its process runs, or may yet.
    fn has_not_ended(&self) -> bool {
        match self.phase {
            Phase::Waiting { .. } | Phase::Beginning { .. } | Phase::Running { .. } => true,
            Phase::Recording(_) | Phase::Reporting { .. } => false,
        }
    }

    /// Whether a model answers it now.
    pub fn asks(&self) -> bool {
        matches!(self.phase, Phase::Running { asks: true, .. })
    }

    pub fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running { .. })
    }
}

impl Worker {
    pub(super) fn on_assign(&mut self, fence: Fence, attempt: Attempt, out: &mut Vec<Effect>) {
        // Known in whatever state, or settled: it never starts a second time.
        if self.attempts.contains_key(&fence) || self.settled.contains(&fence) {
            tracing::debug!(%fence, "was assigned an attempt that is known");
            return;
        }
        out.push(Effect::Open(fence));
        self.attempts.insert(fence, attempt);
        if self.waiting.len() >= WAITING_MAX + self.nature.slots {
            self.decline(fence, "more attempts than it has room for", out);
            return;
        }
        self.enqueue(fence);
        if !self.takes_work() {
            self.decline_waiting(out);
        }
    }

    /// After each input: what was waited for may have come about by any of them.
    pub(super) fn start_waiting(&mut self, now: Millis, out: &mut Vec<Effect>) {
        while self.takes_work()
            && self.busy < self.nature.slots
            && self.lease.holds(now)
            && let Some(place) = self.next_waiting()
            && let Some(fence) = self.waiting.remove(place)
        {
            let Some(attempt) = self.attempts.get_mut(&fence) else {
                continue;
            };
            if let Phase::Waiting { spec } = &attempt.phase {
                let spec = Arc::clone(spec);
                attempt.phase = Phase::Beginning { spec, ending: None };
                self.busy += 1;
                out.push(Effect::Begin {
                    fence,
                    number: attempt.number,
                });
                if mutant::is(Mutant::StartBeforeJournal) {
                    self.on_begun(now, fence, out);
                }
            }
        }
    }

    /// Behind those that came before, but for one that has got the place of others: the place is not for who was sent ahead.
    fn enqueue(&mut self, fence: Fence) {
        let waiting = self.waiting.iter();
        let place = match self.has_a_place(fence) {
            true => waiting.take_while(|it| self.has_a_place(**it)).count(),
            false => waiting.len(),
        };
        self.waiting.insert(place, fence);
    }

    /// The first that waits for nothing but a slot.
    fn next_waiting(&self) -> Option<usize> {
        let awaits =
            |fence: &Fence| self.awaits_an_end(*fence) && !mutant::is(Mutant::VictimNotAwaited);
        self.waiting.iter().position(|fence| !awaits(fence))
    }

    /// Whether something has not ended yet that it begins after.
    fn awaits_an_end(&self, fence: Fence) -> bool {
        let goes_on = |fence: &Fence| {
            let attempt = self.attempts.get(fence);
            attempt.is_some_and(Attempt::has_not_ended)
        };
        let attempt = self.attempts.get(&fence);
        attempt.is_some_and(|attempt| attempt.after.iter().any(goes_on))
    }

    /// Whether it was to get the place of others.
    fn has_a_place(&self, fence: Fence) -> bool {
        let attempt = self.attempts.get(&fence);
        attempt.is_some_and(|attempt| !attempt.after.is_empty())
    }

    /// What was to end for them has ended, and none of it had a slot to give: they would wait for whoever has one.
    pub(super) fn give_back_passed_over(&mut self, out: &mut Vec<Effect>) {
        if self.busy < self.nature.slots {
            return;
        }
        let waiting = self.waiting.iter().copied();
        let passed_over = waiting.filter(|it| self.has_a_place(*it) && !self.awaits_an_end(*it));
        for fence in passed_over.collect::<Vec<Fence>>() {
            self.waiting.retain(|waiting| *waiting != fence);
            self.decline(fence, "the place that it was to get was not there", out);
        }
    }

    pub(super) fn on_begun(&mut self, now: Millis, fence: Fence, out: &mut Vec<Effect>) {
        let lease_holds = self.lease.holds(now);
        let Some(attempt) = self.attempts.get_mut(&fence) else {
            return;
        };
        let Phase::Beginning { spec, ending } = &attempt.phase else {
            return;
        };
        let ending = ending.or((!lease_holds).then_some(Ending::LeaseLost));
        if let Some(ending) = ending {
            self.free_slot();
            return self.record(fence, ending.before_it_ran(), out);
        }
        let spec = Arc::clone(spec);
        attempt.phase = Phase::Running {
            ending: None,
            urgency: Urgency::None,
            asks: spec.inference.is_some(),
        };
        self.asked |= spec.inference.is_some();
        out.push(Effect::Start(executor::Attempt {
            fence,
            number: attempt.number,
            gpus: attempt.gpus.clone(),
            spec,
            files: None,
        }));
    }

    pub(super) fn on_started(&mut self, fence: Fence) {
        self.trouble.forget();
        self.fresh.push(fence);
    }

    /// Only of those that still run at the next tick: at full speed attempts are shorter, and to tell
    /// every controller of each would cost more than they do.
    pub(super) fn tell_started(&mut self, out: &mut Vec<Effect>) {
        for fence in std::mem::take(&mut self.fresh) {
            if self.attempts.get(&fence).is_some_and(Attempt::is_running) {
                let fence = Some(fence.into());
                self.say_all(&Body::Started(v1::Started { fence }), out);
            }
        }
    }

    pub(super) fn on_ended(
        &mut self,
        now: Millis,
        fence: Fence,
        ended: Ended,
        out: &mut Vec<Effect>,
    ) {
        let Some(attempt) = self.attempts.get(&fence) else {
            return;
        };
        let Phase::Running { ending, .. } = attempt.phase else {
            return;
        };
        let Ended {
            exit,
            captured,
            started_at,
            finished_at,
        } = ended;
        let usage = match exit {
            Exit::Answered(usage) => usage,
            _ => None,
        };
        let end = match (exit, ending) {
            (Exit::Exited(code), _) => End::Exited { code },
            (Exit::Answered(_), _) => End::Exited { code: 0 },
            (Exit::Failed(reason), _) => End::Failed { reason },
            (Exit::Impossible(reason), _) => End::Impossible { reason },
            // By the agent, or by its guard, which may be faster where the lease is over.
            (Exit::Signalled(KILL), Some(ending)) => ending.while_it_ran(),
            (Exit::Signalled(signal), _) => End::Signalled { signal },
            (Exit::TimedOut, _) => End::TimedOut,
            (Exit::NotStarted(reason), _) => End::NotStarted { reason },
            (Exit::Unable(reason), _) => {
                self.pause(now, &reason, out);
                End::Declined { reason }
            }
            (Exit::Unfetched(reason), None) => End::Declined { reason },
            (Exit::Prevented | Exit::Unfetched(_), Some(ending)) => ending.before_it_ran().end,
            (Exit::Prevented, None) => End::Declined {
                reason: "the agent did not get to start it".to_owned(),
            },
            (Exit::Lost(reason), _) => {
                // It would be started again, here and at once, and be lost again.
                self.pause(now, &reason, out);
                End::Interrupted {
                    cause: Interruption::EndedByAgent,
                    reason,
                }
            }
            (Exit::Stopped, Some(ending)) => ending.while_it_ran(),
            (Exit::Stopped, None) => End::Interrupted {
                cause: Interruption::EndedByAgent,
                reason: "the agent ended it by itself".to_owned(),
            },
        };
        let [stdout, stderr] = captured.tails;
        let [stdout_bytes, stderr_bytes] = captured.totals;
        let outcome = Outcome {
            end,
            stdout,
            stderr,
            stdout_bytes,
            stderr_bytes,
            started_at,
            finished_at,
            usage,
            blobs: Box::default(),
        };
        self.free_slot();
        self.record(fence, outcome, out);
    }

    /// Writes the verdict down; only then is it reported.
    pub(super) fn record(&mut self, fence: Fence, outcome: Outcome, out: &mut Vec<Effect>) {
        let verdict = Box::new(Verdict { fence, outcome });
        out.push(Effect::Record(verdict.clone()));
        let attempt = self
            .attempts
            .entry(fence)
            .or_insert_with(|| Attempt::to_report((*verdict).clone()));
        attempt.phase = Phase::Recording(verdict);
    }

    pub(super) fn on_recorded(&mut self, now: Millis, fence: Fence, out: &mut Vec<Effect>) {
        let Some(attempt) = self.attempts.get_mut(&fence) else {
            return;
        };
        if let Phase::Recording(verdict) = &mut attempt.phase {
            let verdict = verdict.clone();
            attempt.phase = Phase::Reporting {
                verdict,
                sent: None,
            };
            self.report_due(now, fence, out);
        }
    }

    /// Sends every verdict that waits for an acknowledgement for too long, or was never sent.
    pub(super) fn report_all(&mut self, now: Millis, out: &mut Vec<Effect>) {
        if self.leader.is_some() {
            let held: Vec<Fence> = self.attempts.keys().copied().collect();
            held.into_iter()
                .for_each(|fence| self.report_due(now, fence, out));
        }
    }

    fn report_due(&mut self, now: Millis, fence: Fence, out: &mut Vec<Effect>) {
        let Some(session) = self.leader else { return };
        let Some(attempt) = self.attempts.get_mut(&fence) else {
            return;
        };
        if let Phase::Reporting { verdict, sent } = &mut attempt.phase
            && sent.is_none_or(|at| now.0 >= at.0.saturating_add(RESEND.0))
        {
            *sent = Some(now);
            let body = Body::Verdict(v1::Verdict::from(&**verdict));
            out.push(Effect::Say { session, body });
            if mutant::is(Mutant::ReportForgotten) {
                self.attempts.remove(&fence);
            }
        }
    }

    /// A new leader has heard nothing yet.
    pub(super) fn forget_sending(&mut self) {
        for attempt in self.attempts.values_mut() {
            if let Phase::Reporting { sent, .. } = &mut attempt.phase {
                *sent = None;
            }
        }
    }

    pub(super) fn on_settled(
        &mut self,
        fence: Fence,
        disposition: Disposition,
        out: &mut Vec<Effect>,
    ) {
        let Some(attempt) = self.attempts.get(&fence) else {
            return;
        };
        let Phase::Reporting { verdict, .. } = &attempt.phase else {
            tracing::warn!(%fence, ?disposition, "was told of a verdict that it never sent");
            return;
        };
        let kept_there = match disposition {
            Disposition::Accepted | Disposition::Duplicate => !verdict.outcome.truncated(),
            Disposition::Stale | Disposition::UnknownTask => false,
        };
        let fate = if kept_there { Fate::Drop } else { Fate::Keep };
        tracing::debug!(%fence, ?disposition, "settled an attempt");
        self.attempts.remove(&fence);
        self.remember(fence);
        out.push(Effect::Settle { fence, fate });
    }

    /// Ends it, whether it has come here or not: one that never came counts as ended before it ran, so that it won't start if
    /// it still comes.
    pub(super) fn on_end(&mut self, fence: Fence, ending: Ending, out: &mut Vec<Effect>) {
        if self.attempts.contains_key(&fence) {
            self.end_attempt(fence, ending, out);
        } else if !self.settled.contains(&fence) {
            self.record(fence, ending.before_it_ran(), out);
        }
    }

    /// What has begun goes on; only this agent knows what has.
    pub(super) fn on_recall(&mut self, fence: Fence, out: &mut Vec<Effect>) {
        let attempt = self.attempts.get(&fence);
        if attempt.is_some_and(|attempt| matches!(attempt.phase, Phase::Waiting { .. })) {
            self.end_attempt(fence, Ending::Recalled, out);
        }
    }

    pub(super) fn decline_waiting(&mut self, out: &mut Vec<Effect>) {
        let reason = match self.stage {
            Stage::Working => "the agent can't start anything now",
            Stage::Stopping => "the agent is stopping",
        };
        for fence in std::mem::take(&mut self.waiting) {
            self.decline(fence, reason, out);
        }
    }

    fn decline(&mut self, fence: Fence, reason: &str, out: &mut Vec<Effect>) {
        self.record(
            fence,
            Outcome::bare(End::Declined {
                reason: reason.to_owned(),
            }),
            out,
        );
    }

    fn free_slot(&mut self) {
        self.busy = self.busy.saturating_sub(1);
    }

    pub(super) fn remember(&mut self, fence: Fence) {
        if mutant::is(Mutant::SettledForgotten) {
            return;
        }
        if self.settled.insert(fence) {
            self.settled_order.push_back(fence);
        }
        while self.settled_order.len() > SETTLED_MAX {
            if let Some(oldest) = self.settled_order.pop_front() {
                self.settled.remove(&oldest);
            }
        }
    }
}
