//! A pin: the SHA-256 of a CA's public key, by which a machine knows a cluster before it has anything of it.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::error::Error;

/// Over the key as the certificate carries it (SubjectPublicKeyInfo), so that a renewed certificate of the
/// same key has the same pin.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Pin([u8; 32]);

impl Pin {
    pub(crate) fn of(ca: &CertificateDer<'_>) -> Result<Self, Error> {
        let (_, parsed) = X509Certificate::from_der(ca).map_err(|error| Error::Malformed {
            origin: "the CA".to_owned(),
            what: "certificate",
            reason: error.to_string(),
        })?;
        Ok(Self(Sha256::digest(parsed.public_key().raw).into()))
    }

    /// What is no certificate has no key.
    pub(crate) fn matches(&self, certificate: &CertificateDer<'_>) -> bool {
        Self::of(certificate).is_ok_and(|pin| pin == *self)
    }

    /// Whether one of these certificates, in PEM, has the key.
    pub fn is_among(&self, ca_pem: &str) -> bool {
        use rustls_pki_types::pem::PemObject;
        let mut all = CertificateDer::pem_slice_iter(ca_pem.as_bytes()).flatten();
        all.any(|certificate| self.matches(&certificate))
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pin({self})")
    }
}

impl FromStr for Pin {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok();
        let bytes = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        bytes.map(Self).ok_or(Error::NotAToken)
    }
}
