//! What the log knows of a worker machine. Heartbeats and load are not here: they are soft.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{AgentId, Incarnation};

/// What an agent says of itself when it opens a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentProfile {
    pub id: AgentId,
    pub incarnation: Incarnation,
    pub slots: u32,
    pub labels: BTreeMap<String, String>,
    pub version: String,
    /// How it enforces limits: `cgroup2`, `cgroup1` or `rlimit`.
    pub limits: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AgentState {
    Ready,
    /// Its lease ran out; it is ready again once it registers.
    Lost,
}

/// A registered agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agent {
    pub profile: AgentProfile,
    pub state: AgentState,
    /// The entry that registered it as it is: this incarnation, with this profile.
    pub registered_index: u64,
}
