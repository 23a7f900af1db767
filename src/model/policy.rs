//! How an agent is chosen among those that fit: what administrators set for a namespace, for a kind of task, for both,
//! or for all.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::Namespace;
use crate::rejected::Rejected;
use crate::spec::{Kind, TaskSpec};
use crate::state::State;
use crate::time::Timestamp;

/// The label of a task that names its client, where one user stands for many: what strategies that keep to one agent go by.
pub const SESSION_LABEL: &str = "session";

/// What makes one agent with room better than another one.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub enum Strategy {
    /// The least loaded: attempts for each slot.
    #[default]
    Adaptive,
    /// One after the other.
    RoundRobin,
    /// The same, and one with twice the slots twice as often.
    WeightedRoundRobin,
    /// The fewest attempts, however many slots there are.
    LeastConnections,
    /// Always the same for one client, as long as it has room, and another one for few clients where agents come or go.
    IpHash,
    /// The less loaded of two that are drawn.
    PowerOfTwo,
    /// The fullest.
    Binpack,
    /// The one with the fewest attempts of the same namespace.
    Spread,
}

impl Strategy {
    pub const ALL: [Strategy; 8] = [
        Strategy::Adaptive,
        Strategy::RoundRobin,
        Strategy::WeightedRoundRobin,
        Strategy::LeastConnections,
        Strategy::IpHash,
        Strategy::PowerOfTwo,
        Strategy::Binpack,
        Strategy::Spread,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Strategy::Adaptive => "adaptive",
            Strategy::RoundRobin => "round_robin",
            Strategy::WeightedRoundRobin => "weighted_round_robin",
            Strategy::LeastConnections => "least_connections",
            Strategy::IpHash => "ip_hash",
            Strategy::PowerOfTwo => "power_of_two",
            Strategy::Binpack => "binpack",
            Strategy::Spread => "spread",
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is no strategy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no strategy: there are {names}", names = names())]
pub struct ParseStrategyError(pub String);

fn names() -> String {
    Strategy::ALL.map(Strategy::as_str).join(", ")
}

impl FromStr for Strategy {
    type Err = ParseStrategyError;

    fn from_str(text: &str) -> Result<Strategy, ParseStrategyError> {
        let found = Strategy::ALL.into_iter().find(|it| it.as_str() == text);
        found.ok_or_else(|| ParseStrategyError(text.to_owned()))
    }
}

/// Of which tasks a policy holds; what is left out is any.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    pub namespace: Option<Namespace>,
    pub kind: Option<Kind>,
}

impl Scope {
    /// Whether it has such tasks in it.
    pub fn has(&self, namespace: &Namespace, kind: Kind) -> bool {
        self.has_of(Some(namespace), kind)
    }

    /// The same; no namespace stands for one that no scope names.
    pub(crate) fn has_of(&self, namespace: Option<&Namespace>, kind: Kind) -> bool {
        let own = self.namespace.as_ref();
        own.is_none_or(|own| Some(own) == namespace) && self.kind.is_none_or(|own| own == kind)
    }

    pub fn validate(&self) -> Result<(), Rejected> {
        match &self.namespace {
            Some(namespace) if !namespace.is_valid() => {
                Err(Rejected::Invalid(format!("bad namespace `{namespace}`")))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// About how many bytes it takes in the log.
    pub fn size(&self) -> usize {
        let namespace = self.namespace.as_ref();
        namespace.map_or(0, |it| it.as_str().len())
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.namespace, self.kind) {
            (None, None) => f.write_str("all tasks"),
            (Some(namespace), None) => write!(f, "tasks of namespace {namespace}"),
            (None, Some(kind)) => write!(f, "tasks of kind {}", kind.as_str()),
            (Some(namespace), Some(kind)) => {
                write!(
                    f,
                    "tasks of kind {} in namespace {namespace}",
                    kind.as_str()
                )
            }
        }
    }
}

/// What was set for a scope, by whom and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    pub strategy: Strategy,
    pub by: String,
    /// Wall time, for display.
    pub since: Timestamp,
}

/// Says how agents are to be chosen; without a strategy the next wider scope says it from then on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetPolicy {
    pub scope: Scope,
    pub strategy: Option<Strategy>,
}

impl State {
    /// How an agent is chosen for a task: as was set for its kind in its namespace, else for its namespace, else for its
    /// kind, else for all.
    pub fn strategy_for(&self, spec: &TaskSpec) -> Strategy {
        if self.policies.is_empty() {
            return Strategy::default();
        }
        let (namespace, kind) = (Some(&spec.namespace), Some(spec.kind()));
        let scopes = [
            (namespace, kind),
            (namespace, None),
            (None, kind),
            (None, None),
        ];
        let mut set = scopes.into_iter().filter_map(|(namespace, kind)| {
            self.policies.get(&Scope {
                namespace: namespace.cloned(),
                kind,
            })
        });
        set.next()
            .map_or_else(Strategy::default, |policy| policy.strategy)
    }

    /// What was set, the widest scope first.
    pub fn policies(&self) -> impl Iterator<Item = (&Scope, &Policy)> {
        self.policies.iter()
    }
}
