//! The agent's side of the session protocol, without a socket or a clock: frames in, frames out.
//!
//! One journal serves all sessions, as on a real agent. A frame whose (generation, term) is below the
//! highest seen on any session is ignored, and its session no longer leads.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use wire::v1;
use wire::v1::agent_frame::Body as Said;
use wire::v1::controller_frame::Body as Heard;

use super::Conduct;

/// How often a lease is renewed and a status sent.
const BEAT: Duration = Duration::from_secs(5);
/// A confirmed renewal holds this long from when it was SENT: the lease of 15 s less its margin.
const LEASE: Duration = Duration::from_secs(12);
/// An unacknowledged verdict is sent again after this.
const AGAIN: Duration = Duration::from_secs(3);

/// What the agent says of itself.
#[derive(Debug, Clone)]
pub struct Profile {
    pub agent: String,
    pub incarnation: [u8; 16],
    pub slots: u32,
}

/// A fence, comparable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub generation: u64,
    pub task: u64,
    pub epoch: u64,
}

impl From<&v1::Fence> for Key {
    fn from(fence: &v1::Fence) -> Key {
        Key {
            generation: fence.generation,
            task: fence.task,
            epoch: fence.epoch,
        }
    }
}

impl From<Key> for v1::Fence {
    fn from(key: Key) -> v1::Fence {
        v1::Fence {
            task: key.task,
            generation: key.generation,
            epoch: key.epoch,
        }
    }
}

/// How much happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub assigned: u64,
    pub repeated: u64,
    pub cancelled: u64,
    pub acknowledged: u64,
    pub sessions: u64,
    /// Renewals that were confirmed.
    pub renewed: u64,
}

#[derive(Debug)]
struct Waiting {
    outcome: v1::Outcome,
    /// `None`: not yet, or not on the present leader's session.
    sent: Option<Instant>,
}

/// Everything that the sessions share.
#[derive(Debug)]
pub struct Journal {
    profile: Profile,
    conduct: Conduct,
    tell: mpsc::UnboundedSender<v1::Assign>,
    cluster_id: String,
    /// (generation, term)
    highest: (u64, u64),
    leading: Option<usize>,
    /// Those whose controller said welcome.
    welcomed: BTreeSet<usize>,
    lease_until: Option<Instant>,
    /// The term whose leader confirmed it last.
    leased_in: u64,
    next_nonce: u64,
    renewals: BTreeMap<u64, Instant>,
    last_renewal: Option<Instant>,
    known: HashSet<Key>,
    /// Taken up and without a verdict.
    open: BTreeMap<Key, v1::Assign>,
    /// Given before the first lease was confirmed.
    early: Vec<v1::Assign>,
    outbox: BTreeMap<Key, Waiting>,
    dispositions: BTreeMap<Key, v1::Disposition>,
    counts: Counts,
    silent: bool,
    /// Why a session was refused, or how one ended, for whoever waits in vain.
    last_end: String,
}

impl Journal {
    pub fn new(
        profile: Profile,
        conduct: Conduct,
        tell: mpsc::UnboundedSender<v1::Assign>,
    ) -> Journal {
        Journal {
            profile,
            conduct,
            tell,
            cluster_id: String::new(),
            highest: (0, 0),
            leading: None,
            welcomed: BTreeSet::new(),
            lease_until: None,
            leased_in: 0,
            next_nonce: 0,
            renewals: BTreeMap::new(),
            last_renewal: None,
            known: HashSet::new(),
            open: BTreeMap::new(),
            early: Vec::new(),
            outbox: BTreeMap::new(),
            dispositions: BTreeMap::new(),
            counts: Counts::default(),
            silent: false,
            last_end: "none".to_owned(),
        }
    }

    pub fn hello(&mut self) -> Said {
        self.counts.sessions += 1;
        let Profile {
            agent,
            incarnation,
            slots,
        } = self.profile.clone();
        Said::Hello(v1::Hello {
            backends: Vec::new(),
            protocol: model::AgentProtocol::NEWEST.0,
            supply: None,
            labels: vec![label("bench", "true"), label("name", &agent)],
            agent,
            incarnation: incarnation.to_vec().into(),
            slots,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            limits: "rlimit".to_owned(),
            cluster_id: self.cluster_id.clone(),
            generation: self.highest.0,
        })
    }

