//! The only place where wire and model types meet. Out of the model it can't fail; into the model
//! it checks what the wire could not express, and says in words what is wrong.

mod agent;
mod blob;
mod event;
mod joining;
mod namespace;
mod policy;
mod rule;
mod session;
mod spec;
mod task;

use std::collections::BTreeMap;

use model::StateHashes;

use crate::v1;

pub use agent::{backends_in, backends_out, backends_set_in, backends_set_out, hello};
pub use blob::{restore, shorten};
pub use event::event;
pub use joining::{enrolment_in, join_token_out, role_in, role_out};
pub use namespace::namespace_out;
pub use policy::{INHERIT, policies_out};
pub use rule::rule_out;
pub use task::{archived_task, state, states, task};

/// A message that the other side should not have sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

impl Malformed {
    fn missing(what: &str) -> Malformed {
        Malformed(format!("{what} is missing"))
    }
}

impl From<model::ParseIdError> for Malformed {
    fn from(error: model::ParseIdError) -> Malformed {
        Malformed(error.to_string())
    }
}

impl From<&model::Fence> for v1::Fence {
    fn from(fence: &model::Fence) -> v1::Fence {
        v1::Fence {
            task: fence.task.0,
            generation: fence.generation.0,
            epoch: fence.epoch.0,
        }
    }
}

impl From<model::Fence> for v1::Fence {
    fn from(fence: model::Fence) -> v1::Fence {
        v1::Fence::from(&fence)
    }
}

impl From<v1::Fence> for model::Fence {
    fn from(fence: v1::Fence) -> model::Fence {
        model::Fence {
            task: model::TaskId(fence.task),
            generation: model::Generation(fence.generation),
            epoch: model::Epoch(fence.epoch),
        }
    }
}

/// A fence that a frame must carry.
pub fn fence(fence: Option<v1::Fence>) -> Result<model::Fence, Malformed> {
    fence
        .map(model::Fence::from)
        .ok_or_else(|| Malformed::missing("the fence"))
}

impl From<&model::Addresses> for v1::Addresses {
    fn from(addresses: &model::Addresses) -> v1::Addresses {
        v1::Addresses {
            grpc: addresses.grpc.clone(),
            raft: addresses.raft.clone(),
            https: addresses.https.clone(),
        }
    }
}

impl From<v1::Addresses> for model::Addresses {
    fn from(addresses: v1::Addresses) -> model::Addresses {
        model::Addresses {
            grpc: addresses.grpc,
            raft: addresses.raft,
            https: addresses.https,
        }
    }
}

/// State hashes, the oldest first.
pub fn state_hashes_out(hashes: &StateHashes) -> Vec<v1::StateHash> {
    let hash = |(index, hash): (&u64, &[u8; 32])| v1::StateHash {
        index: *index,
        hash: hash.to_vec().into(),
    };
    hashes.iter().map(hash).collect()
}

pub fn state_hashes_in(hashes: &[v1::StateHash]) -> Result<StateHashes, Malformed> {
    let hash = |told: &v1::StateHash| match <[u8; 32]>::try_from(&told.hash[..]) {
        Ok(hash) => Ok((told.index, hash)),
        Err(_) => Err(Malformed(format!("a hash of {} bytes", told.hash.len()))),
    };
    hashes.iter().map(hash).collect()
}

impl From<model::Versions> for v1::StateVersions {
    fn from(versions: model::Versions) -> v1::StateVersions {
        v1::StateVersions {
            oldest: versions.oldest.0,
            newest: versions.newest.0,
        }
    }
}

/// Release 0.1.0 says nothing of it.
pub fn versions_in(versions: Option<v1::StateVersions>) -> model::Versions {
    versions.map_or(model::Versions::UNTOLD, |versions| model::Versions {
        oldest: model::StateVersion(versions.oldest),
        newest: model::StateVersion(versions.newest),
    })
}

/// Labels, in the order of their keys.
pub fn labels_out(labels: &BTreeMap<String, String>) -> Vec<v1::Label> {
    let label = |(key, value): (&String, &String)| v1::Label {
        key: key.clone(),
        value: value.clone(),
    };
    labels.iter().map(label).collect()
}

/// Labels, each key once.
pub fn labels_in(labels: Vec<v1::Label>) -> Result<BTreeMap<String, String>, Malformed> {
    let mut map = BTreeMap::new();
    for v1::Label { key, value } in labels {
        if map.insert(key.clone(), value).is_some() {
            return Err(Malformed(format!("label `{key}` is given twice")));
        }
    }
    Ok(map)
}

#[cfg(test)]
mod tests;
