//! Consensus and storage behind one handle, [`Cluster`]: openraft on sled.
//!
//! ```text
//!            propose            read, confirm          add_member, transfer_leadership
//!               │                    │                             │
//!  clock ──► proposer              rounds ◄──── peers ────►    membership      leadership, status
//!               │                    │                             │
//!               └──────────────► openraft ◄────────────────────────┘
//!                      ┌─────────────┼───────────────┐
//!                    store        machine ──► archive ◄── network ◄─── election
//!              (one writer, sled)  (State, snapshot)  (over mutual TLS)
//! ```
//!
//! What leaves this crate is ours: `model` types, [`Committed`], [`Read`], [`Error`]. openraft's types stay
//! inside. All but `cluster` and `network` runs on any runtime that openraft runs on, any network and any
//! log engine, so that a deterministic simulation uses the same code.
//!
//! Left out: what the operations mean (`model`), who may ask for them (the gateways), and what a leader
//! does with events (`dispatch`).

mod archive;
mod archived;
mod assembly;
mod blobs;
mod blocking;
mod clock;
mod cluster;
mod config;
mod consensus;
mod core;
mod election;
mod error;
mod fatal;
mod held;
mod leadership;
mod machine;
mod member;
mod membership;
mod network;
mod node_file;
pub mod offline;
mod payload;
mod peers;
mod proposer;
mod read;
mod removal;
mod snapshot;
mod space;
mod status;
mod store;
mod sync;
mod timings;
mod trail;
mod unfinished;
mod versions;
mod watched;

#[cfg(test)]
mod tests;

pub use archive::{EventsAt, EventsPage};
pub use archived::TasksPage;
pub use blobs::{BlobStats, Progress};
pub use clock::{Clocks, Reading};
pub use cluster::Cluster;
pub use config::{Config, Timers};
pub use error::{Error, Hindrance, Leader};
pub use held::HoldError;
pub use leadership::Leadership;
pub use machine::{AppliedBatch, BatchKind, EventStream};
pub use member::{LogIdentity, Member, MemberRole};
pub use network::tls::PeerTls;
pub use node_file::{DirectoryLock, NodeFile};
pub use proposer::Committed;
pub use read::Read;
pub use space::Space;
pub use status::{Metrics, Status};
pub use store::probe;
pub use store::stats::StoreStats;
pub use timings::Timings;

/// What a member is made of, without sockets: for a simulation that brings its own runtime, network, disk
/// and clocks. Not for servers.
pub mod parts {
    /// Its traits, for a runtime and a network of one's own.
    pub use openraft;

    pub use crate::archive::Archive;
    pub use crate::archive::need::Need;
    pub use crate::blobs::Blobs;
    pub use crate::blocking::Blocking;
    pub use crate::clock::StateClock;
    pub use crate::config::{SNAPSHOT_EVERY, openraft_config};
    pub use crate::consensus::{
        CommittedLeaderId, Entry, LogId, Membership, NodeId, Snapshot, SnapshotMeta,
        StoredMembership, Types, Vote,
    };
    pub use crate::core::{Core, Parts, Patience};
    pub use crate::election::QuickElection;
    pub use crate::fatal::FatalSignal;
    pub use crate::machine::{Machine, Published, Storage, View};
    pub use crate::member::Node;
    pub use crate::membership::Me;
    pub use crate::payload::{Payload, Response};
    pub use crate::peers::{Identified, Lacks, Peers, Suspicion};
    pub use crate::proposer::ClockSource;
    pub use crate::snapshot::{Handle, Shelf};
    pub use crate::store::directory::{OpenError, open_stepped};
    pub use crate::store::engine::{Batch, LogEngine, Visit};
    pub use crate::store::log::{LogStore, payloads_of};
    pub use crate::store::wal::image::{Image, Tail};
    pub use crate::store::writer::Steps;
    pub use crate::unfinished::watch as finish_changes;
    pub use crate::watched::{Follower, Watched};
}
