//! What a snapshot says about itself. JSON, so that an administrator can read it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::archive::need::Need;
use crate::consensus::{LogId, NodeId, SnapshotMeta, StoredMembership, log_id, term_of};
use crate::store::codec::{Damage, MembershipRecord};

const FORMAT: u32 = 1;

/// A snapshot may not be larger: 16 GiB, so that nobody's disk is filled by a wrong number.
pub const MAX_BYTES: u64 = 16 << 30;

/// Where in the log something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    pub term: u64,
    pub index: u64,
}

impl From<LogId> for Place {
    fn from(id: LogId) -> Self {
        Self {
            term: term_of(&id),
            index: id.index,
        }
    }
}

impl From<Place> for LogId {
    fn from(place: Place) -> Self {
        log_id(place.term, place.index)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    format: u32,
    /// None where nothing was applied yet.
    pub last_log: Option<Place>,
    pub membership_log: Option<Place>,
    pub membership: MembershipRecord,
    /// Every node id that was ever a member: none is given out twice.
    pub used_ids: BTreeSet<NodeId>,
    /// The archive's segments that belong to it; a receiver fetches what it lacks.
    pub segments: Vec<Need>,
    /// Chunks, and the bytes in them.
    pub chunks: u64,
    pub bytes: u64,
    /// Of the bytes in the chunks, hexadecimal.
    pub sha256: String,
    /// Of the state, computed anew when the snapshot was taken.
    pub state_hash: String,
}

/// What the state machine knows beside its state.
#[derive(Clone, Debug)]
pub struct Position {
    pub last_log: Option<LogId>,
    pub membership: StoredMembership,
    pub used_ids: BTreeSet<NodeId>,
    pub segments: Vec<Need>,
}

impl Manifest {
    pub fn new(position: &Position, content: &Content, state_hash: String) -> Self {
        Self {
            format: FORMAT,
            last_log: position.last_log.map(Place::from),
            membership_log: position.membership.log_id().map(Place::from),
            membership: position.membership.membership().into(),
            used_ids: position.used_ids.clone(),
            segments: position.segments.clone(),
            chunks: content.chunks,
            bytes: content.bytes,
            sha256: content.sha256.clone(),
            state_hash,
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("plain data always serializes")
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let manifest: Self =
            serde_json::from_slice(bytes).map_err(|error| Damage::Content(error.to_string()))?;
        if manifest.format != FORMAT {
            let text = format!(
                "snapshot format {} is unknown to this release",
                manifest.format
            );
            return Err(Damage::Content(text));
        }
        if manifest.bytes > MAX_BYTES {
            return Err(Damage::Content(format!(
                "a snapshot of {} bytes",
                manifest.bytes
            )));
        }
        Ok(manifest)
    }

    pub fn position(&self) -> Result<Position, Damage> {
        let membership = self.membership.clone().try_into()?;
        Ok(Position {
            last_log: self.last_log.map(LogId::from),
            membership: StoredMembership::new(self.membership_log.map(LogId::from), membership),
            used_ids: self.used_ids.clone(),
            segments: self.segments.clone(),
        })
    }

    pub fn meta(&self) -> Result<SnapshotMeta, Damage> {
        let Position {
            last_log,
            membership,
            ..
        } = self.position()?;
        Ok(SnapshotMeta {
            last_log_id: last_log,
            last_membership: membership,
        })
    }
}

/// How much a data file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    pub chunks: u64,
    pub bytes: u64,
    pub sha256: String,
}
