//! What goes in and what comes out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::{
    AgentProfile, BackendSettings, BlobDigest, Command, Disposition, Event, Fence, Gpus, Held,
    Millis, Op, Principal, Rejected, Reply, TaskSpec, Verdict,
};

/// A client's request, numbered by the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// A session with an agent, numbered by the shell; never used twice in a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// A proposal on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProposalId(pub u64);

/// What an agent said of its load, in thousandths; soft.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    pub cpu: u32,
    /// The part of `cpu` which is neither the agent's nor its attempts'.
    pub others: u32,
    pub memory: u32,
    /// Round trip in microseconds; 0: not measured yet.
    pub latency_us: u32,
}

impl Load {
    /// The next that was said. One round trip says little: the latest counts a quarter.
    pub(crate) fn followed_by(self, next: Load) -> Load {
        let latency_us = match (self.latency_us, next.latency_us) {
            (known, 0) => known,
            (0, first) => first,
            (known, latest) => known - known / 4 + latest / 4,
        };
        Load { latency_us, ..next }
    }
}

/// Whether an agent takes new work; soft.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Intake {
    #[default]
    Open,
    /// It is stopping, or can't start anything, and would give back whatever it was sent.
    Closed,
}

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// This controller leads, and has applied an entry of its own term.
    Lead {
        term: u64,
    },
    Follow,
    Request {
        ticket: Ticket,
        principal: Principal,
        command: Command,
        /// Who has the blobs that it names.
        held: Option<Held>,
    },
    SessionOpened {
        session: SessionId,
        profile: AgentProfile,
        principal: Principal,
    },
    /// What its back ends offer has changed.
    Backends {
        session: SessionId,
        backends: Vec<model::Backend>,
    },
    /// The agent's answer to `Leader(true)`: what its journal holds.
    Known {
        session: SessionId,
        attempts: Vec<Fence>,
    },
    SessionClosed {
        session: SessionId,
    },
    Status {
        session: SessionId,
        load: Load,
        intake: Intake,
    },
    /// A quorum round that began after this renewal arrived has ended well.
    LeaseConfirmed {
        session: SessionId,
        nonce: u64,
        /// When the renewal arrived, by the monotonic clock.
        received: Millis,
    },
    Verdict {
        session: SessionId,
        verdict: Verdict,
        /// Who has the blobs that it names.
        held: Option<Held>,
    },
    /// Blobs that are not on this controller's disk: who needs one waits.
    Lacks(Arc<BTreeSet<BlobDigest>>),
    /// Why nothing new is taken: the disks are nearly full. Nothing: they are not.
    Shortage(Option<String>),
    /// Events of the applied entry at this index, in log order. None is left out.
    Applied {
        index: u64,
        events: Vec<Event>,
    },
    Proposed {
        proposal: ProposalId,
        result: Result<Vec<Result<Reply, Rejected>>, Failure>,
    },
    /// Every 100 ms or so.
    Tick,
}

/// What stands in the way of something that may be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hindrance {
    /// Nobody leads just now: an election or a handover is under way.
    NoLeader,
    /// Too few controllers answer.
    NoQuorum,
    /// There is too much to do.
    Busy,
    /// The disks are nearly full.
    NoRoom,
    /// This controller is on its way out.
    Stopping,
}

/// Why a proposal has no replies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Surely not in the log.
    NotLeader,
    /// Surely not in the log.
    Unavailable { hindrance: Hindrance, why: String },
    /// Perhaps in the log.
    Unknown,
}

/// Why a request has no reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    Rejected(Rejected),
    NotLeader,
    Unavailable {
        hindrance: Hindrance,
        why: String,
    },
    /// It may or may not have been committed.
    Unknown,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    Propose {
        proposal: ProposalId,
        ops: Vec<Op>,
    },
    Answer {
        ticket: Ticket,
        result: Result<Reply, Refusal>,
    },
    Send {
        session: SessionId,
        message: Message,
    },
    Close {
        session: SessionId,
        reason: String,
    },
}

impl Output {
    /// Tells an agent to end an attempt, or not to begin it.
    pub fn cancel(session: SessionId, fence: Fence, cause: Cause, reason: String) -> Output {
        let message = Message::Cancel {
            fence,
            cause,
            reason,
        };
        Output::Send { session, message }
    }
}

/// A frame for an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    Leader(bool),
    Assign {
        fence: Fence,
        attempt: u32,
        /// Which of the agent's GPUs it has.
        gpus: Gpus,
        /// Attempts there that have to end before it begins.
        after: Vec<Fence>,
        spec: Arc<TaskSpec>,
    },
    Cancel {
        fence: Fence,
        cause: Cause,
        reason: String,
    },
    VerdictAck {
        fence: Fence,
        disposition: Disposition,
    },
    RenewAck {
        nonce: u64,
    },
    /// What was set for its back ends, by name.
    Backends(BTreeMap<String, BackendSettings>),
}

/// Why an attempt has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Somebody cancelled the task.
    Cancelled,
    /// It is not the live attempt (any more).
    Stale,
    /// It is wanted back if it has not begun: its agent is being drained, or its slots are taken for long.
    Recalled,
    /// Its agent is being drained, and the time for it is up.
    Evicted,
    /// Another task has got its place.
    Preempted,
}
