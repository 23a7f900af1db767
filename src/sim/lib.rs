//! A whole cluster in one thread and in virtual time: the product's own consensus, state machine, dispatcher and
//! agents, on a network, disks and clocks that break as a seed says.
//!
//! ```text
//!              ┌── faults (swarm) ── cuts, loses, delays, crashes, slows, sets clocks
//!              ▼
//!  clients ─► network ─► controllers: raft::parts::Core + dispatch::Dispatcher ─► disk (what was synced stays; a tail is torn, a bit turns)
//!                 ▲            │ sessions
//!                 └─────── agents: agent::parts::Worker ─► journal, processes that take their time
//!                              │
//!              judge ◄─────────┴── every event, hash, start and end of a process, reply and read
//! ```
//!
//! [`run`] takes a [`Plan`], which follows from a seed, and gives a [`Report`]: what happened, and what was promised
//! and did not hold. The same seed gives the same run, line by line. A run has two parts: faults, while what must
//! never happen is looked for; then everything is mended, and what was accepted has to be done.
//!
//! Left out: sockets, TLS and gRPC, sled (a map stands behind the write-ahead files, whose bytes are the product's), blobs,
//! and processes. These have tests of their own, on real disks and in real processes.

mod again;
mod agents;
mod books;
mod by_hand;
mod calls;
pub mod clients;
mod conn;
pub mod controller;
mod dice;
mod disk;
mod faults;
mod judge;
mod labels;
pub mod network;
mod plan;
mod process;
mod reactor;
mod report;
mod trace;
pub mod wires;
pub mod world;

pub use plan::{Fault, Plan};
pub use report::{Report, Totals};
pub use world::run;
