//! Random lives of a worker, held against the rules that make it safe.
//!
//! A life is a list of numbers; each becomes one thing that happens next: some that the worker asked
//! for (a record is on disk, a process ended), some that it did not (orders, elections, silence,
//! lost sessions, a restart from what was in the journal). The judge believes nothing that the
//! worker says about itself: it keeps its own books from inputs and effects alone.

use std::collections::{BTreeMap, BTreeSet};

use model::{Disposition, Fence, Millis};
use proptest::prelude::*;
use wire::v1;
use wire::v1::agent_frame::Body;

use super::{Bench, C1, C2, fence, recovered, spec};
use crate::executor::{Exit, Urgency};
use crate::lease;
use crate::worker::{Effect, Input, Said, SessionId};

const SLOTS: usize = 2;
const TASKS: u64 = 6;

/// What a process has to do next, as the shell around the worker knows it.
#[derive(Default)]
struct Judge {
    /// Waiting for the journal, and in it.
    beginning: BTreeSet<Fence>,
    begun: BTreeSet<Fence>,
    recording: BTreeSet<Fence>,
    recorded: BTreeSet<Fence>,
    settled: BTreeSet<Fence>,
    /// In this life, and how urgently each was told to end.
    running: BTreeMap<Fence, Urgency>,
    /// The worker hears just now that this one ended, or knows it.
    ended: Option<Fence>,
    /// In this life, with what has to end before it begins.
    assigned: BTreeSet<Fence>,
    after: BTreeMap<Fence, Vec<Fence>>,
    /// In all lives.
    ever_started: BTreeSet<Fence>,
    leader: Option<SessionId>,
    sent: BTreeMap<u64, Millis>,
    until: Option<Millis>,
}

impl Judge {
    fn holds(&self, now: Millis) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    fn see(&mut self, now: Millis, effects: &[Effect]) {
        let lost = self.until.is_some() && !self.holds(now);
        for effect in effects {
            match effect {
                Effect::Say { session, body } => {
                    let urgent = self.running.values().all(|told| *told == Urgency::AtOnce);
                    assert!(!lost || urgent, "spoke before it ended everything");
                    self.hear(now, *session, body);
                }
                Effect::Begin { fence, .. } => {
                    assert!(self.holds(now), "began without a lease");
                    assert!(!self.begun.contains(fence), "began {fence} twice");
                    let after = self.after.get(fence).into_iter().flatten();
                    let ended = |it: &Fence| {
                        let runs = self.running.contains_key(it) && self.ended != Some(*it);
                        !runs && !self.beginning.contains(it)
                    };
                    assert!(
                        after.copied().all(|it| ended(&it)),
                        "began {fence} too early"
                    );
                    assert!(self.beginning.insert(*fence));
                }
                Effect::Start(attempt) => {
                    let fence = attempt.fence;
                    assert!(self.begun.contains(&fence), "started before it was on disk");
                    assert!(self.holds(now), "started without a lease");
                    assert!(self.ever_started.insert(fence), "started {fence} twice");
                    self.running.insert(fence, Urgency::None);
                    assert!(self.running.len() <= SLOTS, "over its slots");
                }
                Effect::End { fence, urgency } => {
                    let told = self
                        .running
                        .get_mut(fence)
                        .expect("only what runs is ended");
                    assert!(*told < *urgency);
                    *told = *urgency;
                }
                Effect::Record(verdict) => {
                    assert!(!self.recorded.contains(&verdict.fence), "two verdicts");
                    assert!(self.recording.insert(verdict.fence), "two verdicts");
                }
                Effect::Settle { fence, .. } => {
                    assert!(
                        self.recorded.contains(fence),
                        "forgot what it never reported"
                    );
                    self.settled.insert(*fence);
                }
                Effect::Open(_) | Effect::Leased { .. } | Effect::SetBackends(_) => {}
            }
        }
        if lost {
            self.until = None;
            let spared = self.running.values().any(|told| *told != Urgency::AtOnce);
            assert!(!spared, "something runs on without a lease");
        }
    }

    fn hear(&mut self, now: Millis, session: SessionId, body: &Body) {
        match body {
            Body::Verdict(verdict) => {
                let fence: Fence = verdict.fence.unwrap().into();
                assert!(self.recorded.contains(&fence), "said before it was on disk");
                assert!(!self.settled.contains(&fence), "said after it was settled");
                assert_eq!(self.leader, Some(session), "said to who does not lead");
            }
            Body::Renew(v1::Renew { nonce }) => {
                assert_eq!(self.leader, Some(session));
                self.sent.insert(*nonce, now);
            }
            Body::Known(known) => {
                let told: BTreeSet<Fence> = known.attempts.iter().map(|f| (*f).into()).collect();
                let open = self.begun.union(&self.recorded).copied();
                let open: BTreeSet<Fence> = open.filter(|f| !self.settled.contains(f)).collect();
                assert!(told.is_superset(&open), "hid what it holds");
                assert!(told.is_disjoint(&self.settled));
            }
            Body::Hello(_)
            | Body::Status(_)
            | Body::Started(_)
            | Body::Output(_)
            | Body::Backends(_) => {}
        }
    }
}

struct Life {
    bench: Bench,
    judge: Judge,
}

impl Life {
    fn new() -> Life {
        let mut life = Life {
            bench: Bench::new(SLOTS),
            judge: Judge::default(),
        };
        life.tell(Input::Opened { session: C1 });
        life.tell(Input::Opened { session: C2 });
        life
    }

    fn tell(&mut self, input: Input) {
        let effects = self.bench.tell(input);
        self.judge.see(self.bench.now, &effects);
    }

