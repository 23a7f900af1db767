//! A harness that runs the real `quorate` binary as processes, breaks them, and checks what is left.
//!
//! [`cluster`] starts a whole cluster on a real disk by `quorate dev`, and knows its processes by their pids;
//! [`nodes`] starts one node by node, on a [`network`] that can be cut. [`traffic`] puts work on either, [`history`] is
//! what was asked and answered meanwhile, [`faults`] break processes, disks, clocks and networks, and make sure that they
//! did. A [`campaign`] is all of that together, from a seed. [`checkers`] are pure and judge a history, beside what was on the disks ([`log`], [`journal`]) and what one
//! task may do ([`model`]), and [`report`] turns numbers into something to read.
//! Everything that waits does so on a condition and with a deadline ([`wait`]).
//!
//! It sees a cluster as a stranger does: through the binary, its files, and the wire. It never imports
//! the server's or the agent's code, so that it can't share their mistakes. Disks that forget and simulated
//! time are not in it.

pub mod binary;
pub mod campaign;
pub mod checkers;
pub mod cluster;
mod error;
pub mod faults;
pub mod history;
pub mod journal;
pub mod log;
pub mod model;
pub mod network;
pub mod nodes;
pub mod report;
pub mod traffic;
pub mod wait;

pub use error::Error;
