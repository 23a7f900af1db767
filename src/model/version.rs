//! State versions: what the cluster's members have agreed to understand.
//!
//! Every controller applies the same entries, and controllers of two releases do so side by side while a
//! cluster is upgraded. So what a release adds to the log or to the state waits: the state has a version, each
//! command says from which one on it may be used, and the leader raises the version by an entry once every
//! member runs a release that understands it. Until then nothing is written that the older release
//! can't read, and `apply` refuses what needs more.
//!
//! A release understands a range of versions. One that finds a version outside its range stops: to go on
//! would be to differ from the other members.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::agent::{AgentProfile, AgentProtocol};
use crate::command::{Command, Op, Placement, SystemCommand};
use crate::entry::Entry;
use crate::rejected::Rejected;
use crate::state::State;
use crate::trailing::Unset as _;

/// What the state may hold, and the log may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StateVersion(pub u32);

impl StateVersion {
    /// That of release 0.1.0, and of every state before an entry raises it.
    pub const FIRST: StateVersion = StateVersion(1);
    /// The oldest that this release understands.
    pub const OLDEST: StateVersion = StateVersion::FIRST;
    /// From which on something may stand beside the log.
    pub const BLOBS: StateVersion = StateVersion(2);
    /// From which on back ends have settings.
    pub const BACKENDS: StateVersion = StateVersion(2);
    /// From which on it is known what agents understand.
    pub const AGENT_PROTOCOLS: StateVersion = StateVersion(2);
    /// From which on a task that is given back again waits before it goes on.
    pub const DECLINES_WAIT: StateVersion = StateVersion(2);
    /// From which on request ids of tasks in the archive are packed together, and forgotten together.
    pub const PACKED_REQUESTS: StateVersion = StateVersion(2);
    /// From which on a task may be of another class than its kind's, and rises to the next one where it waits for too long.
    pub const CLASSES: StateVersion = StateVersion(2);
    /// From which on it is kept who has used how much, and namespaces have settings.
    pub const SHARES: StateVersion = StateVersion(2);
    /// From which on it is set how agents are chosen.
    pub const POLICIES: StateVersion = StateVersion(2);
    /// From which on tasks ask for hardware, and agents say what they have.
    pub const RESOURCES: StateVersion = StateVersion(2);
    /// From which on people make rules.
    pub const RULES: StateVersion = StateVersion(2);
    /// From which on tasks prefer agents.
    pub const PREFERENCES: StateVersion = StateVersion(2);
    /// From which on it stands beside decisions what they were made by.
    pub const OBSERVATIONS: StateVersion = StateVersion(2);
    /// From which on tasks can take the places of others.
    pub const PREEMPTION: StateVersion = StateVersion(2);
    /// From which on traces are packed.
    pub const PACKED_TRACES: StateVersion = StateVersion(2);
    /// The newest that this release understands, and the one that a new cluster begins with.
    ///
    /// 2: the version is raised by an entry; blobs; settings of back ends; what is given back again waits; what agents
    /// understand; packed request ids; classes of tasks, and how long they wait; who has used how much, and
    /// settings of namespaces; how agents are chosen; what tasks ask for, and agents have; rules by hand; what tasks prefer; what decisions
    /// were made by; when tasks were expected to start; tasks that take the places of others; packed traces.
    pub const NEWEST: StateVersion = StateVersion(2);
}

/// The version of a state that nothing was applied to.
impl Default for StateVersion {
    fn default() -> StateVersion {
        StateVersion::FIRST
    }
}

impl fmt::Display for StateVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The versions that a release understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    pub oldest: StateVersion,
    pub newest: StateVersion,
}

/// Why a release must not go on with a state, or an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotUnderstood {
    #[error("this release understands state versions up to {newest}, not {found}; upgrade it")]
    TooNew {
        found: StateVersion,
        newest: StateVersion,
    },
    #[error(
        "this release understands state versions from {oldest} on, not {found}; run an earlier release, \
         which raises it"
    )]
    TooOld {
        found: StateVersion,
        oldest: StateVersion,
    },
}

impl Versions {
    pub const OF_THIS_RELEASE: Versions = Versions {
        oldest: StateVersion::OLDEST,
        newest: StateVersion::NEWEST,
    };
    /// Of a release that does not say which ones: 0.1.0.
    pub const UNTOLD: Versions = Versions {
        oldest: StateVersion::FIRST,
        newest: StateVersion::FIRST,
    };

    pub fn check(self, found: StateVersion) -> Result<(), NotUnderstood> {
        let Versions { oldest, newest } = self;
        match found {
            found if found > newest => Err(NotUnderstood::TooNew { found, newest }),
            found if found < oldest => Err(NotUnderstood::TooOld { found, oldest }),
            _ => Ok(()),
        }
    }

    /// Whether an entry may be applied: asked before it is, for `apply` itself knows no release.
    pub fn check_entry(self, entry: &Entry) -> Result<(), NotUnderstood> {
        let mut raises = entry.ops.iter().filter_map(raised_by);
        raises.try_for_each(|version| self.check(version))
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.oldest == self.newest {
            true => write!(f, "{}", self.newest),
            false => write!(f, "{}-{}", self.oldest, self.newest),
        }
    }
}

fn raised_by(op: &Op) -> Option<StateVersion> {
    match op {
        Op::System(SystemCommand::RaiseVersion { to }) => Some(*to),
        Op::System(_) | Op::Client { .. } => None,
    }
}

