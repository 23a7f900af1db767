//! What can go wrong, told apart by what the caller has to do about it.

use model::{Addresses, ControllerId};

/// The member that leads, as far as this one knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    pub id: ControllerId,
    pub addresses: Addresses,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Ask the leader. Nothing was done.
    #[error("this controller does not lead{}", named(leader.as_ref()))]
    NotLeader { leader: Option<Leader> },
    /// Nothing was done; try again.
    #[error("{0}")]
    Unavailable(String),
    /// It may have been done, or may still be: only a question with the same request id tells.
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
    /// The caller's mistake: trying again will not help.
    #[error("{0}")]
    Rejected(String),
    /// This controller can't go on.
    #[error("{0}")]
    Fatal(String),
}

fn named(leader: Option<&Leader>) -> String {
    match leader {
        Some(leader) => format!(", {} at {} does", leader.id, leader.addresses.grpc),
        None => ", and it knows of none that does".to_owned(),
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::Fatal(error.to_string())
    }
}

impl From<crate::store::directory::OpenError> for Error {
    fn from(error: crate::store::directory::OpenError) -> Self {
        Self::Fatal(error.to_string())
    }
}
