//! Operations that wait for a place in an entry.

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

/// What people asked for, and what agents report, each first in, first out; where both wait they take turns. So a
/// request does not wait behind all the reports of a busy fleet, nor a slot that is free behind all requests.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    requests: VecDeque<Pending>,
    reports: VecDeque<Pending>,
    /// Whose turn it is.
    reports_next: bool,
    bytes: usize,
    submits: usize,
}

impl Queue {
    /// Whether a request of so many bytes is one too many.
    pub fn is_full_for(&self, bytes: usize) -> bool {
        self.len() >= PENDING_MAX || self.bytes + bytes > PENDING_MAX_BYTES
    }

    /// The same for what an agent reports. A report frees a slot and ends somebody's wait, so there is
    /// room left for reports where requests have none.
    pub fn is_full_for_report(&self, bytes: usize) -> bool {
        self.len() >= 2 * PENDING_MAX || self.bytes + bytes > 2 * PENDING_MAX_BYTES
    }

    pub fn push(&mut self, pending: Pending) {
        self.bytes += pending.bytes;
        self.submits += usize::from(is_submit(&pending.op));
        match pending.origin {
            Origin::Ticket(_) => self.requests.push_back(pending),
            Origin::Verdict { .. } | Origin::Registration(_) | Origin::Leader => {
                self.reports.push_back(pending);
            }
        }
    }

    pub fn pop(&mut self) -> Option<Pending> {
        let of_reports = self.takes_report();
        let lane = match of_reports {
            true => &mut self.reports,
            false => &mut self.requests,
        };
        let pending = lane.pop_front()?;
        self.reports_next = !of_reports;
        self.bytes -= pending.bytes;
        self.submits -= usize::from(is_submit(&pending.op));
        Some(pending)
    }

    /// The bytes of the one that is next.
    pub fn next_bytes(&self) -> Option<usize> {
        let lane = match self.takes_report() {
            true => &self.reports,
            false => &self.requests,
        };
        lane.front().map(|pending| pending.bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn len(&self) -> usize {
        self.requests.len() + self.reports.len()
    }

    fn takes_report(&self) -> bool {
        match (self.requests.is_empty(), self.reports.is_empty()) {
            (false, false) => self.reports_next,
            (no_request, _) => no_request,
        }
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
