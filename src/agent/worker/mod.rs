//! All decisions of an agent, without sockets, files, processes or clocks.
//!
//! [`Worker::handle`] is given one input and the time on the boot clock, and pushes the effects that
//! the shell has to carry out, in order. The first thing it does, whatever the input, is to look at
//! the lease: so an agent that was stopped and goes on ends its attempts before it says a word.
//!
//! The states of an attempt:
//! ```text
//! Waiting ─► Beginning (journal) ─► Running ─► Recording (journal) ─► Reporting ─► settled
//!    └────────────┴──── declined, cancelled, lease lost ──┘
//! ```

mod attempts;
mod controllers;
mod input;
mod trouble;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet, VecDeque};

use model::{Fence, Millis, Timestamp};
use mutant::Mutant;

use crate::journal::Recovered;
use crate::lease::Lease;
use attempts::Attempt;
use controllers::Peer;
pub use input::{Effect, Ended, Input, Said, SessionId, Stamp};
use trouble::Trouble;

/// How long a verdict waits for its acknowledgement before it is sent again.
const RESEND: Millis = Millis(3_000);
/// Attempts that wait beyond the slots. The leader sends one or two; a thousand are a mistake.
const WAITING_MAX: usize = 1_024;
/// Settled attempts that are remembered: assignments that were delayed on their way don't start
/// them again.
const SETTLED_MAX: usize = 65_536;

/// How busy the machine is, in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    pub cpu: u32,
    /// Of that, what the agent and its attempts use.
    pub own: u32,
    pub memory: u32,
    /// Wall time of the measurement.
    pub at: Timestamp,
}

/// What does not change while the agent runs.
#[derive(Debug, Clone)]
pub struct Nature {
    pub id: model::AgentId,
    pub slots: usize,
    /// Some model servers run on this machine.
    pub asks_here: bool,
}

impl Nature {
    pub fn of(profile: &model::AgentProfile, asks_here: bool) -> Nature {
        Nature {
            id: profile.id.clone(),
            slots: usize::try_from(profile.slots).unwrap_or(usize::MAX),
            asks_here,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Working,
    /// Nothing new starts, what comes is given back, and what runs may end.
    Stopping,
}

#[derive(Debug)]
pub struct Worker {
    nature: Nature,
    stage: Stage,
    peers: BTreeMap<SessionId, Peer>,
    leader: Option<SessionId>,
    /// The highest that any leader said.
    highest: Stamp,
    lease: Lease,
    renewed: Option<Millis>,
    attempts: BTreeMap<Fence, Attempt>,
    /// In the order in which they came.
    waiting: VecDeque<Fence>,
    /// Attempts that hold a slot.
    busy: usize,
    settled: HashSet<Fence>,
    settled_order: VecDeque<Fence>,
    load: Load,
    /// A model was asked since the load was measured last.
    asked: bool,
    trouble: Trouble,
    /// Attempts that run, and of which nobody was told yet.
    fresh: Vec<Fence>,
}

impl Worker {
    /// Continues from a journal. Attempts that were begun and have no verdict must have got one
    /// from `recovery` before.
    pub fn new(nature: Nature, recovered: &Recovered) -> Worker {
        let mut worker = Worker {
            nature,
            stage: Stage::Working,
            peers: BTreeMap::new(),
            leader: None,
            highest: Stamp::default(),
            lease: Lease::default(),
            renewed: None,
            attempts: BTreeMap::new(),
            waiting: VecDeque::new(),
            busy: 0,
            settled: HashSet::new(),
            settled_order: VecDeque::new(),
            load: Load::default(),
            asked: false,
            trouble: Trouble::default(),
            fresh: Vec::new(),
        };
        recovered
            .settled
            .iter()
            .for_each(|fence| worker.remember(*fence));
        for (&fence, held) in &recovered.held {
            if let Some(verdict) = held.verdict.clone()
                && !mutant::is(Mutant::JournalForgotten)
            {
                worker.attempts.insert(fence, Attempt::to_report(verdict));
            }
        }
        worker
    }

    pub fn handle(&mut self, now: Millis, input: Input, out: &mut Vec<Effect>) {
        self.check_lease(now, out);
        match input {
            Input::Opened { session } => self.on_opened(session, out),
            Input::Closed { session } => self.on_closed(session),
            Input::Said {
                session,
                stamp,
                said,
            } => self.on_said(now, session, stamp, said, out),
            Input::Latency { session, micros } => self.on_latency(session, micros),
            Input::Load(load) => self.on_load(load, out),
            Input::Begun(fence) => self.on_begun(now, fence, out),
            Input::Started(fence) => self.on_started(fence),
            Input::Ended { fence, ended } => self.on_ended(now, fence, *ended, out),
            Input::Recorded(fence) => self.on_recorded(now, fence, out),
            Input::Tick => self.on_tick(now, out),
            Input::Stop => self.on_stop(out),
        }
        self.start_waiting(now, out);
        self.give_back_passed_over(out);
    }

    /// No attempt runs or is about to.
    pub fn is_quiet(&self) -> bool {
        self.busy == 0
    }

    /// Everything that this agent held was taken note of in the cluster.
    pub fn is_settled(&self) -> bool {
        self.attempts.is_empty()
    }

    /// Attempts that are not settled.
    pub fn unsettled(&self) -> usize {
        self.attempts.len()
    }

    fn on_tick(&mut self, now: Millis, out: &mut Vec<Effect>) {
        self.renew_if_due(now, out);
        self.end_pause_if_due(now, out);
        self.tell_started(out);
        self.report_all(now, out);
    }

    /// Whether what is assigned now would start, sooner or later.
    fn takes_work(&self) -> bool {
        self.stage == Stage::Working && self.trouble.is_over()
    }

    fn on_stop(&mut self, out: &mut Vec<Effect>) {
        if self.stage == Stage::Working {
            self.stage = Stage::Stopping;
            // Before anything is given back, or the leader would send it here again.
            self.say_status_to_all(out);
            self.decline_waiting(out);
            self.end_running_for_stop(out);
        }
    }
}
