//! What the log knows of a worker machine. Heartbeats and load are not here: they are soft.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{AgentId, Incarnation};
use crate::limit;
use crate::rejected::Rejected;
use crate::spec::validate_labels;

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

impl AgentProfile {
    /// What can be said of it without the state.
    pub fn validate(&self) -> Result<(), Rejected> {
        if !self.id.is_valid() {
            return Err(Rejected::Invalid(format!("bad agent id `{}`", self.id)));
        }
        if self.slots == 0 {
            return Err(Rejected::Invalid("an agent needs at least 1 slot".into()));
        }
        if self.slots > limit::SLOTS_MAX {
            return Err(Rejected::over("slots", limit::SLOTS_MAX as usize, "slots"));
        }
        let texts = [
            ("an agent's version", &self.version),
            ("what an agent says of its limits", &self.limits),
        ];
        if let Some((what, _)) = texts
            .iter()
            .find(|(_, text)| text.len() > limit::LABEL_MAX_BYTES)
        {
            return Err(Rejected::over(what, limit::LABEL_MAX_BYTES, "bytes"));
        }
        validate_labels(&self.labels)
    }

    /// About how many bytes it takes in the log.
    pub fn size(&self) -> usize {
        let labels = self.labels.iter();
        let labels = labels.map(|(key, value)| key.len() + value.len() + 10);
        64 + self.version.len() + self.limits.len() + labels.sum::<usize>()
    }
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