    /// A frame of session `from`; what is to be said on that session in turn.
    pub fn hear(&mut self, from: usize, frame: v1::ControllerFrame, now: Instant) -> Vec<Said> {
        let at = (frame.generation, frame.term);
        let Some(body) = frame.body else {
            return Vec::new();
        };
        // A greeting orders nothing: whoever comes back says the term in which it went, and leads in none.
        if let Heard::Welcome(welcome) = body {
            self.cluster_id = welcome.cluster_id;
            self.welcomed.insert(from);
            return Vec::new();
        }
        if at < self.highest {
            if self.leading == Some(from) {
                self.leading = None;
            }
            return Vec::new();
        }
        if at > self.highest {
            self.highest = at;
            // Whoever led in a lower term has to say again that it does.
            self.leading = self.leading.filter(|leader| *leader == from);
        }
        match body {
            Heard::Leader(leader) => self.on_leader(from, leader.leading, now),
            Heard::Assign(assign) => self.on_assign(from, assign, now),
            Heard::Cancel(cancel) => self.on_cancel(cancel),
            Heard::RenewAck(ack) => self.on_renewed(from, ack.nonce, now),
            Heard::VerdictAck(ack) => {
                self.on_verdict_ack(&ack);
                Vec::new()
            }
            Heard::Tail(tail) => vec![Said::Output(v1::Output {
                id: tail.id,
                offset: tail.offset,
                gone: true,
                end: true,
                ..v1::Output::default()
            })],
            Heard::Refused(refused) => {
                self.last_end = refused.reason;
                Vec::new()
            }
            Heard::Welcome(_) | Heard::Untail(_) | Heard::BackendsSet(_) => Vec::new(),
        }
    }

    /// What is due by now on session `on`.
    pub fn due(&mut self, on: usize, now: Instant) -> Vec<Said> {
        if self.silent || self.leading != Some(on) {
            return Vec::new();
        }
        let mut said = Vec::new();
        if self
            .last_renewal
            .is_none_or(|sent| now.duration_since(sent) >= BEAT)
        {
            said.push(self.renew(now));
        }
        said.extend(self.due_verdicts(now));
        said
    }

    /// Goes to every controller.
    pub fn status(&self) -> Option<Said> {
        let status = v1::DeviceStatus {
            id: self.profile.agent.clone(),
            ..Default::default()
        };
        let running = self.open.keys().map(|key| v1::Fence::from(*key)).collect();
        (!self.silent).then_some(Said::Status(v1::Status {
            status: Some(status),
            running,
            draining: false,
        }))
    }

    pub fn status_interval() -> Duration {
        BEAT
    }

    pub fn note_end(&mut self, session: usize, why: String) {
        self.last_end = why;
        self.welcomed.remove(&session);
        self.closed(session);
    }

    fn closed(&mut self, session: usize) {
        self.leading = self.leading.filter(|leader| *leader != session);
    }

    pub fn report(&mut self, fence: v1::Fence, outcome: v1::Outcome) {
        let key = Key::from(&fence);
        self.open.remove(&key);
        self.dispositions.remove(&key);
        self.outbox.insert(
            key,
            Waiting {
                outcome,
                sent: None,
            },
        );
    }

    pub fn set_silent(&mut self, silent: bool) {
        self.silent = silent;
    }

    pub fn has_lease(&self, now: Instant) -> bool {
        self.lease_until.is_some_and(|until| now < until)
    }

    /// The term in which its lease was confirmed last; 0 before the first time.
    pub fn leased_in(&self) -> u64 {
        self.leased_in
    }

    /// Controllers with which it has a session now.
    pub fn open_sessions(&self) -> usize {
        self.welcomed.len()
    }

    /// Every attempt that it took up.
    pub fn taken(&self) -> impl Iterator<Item = Key> {
        self.known.iter().copied()
    }

