//! Operations that wait for a place in an entry, in the order in which they came.

use std::collections::VecDeque;

use model::{AgentId, Command, Fence, Op};

use crate::io::{SessionId, Ticket};

/// Requests that wait. Beyond it they are refused at once, which is kinder than a queue that
/// nobody can see.
pub(crate) const PENDING_MAX: usize = 16_384;
/// Bytes of all that wait: some 64 full entries, what a disk takes in a second or two.
pub(crate) const PENDING_MAX_BYTES: usize = 64 * 1024 * 1024;

/// Who waits for an operation's reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    Ticket(Ticket),
    Verdict { session: SessionId, fence: Fence },
    Registration(AgentId),
    Leader,
}

#[derive(Debug)]
pub(crate) struct Pending {
    pub op: Op,
    pub origin: Origin,
    pub bytes: usize,
}

/// First in, first out.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: VecDeque<Pending>,
    bytes: usize,
    submits: usize,
}

impl Queue {
    /// Whether a request of so many bytes is one too many.
    pub fn is_full_for(&self, bytes: usize) -> bool {
        self.waiting.len() >= PENDING_MAX || self.bytes + bytes > PENDING_MAX_BYTES
    }

    /// The same for what an agent reports. A report frees a slot and ends somebody's wait, so there is
    /// room left for reports where requests have none.
    pub fn is_full_for_report(&self, bytes: usize) -> bool {
        self.waiting.len() >= 2 * PENDING_MAX || self.bytes + bytes > 2 * PENDING_MAX_BYTES
    }

    pub fn push(&mut self, pending: Pending) {
        self.bytes += pending.bytes;
        self.submits += usize::from(is_submit(&pending.op));
        self.waiting.push_back(pending);
    }

    pub fn pop(&mut self) -> Option<Pending> {
        let pending = self.waiting.pop_front()?;
        self.bytes -= pending.bytes;
        self.submits -= usize::from(is_submit(&pending.op));
        Some(pending)
    }

    /// The bytes of the one that is next.
    pub fn next_bytes(&self) -> Option<usize> {
        self.waiting.front().map(|pending| pending.bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether any of them could be placed.
    pub fn has_submits(&self) -> bool {
        self.submits > 0
    }
}

fn is_submit(op: &Op) -> bool {
    let Op::Client { command, .. } = op else {
        return false;
    };
    matches!(command, Command::SubmitTask(_))
}
