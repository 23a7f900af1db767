//! Controllers talking to each other: gRPC over mutual TLS, on a port of its own.
//!
//! `dial` makes channels and headers, `client` is openraft's network on top of them, `calls` the questions
//! of our own, `service` the answering side and `guard` its door. `codec` translates messages, `company` sends fewer of
//! them, `snapshots` moves large states both ways.
//!
//! Replication, heartbeats and snapshots to one peer use channels of their own, so that a large message
//! never delays the proof that a leader is alive.

pub mod calls;
pub mod client;
pub mod codec;
mod company;
pub mod dial;
pub mod guard;
pub mod service;
pub mod snapshots;
