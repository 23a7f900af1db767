//! The worker against frames, ends and clocks that come in any order.
//!
//! [`Bench`] plays everything around it: it hands in inputs at a time of its choosing and returns
//! the effects. [`starting`] is about what may begin, [`leaders`] about whom it obeys and for how
//! long, [`preempting`] about who gets the place of others, [`reporting`] about verdicts, [`ending`] about cancels and stops, and [`random`] holds
//! thousands of random lives against the rules that must always be true.

mod ending;
mod leaders;
mod preempting;
mod random;
mod reporting;
mod starting;

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{
    Disposition, Epoch, Fence, Generation, Incarnation, Millis, TaskId, TaskSpec, Timestamp,
    Verdict,
};
use wire::v1;
use wire::v1::agent_frame::Body;

use super::{Effect, Ended, Input, Nature, Said, SessionId, Stamp, Worker};
use crate::executor::{Exit, Urgency};
use crate::journal::{Held, Recovered};
use crate::output::Captured;

const C1: SessionId = SessionId(1);
const C2: SessionId = SessionId(2);

fn fence(n: u64) -> Fence {
    Fence {
        task: TaskId(n),
        generation: Generation(1),
        epoch: Epoch(100 + n),
    }
}

fn spec() -> Arc<TaskSpec> {
    let namespace = model::Namespace::new("default").unwrap();
    Arc::new(TaskSpec::process(namespace, vec!["true".into()]))
}

fn ended(exit: Exit) -> Box<Ended> {
    Box::new(Ended {
        exit,
        captured: Captured::default(),
        started_at: Timestamp(1),
        finished_at: Timestamp(2),
    })
}

fn recovered(held: &[Fence], settled: &[Fence]) -> Recovered {
    let interrupted = |fence: &Fence| {
        let reason = "the agent was restarted while it ran".to_owned();
        let outcome = model::Outcome::bare(model::End::Interrupted {
            cause: model::Interruption::AgentDied,
            reason,
        });
        let verdict = Verdict {
            fence: *fence,
            outcome,
        };
        let held = Held {
            begun: Some((1, Timestamp(1))),
            process: None,
            verdict: Some(verdict),
        };
        (*fence, held)
    };
    Recovered {
        incarnation: Incarnation([7; 16]),
        held: held.iter().map(interrupted).collect::<BTreeMap<_, _>>(),
        settled: settled.to_vec(),
    }
}

struct Bench {
    worker: Worker,
    now: Millis,
    /// The term in which controllers speak.
    term: u64,
}

impl Bench {
    fn with(slots: usize, recovered: &Recovered) -> Bench {
        let id = model::AgentId::new("a1").unwrap();
        let asks_here = true;
        let nature = Nature {
            id,
            slots,
            asks_here,
        };
        let worker = Worker::new(nature, recovered);
        Bench {
            worker,
            now: Millis(1_000_000),
            term: 1,
        }
    }

    fn new(slots: usize) -> Bench {
        Bench::with(slots, &recovered(&[], &[]))
    }

    /// Sessions with two controllers, the first of which leads and granted a lease just now.
    fn leased(slots: usize) -> Bench {
        let mut bench = Bench::new(slots);
        bench.open(C1);
        bench.open(C2);
        let effects = bench.lead(C1);
        bench.grant(C1, &effects);
        bench
    }

    fn tell(&mut self, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.worker.handle(self.now, input, &mut effects);
        effects
    }

    fn open(&mut self, session: SessionId) -> Vec<Effect> {
        self.tell(Input::Opened { session })
    }

    fn say(&mut self, session: SessionId, said: Said) -> Vec<Effect> {
        let stamp = Stamp {
            generation: Generation(1),
            term: self.term,
        };
        self.say_as(session, stamp, said)
    }

    fn say_as(&mut self, session: SessionId, stamp: Stamp, said: Said) -> Vec<Effect> {
        self.tell(Input::Said {
            session,
            stamp,
            said,
        })
    }

    fn lead(&mut self, session: SessionId) -> Vec<Effect> {
        self.say(session, Said::Leading)
    }

    /// Acknowledges the renewal among `effects`.
    fn grant(&mut self, session: SessionId, effects: &[Effect]) -> Vec<Effect> {
        let nonce = renewals(effects).pop().expect("it asked for its lease");
        self.say(session, Said::Renewed { nonce })
    }

