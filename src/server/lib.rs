//! A controller: gateways for clients, sessions for agents, and the loop around the dispatcher.
//!
//! ```text
//!   clients ──► gateway ──► dispatcher ──► raft ──► applied events ──► hub ──► waiting clients
//!   agents ◄──► sessions ◄───┘  ▲                        │
//!                               └────────────────────────┘
//! ```
//!
//! [`run`] is all of it, from a [`Config`] and a data directory to an orderly stop; `node` wires it
//! on one page. A write goes one way, whoever asks: `gateway::request` → dispatcher → log → `apply`
//! → reply. Followers do all but decide: they pass writes on, serve reads by a quorum's word, and
//! keep the agents' sessions, so that the next leader can act at once.
//!
//! Left out: what to decide (`dispatch`, `scheduler`), what an entry does (`model`), consensus and
//! disks (`raft`), and certificates (`security`).

mod authority;
mod bootstrap;
mod callers;
mod config;
mod controller;
mod dispatcher;
mod error;
mod gateway;
mod https;
mod hub;
mod limit;
mod metrics;
mod node;
mod others;
mod pace;
mod payloads;
mod ports;
mod quorum;
mod renewal;
mod retention;
mod sessions;
mod vigil;

#[cfg(test)]
mod tests;

pub use config::{Config, DEFAULT_PORT, Invalid, Profile};
pub use error::Error;
pub use limit::CLOCK_SKEW_MAX;
pub use node::run;
