//! What can go wrong, told apart by what the caller has to do about it.

use std::io;

use model::{Addresses, ControllerId};

/// The member that leads, as far as this one knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    pub id: ControllerId,
    pub addresses: Addresses,
}

/// Why nothing was done where trying again may help. A caller reacts alike to all of them; a person does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hindrance {
    /// Nobody leads just now, or the leader can't be reached: an election or a handover is due.
    NoLeader,
    /// Too few controllers answer.
    NoQuorum,
    /// Somebody who is needed has too much to do, or is not there yet.
    Busy,
    /// This controller is on its way out; another one is not.
    Stopping,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Ask the leader. Nothing was done.
    #[error("this controller does not lead{}", named(leader.as_ref()))]
    NotLeader { leader: Option<Leader> },
    /// Nothing was done; try again.
    #[error("{why}")]
    Unavailable { hindrance: Hindrance, why: String },
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

impl Error {
    pub fn no_leader(why: impl Into<String>) -> Self {
        Self::unavailable(Hindrance::NoLeader, why)
    }

    pub fn no_quorum(why: impl Into<String>) -> Self {
        Self::unavailable(Hindrance::NoQuorum, why)
    }

    pub fn busy(why: impl Into<String>) -> Self {
        Self::unavailable(Hindrance::Busy, why)
    }

    pub fn stopping() -> Self {
        Self::unavailable(Hindrance::Stopping, "this controller is stopping")
    }

    fn unavailable(hindrance: Hindrance, why: impl Into<String>) -> Self {
        let why = why.into();
        Self::Unavailable { hindrance, why }
    }
}

fn named(leader: Option<&Leader>) -> String {
    match leader {
        Some(leader) => format!(", {} at {} does", leader.id, leader.addresses.grpc),
        None => ", and it knows of none that does".to_owned(),
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Fatal(with_next_step(&error))
    }
}

/// What happened to a file, and what a person can do about it.
pub(crate) fn with_next_step(error: &io::Error) -> String {
    let step = match error.kind() {
        io::ErrorKind::PermissionDenied => "see who owns it, and its mode",
        io::ErrorKind::ReadOnlyFilesystem => "mount it so that it can be written",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "make room there, then start this controller again"
        }
        io::ErrorKind::NotADirectory
        | io::ErrorKind::IsADirectory
        | io::ErrorKind::AlreadyExists => "something else has its name: see --data-dir",
        io::ErrorKind::Unsupported => "run the release that wrote it, or a later one",
        // What it held can't be made good by trying again; it is with the others.
        io::ErrorKind::InvalidData => {
            "let the machine join under a new id, with an empty data directory"
        }
        _ => "see to the disk, then start this controller again",
    };
    format!("{error}; {step}")
}

impl From<crate::store::directory::OpenError> for Error {
    fn from(error: crate::store::directory::OpenError) -> Self {
        Self::Fatal(error.to_string())
    }
}
