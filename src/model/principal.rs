//! Who asked. Every command carries one, taken from the certificate that proved it.

use serde::{Deserialize, Serialize};

/// What a certificate lets its holder be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    Controller,
    Agent,
    Client,
}

/// A proven identity: the name and role in a certificate, and that certificate's fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Principal {
    pub name: String,
    pub role: Role,
    /// SHA-256 over the certificate's DER.
    #[serde(with = "serde_bytes")]
    pub fingerprint: [u8; 32],
}
