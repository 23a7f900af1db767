//! Join tokens: who may come into the cluster, and who came.
//!
//! An administrator makes one, and a machine that knows its secret gets a name and a certificate. The log
//! holds a SHA-256 of the secret and of each machine's public key, never the secret. A token is good for a
//! number of machines until a point in state time. The machine that it let in is remembered with its key,
//! so that the same key may ask again for an answer that it did not hear.
//!
//! A name has one holder, the key that it was given to, for as long as the cluster knows the name. A
//! controller's name is a number that is never given again.
//!
//! Left out: secrets, proofs and certificates. A controller checks the first two before it proposes, and
//! makes the last after the entry is committed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{AgentId, ControllerId, JoinTokenId};
use crate::limit;
use crate::principal::Role;
use crate::rejected::Rejected;
use crate::spec::validate_labels;
use crate::table::{Dump, Rows, Table};
use crate::time::{Millis, Timestamp};

/// SHA-256 over a machine's public key, as its certificate carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyHash(#[serde(with = "serde_bytes")] pub [u8; 32]);

/// What an administrator asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewJoinToken {
    pub id: JoinTokenId,
    /// SHA-256 of the secret.
    #[serde(with = "serde_bytes")]
    pub secret: [u8; 32],
    /// What a machine becomes with it: controller or agent.
    pub role: Role,
    /// The name of the one machine that it is for; else the machine says what it wants to be called, and a
    /// controller gets the next number.
    pub name: Option<String>,
    /// How many machines it lets in.
    pub uses: u32,
    /// How long it is good, counted in state time from its entry on.
    pub ttl: Millis,
    /// How long the certificates live that it gives.
    pub validity: Millis,
    /// What agents that came by it bear beside their own labels.
    pub labels: BTreeMap<String, String>,
}

impl NewJoinToken {
    pub fn validate(&self) -> Result<(), Rejected> {
        let invalid = |why: &str| Err(Rejected::Invalid(why.to_owned()));
        if !self.id.is_valid() || self.id.as_str().contains('.') {
            return invalid("a join token's id has no dots: they divide the token's parts");
        }
        if self.uses == 0 || self.uses > limit::JOIN_TOKEN_USES_MAX {
            let most = limit::JOIN_TOKEN_USES_MAX;
            return invalid(&format!("a join token lets in 1 to {most} machines"));
        }
        if self.name.is_some() && self.uses > 1 {
            return invalid(
                "a join token with a name is for one machine: leave out the name or the uses",
            );
        }
        if self.ttl == Millis(0) || self.ttl > limit::JOIN_TOKEN_TTL_MAX {
            let days = limit::JOIN_TOKEN_TTL_MAX.0 / 86_400_000;
            return invalid(&format!(
                "a join token is good for some time, {days} days at most"
            ));
        }
        if self.validity < limit::VALIDITY_MIN || self.validity > limit::VALIDITY_MAX {
            let (least, days) = (
                limit::VALIDITY_MIN.0 / 1000,
                limit::VALIDITY_MAX.0 / 86_400_000,
            );
            return invalid(&format!(
                "a certificate lives {least} seconds to {days} days"
            ));
        }
        validate_labels(&self.labels)?;
        match (self.role, &self.name) {
            (Role::Client, _) => invalid("a join token is for an agent or a controller"),
            (Role::Controller, _) if !self.labels.is_empty() => {
                invalid("labels are for agents: a controller has none")
            }
            (Role::Controller, Some(name)) => controller_number(name).map(drop),
            (Role::Agent, Some(name)) => agent_name(name),
            (Role::Controller | Role::Agent, None) => Ok(()),
        }
    }

    /// About how many bytes it takes in the log.
    pub fn size(&self) -> usize {
        let labels = self
            .labels
            .iter()
            .map(|(key, value)| key.len() + value.len() + 10);
        128 + self.name.as_ref().map_or(0, String::len) + labels.sum::<usize>()
    }
}

/// A token as the cluster keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinToken {
    pub asked: NewJoinToken,
    /// Who made it.
    pub by: String,
    /// State time.
    pub expires: Timestamp,
    /// Wall time, for display.
    pub expires_wall: Timestamp,
    /// Wall time, for display. Set where somebody revoked it.
    pub revoked: Option<Timestamp>,
    /// In the order in which they came.
    pub admitted: Vec<Admitted>,
}

