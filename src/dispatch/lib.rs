//! What the leader does, without sockets, clocks or threads: inputs in, outputs out.
//!
//! ```text
//!  requests, sessions, verdicts ──┐                        ┌── Propose: one entry's operations
//!  applied events ────────────────┼─► handle … handle ─► flush ── Send: frames to agents
//!  results of proposals, ticks ───┘      (a burst)         └── Answer: to waiting clients
//! ```
//!
//! The shell (`server`) drains a burst of inputs, hands each over with the latest applied state
//! and the clocks, calls [`Dispatcher::flush`] once, and carries the outputs out. So everything
//! that arrives while an entry is on its way to the disks travels together in the next one, and a
//! simulation can drive the very same code.
//!
//! As a follower it keeps the sessions, so that it can act at once when it is elected. It decides
//! nothing that `apply` does not check again, and it may be thrown away at any moment: the log
//! has everything that counts.

mod agents;
mod ahead;
mod batch;
mod dispatcher;
mod drain;
mod estimates;
mod io;
mod minutes;
mod paces;
mod pending;
mod preempted;
mod verdicts;

#[cfg(test)]
mod tests;

pub use dispatcher::Dispatcher;
pub use io::{
    Cause, Failure, Hindrance, Input, Intake, Load, Message, Output, ProposalId, Refusal,
    SessionId, Ticket,
};
pub use scheduler::{Clock, Fleet};
