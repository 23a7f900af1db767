//! Why an agent does not start, or stops: each says what, why and what to do.

use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Config(#[from] crate::config::Invalid),
    #[error(transparent)]
    Identity(#[from] security::Error),
    #[error("{}: {reason}; the agent has to be able to read and write it", path.display())]
    Io { path: PathBuf, reason: io::Error },
    /// Its text names the file.
    #[error("{0}; the agent has to be able to read and write it")]
    Named(io::Error),
    #[error(
        "{} is in use by another agent: give each its own data directory, or stop that one",
        path.display()
    )]
    Locked { path: PathBuf },
    #[error(
        "{} belongs to agent {theirs} of cluster {their_cluster}, and this is {ours} of \
         {our_cluster}: give it a data directory of its own",
        path.display()
    )]
    Foreign {
        path: PathBuf,
        ours: String,
        our_cluster: String,
        theirs: String,
        their_cluster: String,
    },
    #[error(
        "{} has schema {found}, and this release knows {known}: start the release that wrote it, or \
         give this one a data directory of its own",
        path.display()
    )]
    Schema {
        path: PathBuf,
        found: u32,
        known: u32,
    },
    #[error(
        "{}: {reason}. If the disk is sound, move the file away: the agent then begins as a new \
         incarnation, and what it held is given to others when its lease runs out",
        path.display()
    )]
    Corrupt { path: PathBuf, reason: String },
    #[error(
        "{0}; if an earlier release ran here meanwhile, remove the one with the checksum; else start the agent with an empty \
         data directory and its identity: what it held is given to others when its lease runs out"
    )]
    Altered(durable::checked::Error),
    #[error("the certificate in {} is for {found}, not for agent {wanted}", path.display())]
    WrongIdentity {
        path: PathBuf,
        found: String,
        wanted: String,
    },
    /// The disk failed under the journal: nothing may be started or reported any more.
    #[error("the journal can't be written: {0}")]
    Journal(String),
    #[error("can't start a thread: {0}")]
    Thread(io::Error),
    /// It had started, and has to stop. What is on disk is the truth, and a restart goes on from it.
    #[error("this agent can't go on: {0}")]
    Fatal(#[source] Box<Error>),
}

impl Error {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |reason| Error::Io { path, reason }
    }
}
