//! What an entry of the log carries, and what applying it answers.
//!
//! An entry is encoded once, where it is proposed. Those bytes go to the disk, to the peers and into
//! the cache; the decoded form rides along for the leader's own apply and is taken out by it, so that
//! the cache holds no second copy. Followers decode when they apply.

use std::fmt;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use model::{Rejected, Reply};

use crate::sync::lock;

/// An encoded `model::Entry`.
#[derive(Clone)]
pub struct Payload {
    encoded: Bytes,
    decoded: Arc<Mutex<Option<model::Entry>>>,
}

impl Payload {
    pub fn new(entry: model::Entry) -> Self {
        let encoded = Bytes::from(entry.encode());
        Self {
            encoded,
            decoded: Arc::new(Mutex::new(Some(entry))),
        }
    }

    pub fn from_encoded(encoded: Bytes) -> Self {
        Self {
            encoded,
            decoded: Arc::default(),
        }
    }

    pub fn encoded(&self) -> &Bytes {
        &self.encoded
    }

    /// The entry, decoded unless it still is. Bytes that can't be decoded are never a refusal: two
    /// members would differ; the caller stops.
    pub fn take_entry(&self) -> Result<model::Entry, model::DecodeError> {
        match lock(&self.decoded).take() {
            Some(entry) => Ok(entry),
            None => model::Entry::decode(&self.encoded),
        }
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.encoded.len())
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// One reply per operation of the entry; none for a blank entry or a change of membership.
#[derive(Debug, Default)]
pub struct Response {
    pub replies: Vec<Result<Reply, Rejected>>,
}
