//! What the membership says about a controller: where it listens, and which log is its own.
//!
//! The identity of the log is drawn at random when a log is created. A member that lost its disk has
//! another one, or none, and is refused by everybody: it has forgotten whom it voted for and what it
//! acknowledged, so under its old id it could undo a commit. It comes back under a new id.

use std::fmt;

use model::Addresses;
use serde::{Deserialize, Serialize};

use crate::consensus::NodeId;

/// Identity of one log, from its creation to its loss.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LogIdentity(pub [u8; 16]);

impl LogIdentity {
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// What came in a message; anything but 16 bytes is no identity.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for LogIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for LogIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The record of a controller in the membership.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub addresses: Addresses,
    pub log: LogIdentity,
}

/// What a member does, as the membership has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberRole {
    Leader,
    Voter,
    /// Receives the log, has no vote: on its way in.
    Learner,
}

/// A controller as `members` shows it. What only the leader knows is `None` elsewhere.
#[derive(Clone, Debug)]
pub struct Member {
    pub id: model::ControllerId,
    pub addresses: Addresses,
    pub role: MemberRole,
    pub log: LogIdentity,
    /// Last entry that it is known to have on disk.
    pub matched: Option<u64>,
    /// Entries that it lacks.
    pub lag: Option<u64>,
}

/// Why a member whose log is not the one of the membership is refused, by others and by itself.
pub fn lost_log(id: NodeId) -> String {
    format!(
        "the log of {} is not the one that the membership knows: this machine has lost that log \
         and may not act under its id; let it join under a new id, with an empty data directory",
        controller(id)
    )
}

pub fn controller(id: NodeId) -> model::ControllerId {
    model::ControllerId(id)
}
