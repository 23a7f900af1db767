//! What the log knows of a worker machine. Heartbeats and load are not here: they are soft.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{AgentId, Incarnation};
use crate::inference::{Backend, size_of_backends, validate_backends};
use crate::label::Expression;
use crate::limit;
use crate::rejected::Rejected;
use crate::resource::{Demand, Supply, could};
use crate::spec::{TaskSpec, validate_labels};
use crate::time::Timestamp;
use crate::trace::Reason;
use crate::trailing::{Unset, positional};

/// What an agent understands of what it is sent. A newer one understands all that an older one does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AgentProtocol(pub u32);

impl AgentProtocol {
    /// That of release 0.1.0, which does not say.
    pub const FIRST: AgentProtocol = AgentProtocol(1);
    /// From which on it fetches what stands beside a spec: attached files, and what was too long to stand in it.
    pub const BLOBS: AgentProtocol = AgentProtocol(2);
    /// From which on it says what it has, and gives an attempt the GPUs that it is assigned.
    pub const RESOURCES: AgentProtocol = AgentProtocol(3);
    /// From which on an attempt can wait for the end of those whose places it has got.
    pub const PREEMPTION: AgentProtocol = AgentProtocol(4);
    /// That of this release's agent.
    pub const NEWEST: AgentProtocol = AgentProtocol::PREEMPTION;
}

impl Default for AgentProtocol {
    fn default() -> AgentProtocol {
        AgentProtocol::FIRST
    }
}

impl Unset for AgentProtocol {
    fn is_unset(&self) -> bool {
        *self == AgentProtocol::FIRST
    }
}

/// What an agent says of itself when it opens a session.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentProfile {
    pub id: AgentId,
    pub incarnation: Incarnation,
    pub slots: u32,
    pub labels: BTreeMap<String, String>,
    pub version: String,
    /// How it enforces limits: `cgroup2`, `cgroup1` or `rlimit`.
    pub limits: String,
    /// The model servers that it reaches, and what they offer now.
    #[serde(default)]
    pub backends: Vec<Backend>,
    #[serde(default)]
    pub protocol: AgentProtocol,
    /// What it has for its attempts.
    #[serde(default)]
    pub supply: Option<Supply>,
}

positional!(AgentProfile { id, incarnation, slots, labels, version, limits, backends } later { protocol, supply });

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
        validate_labels(&self.labels)?;
        self.supply.as_ref().map_or(Ok(()), Supply::validate)?;
        validate_backends(&self.backends)
    }

    /// Whether one of its back ends has this model.
    pub fn offers(&self, model: &str) -> bool {
        let mut models = self.backends.iter().flat_map(|backend| &backend.models);
        models.any(|offered| offered == model)
    }

    /// Whether it is as a task requires.
    pub fn satisfies(&self, require: &[Expression]) -> bool {
        require.iter().all(|expression| expression.matches(self))
    }

    /// Whether it understands all of a task. One that does not would run a part of it.
    pub fn understands(&self, spec: &TaskSpec) -> Result<(), Reason> {
        match spec.blobs.is_empty() {
            true => Ok(()),
            false => self.understands_blobs(),
        }
    }

    /// Whether it still has what an attempt was assigned there: it may have come back as another machine.
    pub fn has(&self, demand: &Demand, gpus: &[u16]) -> Result<(), Reason> {
        could(self.supply.as_ref(), demand)?;
        let vram = |place: &u16| {
            let supply = self.supply.as_ref()?;
            supply.gpus.get(usize::from(*place)).copied()
        };
        let is_there = |place: &u16| vram(place).is_some_and(|vram| vram >= demand.vram_mib);
        match gpus.iter().all(is_there) {
            true => Ok(()),
            false => Err(Reason::LacksGpus),
        }
    }

    /// Whether it begins an attempt only after others have ended, where it is told to.
    pub fn awaits_ends(&self) -> Result<(), Reason> {
        match self.protocol >= AgentProtocol::PREEMPTION {
            true => Ok(()),
            false => Err(Reason::TooOld),
        }
    }

    /// The same of any task that has something beside its spec.
    pub fn understands_blobs(&self) -> Result<(), Reason> {
        match self.protocol >= AgentProtocol::BLOBS {
            true => Ok(()),
            false => Err(Reason::TooOld),
        }
    }

    /// About how many bytes it takes in the log.
    pub fn size(&self) -> usize {
        let labels = self.labels.iter();
        let labels = labels.map(|(key, value)| key.len() + value.len() + 10);
        64 + size_of_backends(&self.backends)
            + self.version.len()
            + self.limits.len()
            + self.supply.as_ref().map_or(0, Supply::size)
            + labels.sum::<usize>()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AgentState {
    Ready,
    /// Its lease ran out; it is ready again once it registers.
    Lost,
}

/// Somebody closed an agent to new work. It stays so until it is opened again by name: what the agent
/// does, restarts and losses too, changes nothing about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cordon {
    pub by: String,
    pub reason: String,
    /// Wall time, for display.
    pub since: Timestamp,
    /// What it holds has to go as well.
    pub drain: Option<Drain>,
}

/// Until when what an agent holds may end by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// State time, so that a new leader goes on with the same deadline.
    pub until: Timestamp,
    /// The same in wall time, for display.
    pub until_wall: Timestamp,
    pub stage: DrainStage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DrainStage {
    /// What runs may end.
    Waiting,
    /// The time was up: what it still holds is interrupted.
    Overdue,
}

/// A registered agent.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agent {
    pub profile: AgentProfile,
    pub state: AgentState,
    /// The entry that registered it as it is: this incarnation, with this profile.
    pub registered_index: u64,
    /// Left out where there is none: the record of an agent that nobody closed, and its hash, are what
    /// they were before agents could be closed.
    #[serde(default)]
    pub cordon: Option<Cordon>,
}

positional!(Agent { profile, state, registered_index } later { cordon });

impl Agent {
    pub fn drain(&self) -> Option<&Drain> {
        self.cordon.as_ref()?.drain.as_ref()
    }

    /// Whether it may be given work, as far as people have a say in it.
    pub fn is_open(&self) -> Result<(), Reason> {
        match &self.cordon {
            None => Ok(()),
            Some(Cordon { drain: None, .. }) => Err(Reason::Cordoned),
            Some(Cordon { drain: Some(_), .. }) => Err(Reason::Draining),
        }
    }
}
