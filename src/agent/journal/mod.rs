//! What this agent began and how it ended, on disk: the journal and the outbox in one file.
//!
//! Four things are written of an attempt: that it was *begun* (durable before it starts, so it
//! never starts twice), which process it became (so that a restarted agent can end it), how it
//! *ended* (durable before it is reported), and that the report was *settled*, after which it is
//! forgotten. [`store`] is the file, [`ledger`] what the records add up to, [`record`] their
//! encoding, and [`writer`] the thread that makes many of them durable with one flush.
//!
//! The file also carries the agent's incarnation. A journal that is gone is a new incarnation: the
//! cluster then knows that nobody here remembers what the old one began.

mod ledger;
mod record;
mod store;
mod writer;

#[cfg(test)]
mod tests;

pub use ledger::{Held, Ledger, Recovered};
pub use record::{ProcessMark, Record};
pub(crate) use writer::{Durable, Journal};
