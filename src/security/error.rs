//! What can go wrong with certificates and keys, each in one sentence: what, why, and the next step.
//!
//! These are errors of this machine's files and of requests to the CA. A peer that is refused in a
//! handshake is `verify::Refused`, because it travels inside a `rustls::Error`.

use std::io;
use std::path::PathBuf;

use crate::identity::Role;

/// An error of this crate. None of them is worth repeating without changing something first.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {}: {source}; check the path and that this user may read it", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {}: {source}; check that the directory exists, is writable and has room", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error(
        "{} already exists and is not overwritten, because what it signed would be lost; choose another directory or move it away",
        .0.display()
    )]
    Exists(PathBuf),
    #[error(
        "key file {} can be read by others (mode {mode:04o}), so it may have been copied; run `chmod 600` on it, or make a new key",
        path.display()
    )]
    Exposed { path: PathBuf, mode: u32 },
    #[error("{} is {size} bytes, more than the {limit} a PEM file here may have; check the path", path.display())]
    TooLarge {
        path: PathBuf,
        size: u64,
        limit: u64,
    },
    #[error(
        "{origin} holds no usable {what} ({reason}); check that it is the right PEM file and whole"
    )]
    Malformed {
        origin: String,
        what: &'static str,
        reason: String,
    },
    #[error(
        "the certificate in {origin} names no identity of a cluster: {reason}; make one with `quorate cert create`"
    )]
    NoIdentity { origin: String, reason: String },
    #[error(
        "the key does not belong to the certificate in {origin}; copy certificate and key together, or make both anew with `quorate cert create`"
    )]
    KeyMismatch { origin: String },
    #[error("the certificate in {origin} is not valid: {reason}; {next}")]
    Invalid {
        origin: String,
        reason: String,
        next: &'static str,
    },
    #[error(
        "{what} {value:?} is not allowed: use 1 to 63 of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit"
    )]
    BadName { what: &'static str, value: String },
    #[error(
        "this is not a whole join token, qt1.ID.SECRET.PIN; copy it again, or make another one with `quorate join-token create`"
    )]
    NotAToken,
    #[error("{0:?} is not a role; use controller, agent or client")]
    BadRole(String),
    #[error(
        "{0:?} is neither a DNS name nor an IP address; give the name or address that others dial, without a port"
    )]
    BadHost(String),
    #[error(
        "only a controller's certificate carries host names, and this one is for role {0}; leave the names out"
    )]
    NamesNotAllowed(Role),
    #[error(
        "this CA is of cluster {own} and issues nothing for cluster {asked}; use the CA of that cluster"
    )]
    ForeignCluster { own: String, asked: String },
    #[error(
        "the certificate library refused to {what}: {reason}; this is a bug or a broken installation, please report it"
    )]
    Internal { what: &'static str, reason: String },
}
