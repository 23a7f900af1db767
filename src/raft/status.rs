//! What a member says about itself, for people and for Prometheus.

use std::time::Duration;

use model::{ControllerId, Generation};

use crate::leadership::Leadership;
use crate::member::Member;
use crate::store::stats::StoreStats;

/// A member at one moment.
#[derive(Clone, Debug)]
pub struct Status {
    pub id: ControllerId,
    pub cluster_id: String,
    pub generation: Generation,
    pub leadership: Leadership,
    pub members: Vec<Member>,
    pub applied: u64,
    pub committed: u64,
    pub last_log: u64,
    pub snapshot: Option<u64>,
    pub purged: Option<u64>,
    pub state_hash: [u8; 32],
    /// The hash at the last multiple of 256, to compare members under load.
    pub hash_at: (u64, [u8; 32]),
}

/// Numbers, most of them counters since the start.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    pub term: u64,
    pub is_leader: bool,
    pub applied: u64,
    pub committed: u64,
    pub last_log: u64,
    pub snapshot: u64,
    pub purged: u64,
    /// How often this member saw the term, or the leader, change.
    pub term_changes: u64,
    pub leader_changes: u64,
    /// Elections called because a leader's process was found dead.
    pub quick_elections: u64,
    /// On the leader: since a quorum last answered.
    pub last_quorum_ack: Option<Duration>,
    /// On the leader: entries that each other member lacks.
    pub lag: Vec<(ControllerId, u64)>,
    pub store: StoreStats,
}
