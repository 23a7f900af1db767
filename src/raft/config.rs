//! What a member is told when it starts.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use model::{Addresses, ControllerId, Generation, Versions};
use openraft::SnapshotPolicy;

use crate::error::Error;

/// How long a heartbeat may be delayed by scheduling and the network before an election is due: below
/// this many heartbeats per election timeout, a busy machine elects for nothing.
const HEARTBEATS_PER_ELECTION: u32 = 3;

/// Entries kept behind a snapshot where nothing else is wanted.
const KEEP_BEHIND_SNAPSHOT: u64 = 5_000;

/// Entries between two snapshots, where they are small.
pub const SNAPSHOT_EVERY: u64 = 50_000;

/// Bytes of log between two snapshots: what a member reads at its start, and, with sled's slow reclaiming,
/// a fifth to a tenth of what the log may take on disk.
const SNAPSHOT_BYTES: u64 = 256 << 20;

/// Entries in one message. Their bytes are capped where they are read.
const PAYLOAD_ENTRIES: u64 = 512;

/// The longest that installing a snapshot may take; openraft's default of 200 ms never ends.
pub const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(60);

/// Raft's timers. The default is for a local network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    pub heartbeat: Duration,
    pub election_min: Duration,
    pub election_max: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(100),
            election_min: Duration::from_millis(300),
            election_max: Duration::from_millis(600),
        }
    }
}

impl Timers {
    pub fn validate(&self) -> Result<(), Error> {
        if self.heartbeat.is_zero() {
            return Err(Error::Rejected(
                "the heartbeat interval must not be zero".to_owned(),
            ));
        }
        if self.election_min < self.heartbeat * HEARTBEATS_PER_ELECTION {
            return Err(Error::Rejected(format!(
                "the election timeout ({:?}) must be at least {HEARTBEATS_PER_ELECTION} times the \
                 heartbeat interval ({:?})",
                self.election_min, self.heartbeat
            )));
        }
        if self.election_max <= self.election_min {
            return Err(Error::Rejected(format!(
                "the election timeout's upper end ({:?}) must be above its lower end ({:?})",
                self.election_max, self.election_min
            )));
        }
        Ok(())
    }
}

/// What a member needs to know.
#[derive(Debug)]
pub struct Config {
    pub id: ControllerId,
    pub cluster_id: String,
    /// Raised when a cluster is recovered or restored; members of different ones don't talk.
    pub generation: Generation,
    pub data_dir: PathBuf,
    /// Where others reach this controller.
    pub advertise: Addresses,
    /// The peer port, bound already, so that a port in use is known before anything is opened.
    pub raft_listener: TcpListener,
    pub timers: Timers,
    /// Where to reach a peer instead of at the address that the membership has for it.
    pub peer_addresses: BTreeMap<ControllerId, String>,
    /// Entries after which a snapshot is taken.
    pub snapshot_every: u64,
    /// Entries that stay in the log behind a snapshot, so that a member that was away for less needs none. `None`: 5,000,
    /// or as many as there are between two snapshots.
    pub keep_behind_snapshot: Option<u64>,
    /// Bytes of log after which one is taken, however few the entries.
    pub snapshot_bytes: u64,
    /// How long a proposal may take before its outcome is called unknown.
    pub propose_timeout: Duration,
    /// How long a read, or a proposal that was not taken yet, waits for a leader or a quorum.
    pub patience: Duration,
    /// The state versions that it goes by: this release's.
    pub versions: Versions,
}

impl Config {
    /// A member with defaults for all that has one.
    pub fn new(
        id: ControllerId,
        cluster_id: &str,
        data_dir: PathBuf,
        advertise: Addresses,
        raft_listener: TcpListener,
    ) -> Self {
        Self {
            id,
            cluster_id: cluster_id.to_owned(),
            generation: Generation(1),
            data_dir,
            advertise,
            raft_listener,
            timers: Timers::default(),
            peer_addresses: BTreeMap::new(),
            snapshot_every: SNAPSHOT_EVERY,
            keep_behind_snapshot: None,
            snapshot_bytes: SNAPSHOT_BYTES,
            propose_timeout: Duration::from_secs(10),
            patience: Duration::from_secs(5),
            versions: Versions::OF_THIS_RELEASE,
        }
    }

    pub fn validate(&self) -> Result<(), Error> {
        self.timers.validate()?;
        if self.id.0 == 0 {
            return Err(Error::Rejected("controller ids begin at c1".to_owned()));
        }
        if self.cluster_id.is_empty() {
            return Err(Error::Rejected("the cluster has no id".to_owned()));
        }
        if self.generation.0 == 0 {
            return Err(Error::Rejected(
                "the generation is 0, and generations begin at 1".to_owned(),
            ));
        }
        if self.snapshot_every == 0 {
            return Err(Error::Rejected(
                "snapshots need at least one entry".to_owned(),
            ));
        }
        Ok(())
    }

    /// The same in openraft's words.
    pub fn consensus(&self) -> Result<Arc<openraft::Config>, Error> {
        self.validate()?;
        let kept = self.keep_behind_snapshot;
        openraft_config(&self.cluster_id, self.timers, self.snapshot_every, kept)
    }
}

/// What openraft is told, on whatever runtime and network.
pub fn openraft_config(
    cluster_id: &str,
    timers: Timers,
    snapshot_every: u64,
    keep_behind_snapshot: Option<u64>,
) -> Result<Arc<openraft::Config>, Error> {
    let config = openraft::Config {
        cluster_name: cluster_id.to_owned(),
        heartbeat_interval: millis(timers.heartbeat),
        election_timeout_min: millis(timers.election_min),
        election_timeout_max: millis(timers.election_max),
        install_snapshot_timeout: millis(SNAPSHOT_TIMEOUT),
        max_payload_entries: PAYLOAD_ENTRIES,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(snapshot_every),
        max_in_snapshot_log_to_keep: keep_behind_snapshot
            .unwrap_or(KEEP_BEHIND_SNAPSHOT.min(snapshot_every)),
        // Must exceed the snapshot interval, or a snapshot would not end the lag.
        replication_lag_threshold: snapshot_every.saturating_mul(2),
        enable_pre_vote: Some(true),
        // A restarted leader asks for votes like anybody else.
        enable_leader_restore: Some(false),
        ..openraft::Config::default()
    };
    config
        .validate()
        .map(Arc::new)
        .map_err(|error| Error::Rejected(error.to_string()))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_election_timeout_below_three_heartbeats_is_refused() {
        let timers = Timers {
            election_min: Duration::from_millis(299),
            ..Timers::default()
        };
        assert!(matches!(timers.validate(), Err(Error::Rejected(_))));
        assert_eq!(Timers::default().validate(), Ok(()));
    }
}
