//! A worker: it takes attempts from the cluster, runs them, and says how they ended.
//!
//! How it flows. [`run`] opens the data directory ([`data_dir`], [`journal`]), ends what an earlier
//! process of this agent left behind, and then keeps one [`session`] to every controller. All
//! decisions are made in one place, the [`worker`]: a state machine without sockets, files or
//! clocks. It is given frames, ends of processes and the time, and answers with effects: send
//! this, write that to the journal, start, end. The shell around it ([`agent`](mod@agent)) carries
//! them out: the journal's writer thread, the [`executor`]s, the sessions.
//!
//! ```text
//! Assign ─► worker ─► journal: begun (fsync) ─► executor ─► worker ─► journal: verdict (fsync)
//!             │                                    │                      │
//!           lease                              output logs         leader's session ─► VerdictAck
//! ```
//!
//! Three things make it safe. A (task, epoch) is in the journal before it starts, so it never
//! starts twice. A verdict is in the journal before it is sent, so it is never lost. And without a
//! lease that a quorum renewed in the last 12 s everything here is killed and nothing starts, so
//! the cluster may give the work to somebody else.
//!
//! What it leaves out: which task runs here (the leader decides), and other executors than
//! `process`.

mod agent;
mod backoff;
mod clock;
mod config;
mod controllers;
mod data_dir;
mod error;
mod executor;
mod inputs;
mod journal;
mod lease;
mod load;
mod machine;
mod openai;
mod output;
mod process;
mod recovery;
mod renewal;
mod runner;
mod session;
mod tail;
mod worker;

#[cfg(test)]
mod tests;

pub use agent::run;
pub use config::{BackendConfig, Config, GpuConfig, Invalid};
pub use error::Error;
pub use process::watch as guard;

/// What an agent decides with, without sockets, files, processes and clocks: for a simulation that brings its own.
pub mod parts {
    pub use crate::executor::{Attempt, Exit, Urgency};
    pub use crate::journal::{Held, Ledger, Record, Recovered};
    pub use crate::output::{Captured, Fate};
    pub use crate::recovery::died;
    pub use crate::worker::{Effect, Ended, Input, Load, Nature, Said, SessionId, Stamp, Worker};
}
