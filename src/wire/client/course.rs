//! The course of one request over the controllers: what it met so far, and so what is to be done next.
//! It sends nothing and waits for nothing itself.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::backoff::Backoff;
use super::error::{Ended, Error, Outcome};
use super::met::Met;
use super::peers::Peers;
use super::{Effect, Settings, Terms};
use crate::status::{Code, Failure, Reaction};

/// No attempt begins with less time than this: it would rather be cut off, its outcome unknown, than
/// answered.
const SHORTEST_ATTEMPT: Duration = Duration::from_millis(100);

pub(super) struct Course<'a> {
    terms: Terms<'a>,
    settings: Settings,
    begun: Instant,
    deadline: Instant,
    attempts: u32,
    /// The last attempt that may have done it, as it ended.
    perhaps_done: Option<Failure>,
    /// The controller whose turn it is.
    at: String,
    /// Those that had their turn in this round.
    tried: BTreeSet<String>,
    met: Met,
    backoff: Backoff,
}

impl<'a> Course<'a> {
    pub(super) fn new(terms: Terms<'a>, settings: Settings, first: String) -> Self {
        let begun = Instant::now();
        Self {
            terms,
            settings,
            begun,
            deadline: begun + settings.patience + terms.hold,
            attempts: 0,
            perhaps_done: None,
            at: first,
            tried: BTreeSet::new(),
            met: Met::default(),
            backoff: Backoff::default(),
        }
    }

    pub(super) fn address(&self) -> &str {
        &self.at
    }

    pub(super) fn attempt_limit(&self) -> Duration {
        let left = self.deadline.saturating_duration_since(Instant::now());
        left.min(self.settings.attempt + self.terms.hold)
    }

    /// After a failed attempt: how long to wait before the next one, at the controller that
    /// [`Course::address`] names then, or the error that this request ends with.
    pub(super) fn after(&mut self, ended: Ended, peers: &mut Peers) -> Result<Duration, Error> {
        self.attempts += 1;
        let failure = ended.failure().clone();
        let reaction = failure.code.reaction();
        if matches!(reaction, Reaction::Unknown | Reaction::Fatal) {
            self.perhaps_done = Some(failure.clone());
        }
        let may_go_on = match reaction {
            Reaction::Unavailable => true,
            Reaction::Unknown => self.terms.effect != Effect::Once,
            // Another controller's certificate may be a good one.
            Reaction::Rejected => failure.code == Code::NotTrusted,
            // One controller's own trouble; another may have none.
            Reaction::Fatal => self.terms.effect != Effect::Once,
        };
        if !may_go_on {
            return Err(self.error(failure));
        }
        let leader = failure.leader.clone();
        self.met.note(&self.at, ended);
        let met = self.met.in_all().unwrap_or(failure);
        self.tried.insert(self.at.clone());
        let next = peers.after(&self.at, leader.as_deref(), &self.tried);
        let round_is_over = self.tried.contains(&next);
        let pause = if round_is_over {
            self.backoff.next()
        } else {
            Duration::ZERO
        };
        // That all certificates are refused does not mend itself, nor does what is broken, nor a disk that is full.
        let lasts = matches!(met.code, Code::NotTrusted | Code::Internal | Code::NoRoom);
        let hopeless = round_is_over && lasts;
        if hopeless || Instant::now() + pause + SHORTEST_ATTEMPT >= self.deadline {
            return Err(self.error(met));
        }
        self.at = next;
        if round_is_over {
            self.tried.clear();
        }
        Ok(pause)
    }

    fn error(&self, mut failure: Failure) -> Error {
        let unknown = self.outcome_after(&failure) == Outcome::Unknown;
        if unknown {
            failure = self.open(failure);
        }
        if self.attempts > 1 {
            let took = self.begun.elapsed().as_secs_f32();
            failure.message = format!("{} ({} tries, {took:.1} s)", failure.message, self.attempts);
        }
        if failure.request_id.is_none() {
            failure.request_id = self.terms.request_id.map(str::to_owned);
        }
        if unknown || failure.code == Code::OutcomeUnknown {
            failure.hint = Some(self.terms.hint().to_owned());
        }
        Error {
            failure,
            outcome: if unknown {
                Outcome::Unknown
            } else {
                Outcome::Known
            },
        }
    }

    fn outcome_after(&self, last: &Failure) -> Outcome {
        // A rejection is of the state as it is, and would have found what an earlier attempt did.
        let settled = last.code.reaction() == Reaction::Rejected && last.code != Code::NotTrusted;
        if self.perhaps_done.is_some() && !settled && self.terms.effect != Effect::None {
            Outcome::Unknown
        } else {
            Outcome::Known
        }
    }

    /// That nobody could be reached in the end says nothing about what an earlier attempt did, and must
    /// not read as if nothing had been sent.
    fn open(&self, last: Failure) -> Failure {
        let nobody = matches!(last.code, Code::Unreachable | Code::NotTrusted);
        match &self.perhaps_done {
            Some(earlier) if nobody => Failure {
                code: Code::OutcomeUnknown,
                message: format!("{}, and then: {}", earlier.message, last.message),
                ..last
            },
            Some(_) | None => last,
        }
    }
}

impl Terms<'_> {
    /// The next step where nobody knows what became of the request.
    pub(super) fn hint(&self) -> &'static str {
        match (self.effect, self.request_id) {
            (Effect::None, _) => "ask again",
            (Effect::Repeatable, None) => "it may have happened; to send it again is safe",
            (Effect::Repeatable, Some(_)) | (Effect::Once, _) => Code::IT_MAY_HAVE_HAPPENED,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_kit::Pki;
    use crate::transport::Timers;

    #[tokio::test]
    async fn a_last_round_that_is_cut_short_does_not_hide_what_the_ones_before_met() {
        let addresses = ["h1:1", "h2:1", "h3:1"].map(str::to_owned);
        let tls = Pki::new().anonymous();
        let mut peers = Peers::new(&addresses, tls, Timers::default()).unwrap();
        let mut course = Course::new(Terms::READ, Settings::default(), peers.preferred());
        let refused = |at: &str| {
            let message = format!("cannot reach {at}: connection refused");
            Ended::Unanswered(Failure::new(Code::Unreachable, message))
        };
        let nobody_leads = Ended::Answered(Failure::new(Code::NoLeader, "nobody leads"));
        for ended in [refused("h1:1"), nobody_leads, refused("h3:1")] {
            course.after(ended, &mut peers).unwrap();
        }
        assert_eq!(course.address(), "h1:1", "the next round begins");
        course.deadline = Instant::now();
        let error = course.after(refused("h1:1"), &mut peers).unwrap_err();
        assert_eq!(error.code(), Code::NoLeader);
        let words = "nobody leads: 1 of 3 controllers answers, h1:1 and h3:1 do not (4 tries";
        assert!(error.failure.message.starts_with(words), "{error}");
    }
}
