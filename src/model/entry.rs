//! What one Raft entry carries, and its bytes in the log.
//!
//! The encoding is MessagePack behind one byte that names the format: fields by their places, variants by their
//! names. Bytes that can't
//! be decoded are never a refusal, for another build might decode them: the process must stop
//! before it applies them.

use std::io;

use serde::{Deserialize, Serialize};

use crate::command::Op;
use crate::hash::ROOM;
use crate::time::Timestamp;

/// The format that this release writes.
const FORMAT: u8 = 1;

/// A batch of operations under one stamp.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// State time.
    pub stamp: Timestamp,
    /// The leader's wall clock, for display only.
    pub wall: Timestamp,
    pub ops: Vec<Op>,
}

/// An entry at its place in the log.
#[derive(Debug)]
pub struct Stamped {
    pub index: u64,
    pub term: u64,
    /// Index of the last membership entry of the log before this one; 0 where there is none.
    pub membership: u64,
    pub entry: Entry,
}

/// Bytes that this release can't read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("no bytes")]
    Empty,
    #[error("format {found} is not one that this release reads (it reads up to {newest})")]
    Format { found: u8, newest: u8 },
    #[error("{0}")]
    Body(String),
}

impl Entry {
    pub fn encode(&self) -> Vec<u8> {
        encode(FORMAT, self)
    }

    pub fn decode(bytes: &[u8]) -> Result<Entry, DecodeError> {
        decode(FORMAT, bytes)
    }
}

pub(crate) fn encode(format: u8, value: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(ROOM);
    write(format, value, &mut bytes).expect("our own types encode into memory");
    bytes
}

pub(crate) fn write(format: u8, value: &impl Serialize, mut to: impl io::Write) -> io::Result<()> {
    to.write_all(&[format])?;
    rmp_serde::encode::write(&mut to, value).map_err(io::Error::other)
}

pub(crate) fn decode<T: for<'de> Deserialize<'de>>(
    format: u8,
    bytes: &[u8],
) -> Result<T, DecodeError> {
    let (&found, mut body) = bytes.split_first().ok_or(DecodeError::Empty)?;
    if found != format {
        let newest = format;
        return Err(DecodeError::Format { found, newest });
    }
    read_body(&mut body)
}

/// A value behind its format byte, and nothing after it.
pub(crate) fn read_body<T: for<'de> Deserialize<'de>>(
    mut from: impl io::Read,
) -> Result<T, DecodeError> {
    let value = rmp_serde::decode::from_read(&mut from)
        .map_err(|error| DecodeError::Body(error.to_string()))?;
    match io::copy(&mut from, &mut io::sink()) {
        Ok(0) => Ok(value),
        Ok(more) => Err(DecodeError::Body(format!("{more} bytes too many"))),
        Err(error) => Err(DecodeError::Body(error.to_string())),
    }
}
