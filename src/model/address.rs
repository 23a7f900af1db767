//! Where a controller listens.

use serde::{Deserialize, Serialize};

/// `host:port` of each of a controller's three ports.
#[derive(Debug, Clone, PartialEq, Eq, Default, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Addresses {
    /// Clients and agents.
    pub grpc: String,
    /// Other controllers.
    pub raft: String,
    /// Health and metrics.
    pub https: String,
}
