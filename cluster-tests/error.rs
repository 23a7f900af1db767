//! What can go wrong in the harness itself, by what it means for the run.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why a run did not come to its verdict, or what the verdict is.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A fault did not take effect, so whatever else was seen shows nothing.
    #[error("INVALID: {0}")]
    Invalid(String),
    /// What was asked for can't be had on this machine.
    #[error("INVALID: {0}")]
    Missing(String),
    #[error("waited {waited:.1?} for {what}; last seen: {last}")]
    Timeout {
        what: String,
        waited: Duration,
        last: String,
    },
    #[error("{what} {path}: {source}")]
    File {
        what: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{what}: {source}")]
    Io {
        what: &'static str,
        source: std::io::Error,
    },
    #[error("{path} is not what cli.md promises: {reason}")]
    Format { path: PathBuf, reason: String },
    #[error("`quorate {command}` ended with {code}: {stderr}")]
    Command {
        command: String,
        code: String,
        stderr: String,
    },
    /// A program of the system that the harness needs.
    #[error("`{command}`: {said}")]
    Tool { command: String, said: String },
    #[error(transparent)]
    Security(#[from] security::Error),
    #[error("{call}: {status}")]
    Call {
        call: &'static str,
        status: Box<tonic::Status>,
    },
    /// The cluster broke a promise.
    #[error("{0}")]
    Broken(String),
}

impl Error {
    pub fn file(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::File { what, path, source }
    }

    pub fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> Error {
        move |source| Error::Io { what, source }
    }

    pub fn call(call: &'static str) -> impl FnOnce(tonic::Status) -> Error {
        move |status| Error::Call {
            call,
            status: Box::new(status),
        }
    }

    pub fn format(path: &Path, reason: impl ToString) -> Error {
        Error::Format {
            path: path.to_owned(),
            reason: reason.to_string(),
        }
    }
}