    fn say(&mut self, session: SessionId, said: Said) {
        let effects = self.bench.say(session, said);
        self.judge.see(self.bench.now, &effects);
    }

    /// One of a few, by a random number.
    fn pick<T: Copy>(from: impl IntoIterator<Item = T>, n: u64) -> Option<T> {
        let all: Vec<T> = from.into_iter().collect();
        let at = usize::try_from(n).unwrap().checked_rem(all.len())?;
        Some(all[at])
    }

    fn happen(&mut self, what: u8, n: u64) {
        let leader = self.judge.leader;
        let fence = fence(n % TASKS);
        match what {
            0..=3 => {
                let said = Said::Assign {
                    fence,
                    number: 1,
                    gpus: model::Gpus::new(),
                    after: self.after(fence, n),
                    spec: spec(),
                };
                self.say(leader.unwrap_or(C1), said);
            }
            4 | 5 => {
                let said = match (what, n / TASKS % 3) {
                    (4, 0) => Said::Cancel { fence },
                    (4, 1) => Said::Evict { fence },
                    (_, 0) => Said::Stale { fence },
                    (_, 1) => Said::Recall { fence },
                    _ => Said::Preempt { fence },
                };
                self.say(leader.unwrap_or(C2), said);
            }
            6 | 7 => self.renewed(n),
            8 | 9 => {
                if let Some(fence) = Life::pick(self.judge.recorded.clone(), n) {
                    let disposition = Disposition::Accepted;
                    self.say(leader.unwrap_or(C1), Said::Settled { fence, disposition });
                }
            }
            10 | 11 => {
                if let Some(fence) = Life::pick(self.judge.beginning.clone(), n) {
                    self.judge.beginning.remove(&fence);
                    self.judge.begun.insert(fence);
                    self.tell(Input::Begun(fence));
                }
            }
            12 | 13 => {
                if let Some(fence) = Life::pick(self.judge.recording.clone(), n) {
                    self.judge.recording.remove(&fence);
                    self.judge.recorded.insert(fence);
                    self.tell(Input::Recorded(fence));
                }
            }
            14 | 15 => {
                if let Some(fence) = Life::pick(self.judge.running.clone().into_keys(), n) {
                    let exit = if n.is_multiple_of(2) {
                        Exit::Exited(0)
                    } else {
                        Exit::Stopped
                    };
                    let ended = super::ended(exit);
                    self.judge.ended = Some(fence);
                    self.tell(Input::Ended { fence, ended });
                    self.judge.running.remove(&fence);
                }
            }
            16 => self.elect(if n.is_multiple_of(2) { C1 } else { C2 }),
            17 => self.session_lost(if n.is_multiple_of(2) { C1 } else { C2 }),
            18 => self.bench.pass(n % 15_000),
            19 => self.restart(),
            _ => {
                self.bench.pass(n % 1_000);
                self.tell(Input::Tick);
            }
        }
    }

    /// Some get the place of another, which has to end first; of the first time that it is said this holds.
    fn after(&mut self, fence: Fence, n: u64) -> Vec<Fence> {
        let victim = super::fence(n / TASKS % TASKS);
        let is_new = self.judge.leader.is_some() && !self.judge.assigned.contains(&fence);
        let after = match (n / TASKS / TASKS).is_multiple_of(2) && victim < fence {
            true => vec![victim],
            false => Vec::new(),
        };
        if is_new {
            self.judge.assigned.insert(fence);
            self.judge.after.insert(fence, after.clone());
        }
        after
    }

    fn renewed(&mut self, n: u64) {
        let Some(nonce) = Life::pick(self.judge.sent.clone().into_keys(), n) else {
            return;
        };
        let Some(leader) = self.judge.leader else {
            return;
        };
        // Before its words: they may start something. What had run out by then has ended first.
        let now = self.bench.now;
        let effects = self.bench.tell(Input::Tick);
        self.judge.see(now, &effects);
        let sent = self.judge.sent.remove(&nonce).unwrap();
        let until = Millis(sent.0 + lease::HOLDS.0);
        if until > now {
            self.judge.until = self.judge.until.max(Some(until));
        }
        self.say(leader, Said::Renewed { nonce });
    }

    fn elect(&mut self, session: SessionId) {
        self.bench.term += 1;
        self.judge.leader = Some(session);
        self.say(session, Said::Leading);
    }

    fn session_lost(&mut self, session: SessionId) {
        if self.judge.leader == Some(session) {
            self.judge.leader = None;
        }
        self.tell(Input::Closed { session });
        self.tell(Input::Opened { session });
    }

    /// The machine loses power: what was not on disk is gone, and so are the processes.
    fn restart(&mut self) {
        let judge = &mut self.judge;
        judge.beginning.clear();
        judge.recording.clear();
        judge.running.clear();
        judge.assigned.clear();
        judge.after.clear();
        judge.sent.clear();
        judge.until = None;
        judge.leader = None;
        let open = judge.begun.union(&judge.recorded).copied();
        let held: Vec<Fence> = open.filter(|f| !judge.settled.contains(f)).collect();
        judge.recorded.extend(&held);
        let settled: Vec<Fence> = judge.settled.iter().copied().collect();
        let (now, term) = (self.bench.now, self.bench.term);
        self.bench = Bench::with(SLOTS, &recovered(&held, &settled));
        self.bench.now = now;
        self.bench.term = term;
        self.tell(Input::Opened { session: C1 });
        self.tell(Input::Opened { session: C2 });
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 512,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_life_of_a_worker_breaks_a_rule(
        happenings in prop::collection::vec((0u8..26, any::<u64>()), 1..400),
    ) {
        let mut life = Life::new();
        life.elect(C1);
        for (what, n) in happenings {
            life.happen(what, n);
        }
    }
}
