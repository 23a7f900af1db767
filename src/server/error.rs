//! Why a controller could not start, or had to stop.

use std::io;
use std::path::PathBuf;

use crate::config::Invalid;

/// All of them end the process; what to do next stands in the message.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("setting {0}")]
    Config(#[from] Invalid),
    #[error(transparent)]
    Identity(#[from] security::Error),
    #[error(
        "the certificate in {} is {found}'s, and this is controller {wanted}; \
         make one with `quorate cert create --role controller --id {wanted}`", path.display()
    )]
    WrongIdentity {
        path: PathBuf,
        found: String,
        wanted: model::ControllerId,
    },
    #[error("cannot listen on {address} ({port}): {source}; {}", next_step(source))]
    Listen {
        address: String,
        port: &'static str,
        source: io::Error,
    },
    #[error(transparent)]
    Raft(raft::Error),
    #[error(
        "{0} was removed from the cluster, and its id is never used again; to use this machine again, give it \
         a new id and certificate, and let it join with an empty data directory"
    )]
    Removed(model::ControllerId),
    #[error("the {port} port stopped: {reason}")]
    Stopped { port: &'static str, reason: String },
    /// Storage or consensus failed; what is on disk is the truth, and a restart goes on from it.
    #[error("this controller can't go on: {0}")]
    Fatal(String),
}

impl From<raft::Error> for Error {
    fn from(error: raft::Error) -> Error {
        match error {
            raft::Error::Fatal(reason) => Error::Fatal(reason),
            raft::Error::NotLeader { .. }
            | raft::Error::Unavailable { .. }
            | raft::Error::Unknown(_)
            | raft::Error::Rejected(_) => Error::Raft(error),
        }
    }
}

fn next_step(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::AddrInUse => {
            "another process has the port: stop it, or use another --listen"
        }
        io::ErrorKind::AddrNotAvailable => "this machine does not have that address: see --listen",
        io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege: see --listen",
        _ => "see --listen",
    }
}