impl Command {
    /// The version from which on it may stand in the log, with all that is in it. A field that came later
    /// counts where it is given.
    pub fn needs(&self) -> StateVersion {
        match self {
            Command::SubmitTask(_) | Command::FinishAttempt(_) if !self.blobs().is_empty() => {
                StateVersion::BLOBS
            }
            Command::SetBackend(_) => StateVersion::BACKENDS,
            Command::SetNamespace(_) => StateVersion::SHARES,
            Command::SetPolicy(_) => StateVersion::POLICIES,
            Command::AddRule(_) | Command::RemoveRule { .. } => StateVersion::RULES,
            Command::RegisterAgent(profile) if profile.supply.is_some() => StateVersion::RESOURCES,
            Command::RegisterAgent(profile) if profile.protocol > AgentProtocol::FIRST => {
                StateVersion::AGENT_PROTOCOLS
            }
            Command::SubmitTask(submit) if !submit.spec.blobs.is_empty() => StateVersion::BLOBS,
            Command::SubmitTask(submit) if !submit.spec.hardware.is_unset() => {
                StateVersion::RESOURCES
            }
            Command::SubmitTask(submit) if !submit.spec.prefer.is_empty() => {
                StateVersion::PREFERENCES
            }
            Command::SubmitTask(submit) if submit.spec.preemptible => StateVersion::PREEMPTION,
            Command::SubmitTask(submit) if submit.spec.class.is_some() => StateVersion::CLASSES,
            Command::SubmitTask(_)
            | Command::CancelTask { .. }
            | Command::RegisterAgent(_)
            | Command::FinishAttempt(_)
            | Command::CordonAgent { .. }
            | Command::UncordonAgent { .. }
            | Command::DrainAgent(_)
            | Command::RemoveAgent { .. }
            | Command::CreateJoinToken(_)
            | Command::RevokeJoinToken { .. }
            | Command::Enrol(_) => StateVersion::FIRST,
        }
    }
}

impl Placement {
    fn needs(&self) -> StateVersion {
        match self.estimate {
            Some(_) => StateVersion::OBSERVATIONS.max(self.trace.needs()),
            None => self.trace.needs(),
        }
    }
}

impl SystemCommand {
    /// The same for what the leader does.
    pub fn needs(&self) -> StateVersion {
        match self {
            SystemCommand::Assign(assignment) => assignment.placement.needs(),
            SystemCommand::Found { .. }
            | SystemCommand::ExpireLease { .. }
            | SystemCommand::ExpireDeadline { .. }
            | SystemCommand::ExpireDrain { .. }
            | SystemCommand::Retain(_) => StateVersion::FIRST,
            SystemCommand::ExpireRule { .. } => StateVersion::RULES,
            SystemCommand::Observe(_) => StateVersion::OBSERVATIONS,
            SystemCommand::Preempt(preemption) => {
                StateVersion::PREEMPTION.max(preemption.assignment.placement.needs())
            }
            // It comes before what it makes room for. Who proposes it has asked all members first.
            SystemCommand::RaiseVersion { .. } => StateVersion::FIRST,
        }
    }
}

impl Op {
    pub fn needs(&self) -> StateVersion {
        match self {
            Op::Client { held: Some(_), .. } => StateVersion::BLOBS,
            Op::Client {
                placement: Some(placement),
                command,
                ..
            } => command.needs().max(placement.needs()),
            Op::Client { command, .. } => command.needs(),
            Op::System(command) => command.needs(),
        }
    }
}

impl State {
    /// Whether a command may be used yet. `apply` asks, and refuses; but a leader has to ask as well, before it
    /// proposes: members of the older release could not even decode it.
    pub fn admits(&self, command: &Command) -> Result<(), Rejected> {
        admit(command.needs(), self.state_version())
    }

    /// The same of an entry's operations: what raises the version makes room for those behind it.
    pub fn admits_all(&self, ops: &[Op]) -> Result<(), Rejected> {
        let mut version = self.state_version();
        ops.iter().try_for_each(|op| {
            version = raised_by(op).unwrap_or(version).max(version);
            admit(op.needs(), version)
        })
    }

    /// What an agent says of itself, as far as the log may say it now.
    pub fn recordable(&self, told: &AgentProfile) -> AgentProfile {
        let protocol = match self.state_version() >= StateVersion::AGENT_PROTOCOLS {
            true => told.protocol,
            false => AgentProtocol::FIRST,
        };
        let supply = match self.state_version() >= StateVersion::RESOURCES {
            true => told.supply.clone(),
            false => None,
        };
        AgentProfile {
            protocol,
            supply,
            ..told.clone()
        }
    }

    /// Whether an agent is known as just that.
    pub fn knows_as(&self, told: &AgentProfile) -> bool {
        let known = self.agent(&told.id);
        known.is_some_and(|known| known.profile == *told || known.profile == self.recordable(told))
    }

    pub(crate) fn admits_op(&self, op: &Op) -> Result<(), Rejected> {
        admit(op.needs(), self.state_version())
    }
}

fn admit(needs: StateVersion, version: StateVersion) -> Result<(), Rejected> {
    match needs <= version {
        true => Ok(()),
        false => Err(Rejected::NotYet { needs, version }),
    }
}
