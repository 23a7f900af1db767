//! What the leader knows of the agents beyond the log: sessions, silence, and what it has decided
//! but not yet applied. An input of the plan, gathered by the dispatcher.

use std::collections::BTreeMap;

use model::AgentId;

/// The agents as the leader sees them now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fleet {
    pub agents: BTreeMap<AgentId, AgentView>,
}

/// One agent's soft state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentView {
    /// A session on which assignments can be sent.
    pub connected: bool,
    /// On that session it said that it would give back whatever it is sent.
    pub declining: bool,
    /// Silent for too long: no new work.
    pub suspect: bool,
    /// Attempts that it may hold beyond its slots.
    pub prefetch: u32,
    /// Placements that are proposed but not applied yet: they count as taken.
    pub reserved: u32,
    /// The models that those of them ask.
    pub asking: model::Asking,
}