    fn assign(&mut self, n: u64) -> Vec<Effect> {
        self.assign_spec(n, spec())
    }

    fn assign_spec(&mut self, n: u64, spec: Arc<TaskSpec>) -> Vec<Effect> {
        let said = Said::Assign {
            fence: fence(n),
            number: 1,
            gpus: model::Gpus::new(),
            after: Vec::new(),
            spec,
        };
        self.say(C1, said)
    }

    /// In place of others.
    fn assign_after(&mut self, n: u64, after: &[u64]) -> Vec<Effect> {
        let said = Said::Assign {
            fence: fence(n),
            number: 1,
            gpus: model::Gpus::new(),
            after: after.iter().copied().map(fence).collect(),
            spec: spec(),
        };
        self.say(C1, said)
    }

    /// Assigned, in the journal, and running.
    fn running(&mut self, n: u64) {
        assert_eq!(begins(&self.assign(n)), [fence(n)]);
        let effects = self.tell(Input::Begun(fence(n)));
        assert_eq!(starts(&effects), [fence(n)]);
        self.tell(Input::Started(fence(n)));
    }

    fn ends(&mut self, n: u64, exit: Exit) -> Vec<Effect> {
        let fence = fence(n);
        let ended = ended(exit);
        self.tell(Input::Ended { fence, ended })
    }

    /// Ran, ended, and its verdict is on disk.
    fn reported(&mut self, n: u64) -> Vec<Effect> {
        self.running(n);
        self.ends(n, Exit::Exited(0));
        self.tell(Input::Recorded(fence(n)))
    }

    fn settle(&mut self, n: u64, disposition: Disposition) -> Vec<Effect> {
        let fence = fence(n);
        self.say(C1, Said::Settled { fence, disposition })
    }

    fn pass(&mut self, millis: u64) {
        self.now = Millis(self.now.0 + millis);
    }

    fn tick_after(&mut self, millis: u64) -> Vec<Effect> {
        self.pass(millis);
        self.tell(Input::Tick)
    }
}

fn begins(effects: &[Effect]) -> Vec<Fence> {
    let begin = |effect: &Effect| match effect {
        Effect::Begin { fence, .. } => Some(*fence),
        _ => None,
    };
    effects.iter().filter_map(begin).collect()
}

fn starts(effects: &[Effect]) -> Vec<Fence> {
    let start = |effect: &Effect| match effect {
        Effect::Start(attempt) => Some(attempt.fence),
        _ => None,
    };
    effects.iter().filter_map(start).collect()
}

fn endings(effects: &[Effect]) -> Vec<(Fence, Urgency)> {
    let end = |effect: &Effect| match effect {
        Effect::End { fence, urgency } => Some((*fence, *urgency)),
        _ => None,
    };
    effects.iter().filter_map(end).collect()
}

fn records(effects: &[Effect]) -> Vec<(Fence, model::End)> {
    let record = |effect: &Effect| match effect {
        Effect::Record(verdict) => Some((verdict.fence, verdict.outcome.end.clone())),
        _ => None,
    };
    effects.iter().filter_map(record).collect()
}

fn said(effects: &[Effect]) -> Vec<(SessionId, &Body)> {
    let say = |effect| match effect {
        &Effect::Say { session, ref body } => Some((session, body)),
        _ => None,
    };
    effects.iter().filter_map(say).collect()
}

fn renewals(effects: &[Effect]) -> Vec<u64> {
    let nonce = |(_, body): (SessionId, &Body)| match body {
        Body::Renew(v1::Renew { nonce }) => Some(*nonce),
        _ => None,
    };
    said(effects).into_iter().filter_map(nonce).collect()
}

/// Verdicts that are said, and to whom.
fn verdicts(effects: &[Effect]) -> Vec<(SessionId, Fence)> {
    let verdict = |(session, body): (SessionId, &Body)| match body {
        Body::Verdict(verdict) => Some((session, verdict.fence?.into())),
        _ => None,
    };
    said(effects).into_iter().filter_map(verdict).collect()
}

/// What the agent says that it knows of.
fn known(effects: &[Effect]) -> Option<(SessionId, Vec<Fence>)> {
    said(effects)
        .into_iter()
        .find_map(|(session, body)| match body {
            Body::Known(known) => Some((
                session,
                known.attempts.iter().map(|f| (*f).into()).collect(),
            )),
            _ => None,
        })
}