/// A machine that a token let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admitted {
    pub key: KeyHash,
    pub name: String,
}

/// What a token is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Good,
    UsedUp,
    Expired,
    Revoked,
}

impl JoinToken {
    pub fn standing(&self, now: Timestamp) -> Standing {
        match () {
            () if self.revoked.is_some() => Standing::Revoked,
            () if self.expires <= now => Standing::Expired,
            () if self.uses_left() == 0 => Standing::UsedUp,
            () => Standing::Good,
        }
    }

    pub fn uses_left(&self) -> u32 {
        let used = u32::try_from(self.admitted.len()).unwrap_or(u32::MAX);
        self.asked.uses.saturating_sub(used)
    }
}

/// A machine that joins, as a controller vouches for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolment {
    pub token: JoinTokenId,
    pub role: Role,
    pub key: KeyHash,
    /// What it wants to be called; empty where it does not mind.
    pub name: String,
    /// The highest number of a controller that the proposer knows, now or once: Raft's membership is no
    /// part of this state.
    pub last_controller: ControllerId,
}

impl Enrolment {
    pub fn validate(&self) -> Result<(), Rejected> {
        match (self.role, self.name.as_str()) {
            (_, "") => Ok(()),
            (Role::Agent, name) => agent_name(name),
            (Role::Controller, name) => controller_number(name).map(drop),
            (Role::Client, _) => Err(Rejected::Invalid("a client does not join".into())),
        }
    }

    /// About how many bytes it takes in the log.
    pub fn size(&self) -> usize {
        96 + self.name.len()
    }
}

/// The answer to a machine that was let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolled {
    pub name: String,
    /// How long its certificate lives.
    pub validity: Millis,
    pub labels: BTreeMap<String, String>,
}

fn agent_name(name: &str) -> Result<(), Rejected> {
    let checked = AgentId::new(name).map(drop);
    checked.map_err(|error| Rejected::Invalid(error.to_string()))
}

/// The number of a controller's name, which is written in one way only.
pub(crate) fn controller_number(name: &str) -> Result<ControllerId, Rejected> {
    match name.parse::<ControllerId>() {
        Ok(id) if id.0 > 0 && id.to_string() == name => Ok(id),
        _ => Err(Rejected::Invalid(format!(
            "`{name}` is not a controller id such as c4"
        ))),
    }
}

/// Whose name it is.
pub(crate) type Holder = (Role, String);

/// All of it.
#[derive(Debug, Clone)]
pub(crate) struct Joining {
    pub tokens: Table<JoinTokenId, JoinToken>,
    /// The key that each name was given to.
    pub holders: Table<Holder, KeyHash>,
}

impl Default for Joining {
    fn default() -> Joining {
        Joining {
            tokens: Table::new("join_token"),
            holders: Table::new("holder"),
        }
    }
}

/// A dump of it.
pub(crate) type JoiningDump<'a> = (Dump<'a, JoinTokenId, JoinToken>, Dump<'a, Holder, KeyHash>);

/// What a dumped one decodes into.
pub(crate) type Dumped = (Rows<JoinTokenId, JoinToken>, Rows<Holder, KeyHash>);

impl Joining {
    pub fn dump(&self) -> JoiningDump<'_> {
        (self.tokens.dump(), self.holders.dump())
    }

    pub fn restore((tokens, holders): Dumped) -> Joining {
        Joining {
            tokens: Table::restore("join_token", tokens),
            holders: Table::restore("holder", holders),
        }
    }

    /// Nobody holds this agent's name any more.
    pub fn release_agent(&mut self, id: &AgentId) {
        self.holders.remove(&(Role::Agent, id.to_string()));
    }

    /// The highest number that was given to a controller here.
    pub fn last_controller(&self) -> ControllerId {
        let names = self
            .holders
            .iter()
            .filter(|((role, _), _)| *role == Role::Controller);
        let numbers = names.filter_map(|((_, name), _)| controller_number(name).ok());
        numbers.max().unwrap_or(ControllerId(0))
    }
}
