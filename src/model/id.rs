//! Names and numbers of things. Each is a type of its own, so that no two can be mixed up.
//!
//! Numbers are shown with a letter in front (`t17`, `c1`), and read back the same way.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What was given is not an id of this kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not {wanted}")]
pub struct ParseIdError {
    pub given: String,
    pub wanted: &'static str,
}

macro_rules! numbered_id {
    ($(#[$doc:meta])* $name:ident, $letter:literal, $wanted:literal) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($letter, "{}"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(given: &str) -> Result<Self, ParseIdError> {
                given
                    .strip_prefix($letter)
                    .filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
                    .and_then(|digits| digits.parse().ok())
                    .map($name)
                    .ok_or_else(|| ParseIdError { given: given.to_owned(), wanted: $wanted })
            }
        }
    };
}

numbered_id!(
    /// A task, numbered by the cluster in the order of submits from 1; so ids order by age.
    TaskId,
    "t",
    "a task id such as t17"
);
numbered_id!(
    /// A controller; also its Raft node id. Never used again once removed.
    ControllerId,
    "c",
    "a controller id such as c1"
);

/// A rule by hand: the log index of the entry that made it, and which of those that this entry made. Never given again.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct RuleId {
    pub entry: u64,
    pub nth: u16,
}

/// `r17`, and `r17.1` for the second of one entry.
impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.nth {
            0 => write!(f, "r{}", self.entry),
            nth => write!(f, "r{}.{nth}", self.entry),
        }
    }
}

impl FromStr for RuleId {
    type Err = ParseIdError;

    fn from_str(given: &str) -> Result<RuleId, ParseIdError> {
        let parsed = given.strip_prefix('r').and_then(|rest| {
            let (entry, nth) = rest.split_once('.').unwrap_or((rest, "0"));
            let are_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
            (are_digits(entry) && are_digits(nth)).then_some(())?;
            Some(RuleId {
                entry: entry.parse().ok()?,
                nth: nth.parse().ok()?,
            })
        });
        parsed.ok_or_else(|| ParseIdError {
            given: given.to_owned(),
            wanted: "a rule's id such as r17",
        })
    }
}

/// The log index of the entry that assigned an attempt: strictly increasing for a task.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub u64);

/// The cluster's generation, raised when a log is recovered or restored and indexes may repeat.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Generation(pub u64);

/// Random bytes that an agent makes with its journal: a new journal is a new incarnation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Incarnation(#[serde(with = "serde_bytes")] pub [u8; 16]);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Incarnation({self})")
    }
}

/// What a report must carry to count: the live attempt of a task under this generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fence {
    pub task: TaskId,
    pub generation: Generation,
    pub epoch: Epoch,
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}.{}", self.task, self.generation.0, self.epoch.0)
    }
}

/// Longest name of an agent or a namespace, in bytes: what fits a host name's label.
const NAME_MAX: usize = 63;

macro_rules! named_id {
    ($(#[$doc:meta])* $name:ident, $wanted:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Lower-case letters, digits, `.`, `_` and `-`, beginning with a letter or digit.
            pub fn new(given: &str) -> Result<Self, ParseIdError> {
                if is_name(given) {
                    Ok($name(given.into()))
                } else {
                    Err(ParseIdError { given: given.to_owned(), wanted: $wanted })
                }
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// Whether it still is one: a decoded value did not pass through [`Self::new`].
            pub fn is_valid(&self) -> bool {
                is_name(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(given: &str) -> Result<Self, ParseIdError> {
                $name::new(given)
            }
        }
    };
}

named_id!(
    /// An agent, by the name that its certificate carries.
    AgentId,
    "an agent id: 1 to 63 of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit"
);
named_id!(
    /// Who shares a quota and a weight.
    Namespace,
    "a namespace: 1 to 63 of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit"
);

named_id!(
    /// A join token, as lists show it: the part of it that is no secret.
    JoinTokenId,
    "a join token's id: 1 to 63 of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit"
);

fn is_name(given: &str) -> bool {
    let allowed =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
    given.len() <= NAME_MAX
        && given.bytes().all(allowed)
        && given
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_alphanumeric())
}