    pub fn dispositions(&self) -> &BTreeMap<Key, v1::Disposition> {
        &self.dispositions
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    pub fn describe(&self) -> String {
        format!(
            "{}: term {}, leader's session {:?}, {} open, {} verdicts waiting, {:?}; \
             last end of a session: {}",
            self.profile.agent,
            self.highest.1,
            self.leading,
            self.open.len(),
            self.outbox.len(),
            self.counts,
            self.last_end,
        )
    }

    fn on_leader(&mut self, from: usize, leads: bool, now: Instant) -> Vec<Said> {
        if !leads {
            self.closed(from);
            return Vec::new();
        }
        self.leading = Some(from);
        for waiting in self.outbox.values_mut() {
            waiting.sent = None;
        }
        if self.silent {
            return Vec::new();
        }
        let unsettled = self.open.keys().chain(self.outbox.keys());
        let known = v1::Known {
            attempts: unsettled.map(|key| v1::Fence::from(*key)).collect(),
        };
        let mut said = vec![Said::Known(known), self.renew(now)];
        said.extend(self.due_verdicts(now));
        said
    }

    fn on_assign(&mut self, from: usize, assign: v1::Assign, now: Instant) -> Vec<Said> {
        if self.leading != Some(from) {
            return Vec::new();
        }
        if !self.has_lease(now) {
            self.early.push(assign);
            return Vec::new();
        }
        self.take_up(assign, now).into_iter().collect()
    }

    /// A known pair never starts twice: if its verdict waits, that will be repeated anyway.
    fn take_up(&mut self, assign: v1::Assign, now: Instant) -> Option<Said> {
        let key = Key::from(assign.fence.as_ref()?);
        if !self.known.insert(key) {
            self.counts.repeated += 1;
            return None;
        }
        self.counts.assigned += 1;
        match self.conduct {
            Conduct::AtOnce => {
                let outcome = exited(0, "");
                let sent = (!self.silent).then_some(now);
                self.outbox.insert(
                    key,
                    Waiting {
                        outcome: outcome.clone(),
                        sent,
                    },
                );
                sent.map(|_| verdict(key, outcome))
            }
            Conduct::WhenTold => {
                self.open.insert(key, assign.clone());
                // Nobody may be listening any more.
                let _told = self.tell.send(assign);
                None
            }
        }
    }

    fn on_cancel(&mut self, cancel: v1::Cancel) -> Vec<Said> {
        let Some(fence) = cancel.fence else {
            return Vec::new();
        };
        let key = Key::from(&fence);
        self.early
            .retain(|assign| assign.fence.as_ref().map(Key::from) != Some(key));
        self.counts.cancelled += 1;
        // A test that decides when things end decides about this, too.
        if self.conduct == Conduct::AtOnce && self.open.contains_key(&key) {
            let end = v1::outcome::End::Killed(v1::Killed {
                reason: cancel.reason,
            });
            self.report(
                fence,
                v1::Outcome {
                    end: Some(end),
                    ..v1::Outcome::default()
                },
            );
        }
        Vec::new()
    }

    fn on_renewed(&mut self, from: usize, nonce: u64, now: Instant) -> Vec<Said> {
        if self.leading != Some(from) {
            return Vec::new();
        }
        if let Some(sent) = self.renewals.remove(&nonce) {
            self.lease_until = Some(sent + LEASE);
            self.leased_in = self.highest.1;
            self.counts.renewed += 1;
            self.renewals.retain(|later, _| *later > nonce);
        }
        if !self.has_lease(now) {
            return Vec::new();
        }
        let early = std::mem::take(&mut self.early);
        early
            .into_iter()
            .filter_map(|assign| self.take_up(assign, now))
            .collect()
    }

    fn on_verdict_ack(&mut self, ack: &v1::VerdictAck) {
        let Some(fence) = &ack.fence else { return };
        let key = Key::from(fence);
        self.outbox.remove(&key);
        self.counts.acknowledged += 1;
        // Remembered only where somebody may ask: a load of millions would not fit.
        if self.conduct == Conduct::WhenTold || ack.disposition() != v1::Disposition::Accepted {
            self.dispositions.entry(key).or_insert(ack.disposition());
        }
    }

    fn renew(&mut self, now: Instant) -> Said {
        self.next_nonce += 1;
        self.renewals.insert(self.next_nonce, now);
        self.last_renewal = Some(now);
        Said::Renew(v1::Renew {
            nonce: self.next_nonce,
        })
    }

    fn due_verdicts(&mut self, now: Instant) -> Vec<Said> {
        let is_due = |waiting: &Waiting| match waiting.sent {
            None => true,
            Some(sent) => now.duration_since(sent) >= AGAIN,
        };
        self.outbox
            .iter_mut()
            .filter(|(_, waiting)| is_due(waiting))
            .map(|(key, waiting)| {
                waiting.sent = Some(now);
                verdict(*key, waiting.outcome.clone())
            })
            .collect()
    }
}

fn verdict(key: Key, outcome: v1::Outcome) -> Said {
    Said::Verdict(v1::Verdict {
        fence: Some(key.into()),
        outcome: Some(outcome),
    })
}

fn label(key: &str, value: &str) -> v1::Label {
    let (key, value) = (key.to_owned(), value.to_owned());
    v1::Label { key, value }
}

/// The outcome of a process that exited by itself.
pub fn exited(code: i32, stdout: &str) -> v1::Outcome {
    v1::Outcome {
        end: Some(v1::outcome::End::Exited(v1::Exited {
            code: Some(code),
            signal: None,
        })),
        stdout: stdout.as_bytes().to_vec().into(),
        stdout_bytes: stdout.len() as u64,
        started_at: 1,
        finished_at: 2,
        ..v1::Outcome::default()
    }
}
