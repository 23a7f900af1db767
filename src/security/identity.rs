//! An identity and how a certificate says it: exactly one URI name, `spiffe://<cluster>/<role>/<id>`.
//!
//! The three parts share one alphabet, so that an identity can be a directory name, a metric label and a
//! part of a URI without escaping, and so that no two spellings mean the same identity.

use std::fmt;
use std::str::FromStr;

use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::error::Error;

const SCHEME: &str = "spiffe://";
/// Bytes. The same limit as for an agent's name, and that of a DNS label.
const NAME_LIMIT: usize = 63;

/// What a process is. It decides which ports a certificate opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    Controller,
    Agent,
    Client,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Controller => "controller",
            Self::Agent => "agent",
            Self::Client => "client",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "controller" => Ok(Self::Controller),
            "agent" => Ok(Self::Agent),
            "client" => Ok(Self::Client),
            other => Err(Error::BadRole(other.to_owned())),
        }
    }
}

/// Who a certificate speaks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    cluster: String,
    role: Role,
    id: String,
}

impl Identity {
    pub fn new(cluster: &str, role: Role, id: &str) -> Result<Self, Error> {
        Ok(Self {
            cluster: checked("cluster id", cluster)?,
            role,
            id: checked("id", id)?,
        })
    }

    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    pub fn role(&self) -> Role {
        self.role
    }

    pub fn id(&self) -> &str {
        &self.id
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}/{}", self.cluster, self.role, self.id)
    }
}

impl FromStr for Identity {
    type Err = Error;

    fn from_str(uri: &str) -> Result<Self, Error> {
        let malformed = || Error::Malformed {
            origin: format!("{uri:?}"),
            what: "identity",
            reason: "expected spiffe://<cluster>/<role>/<id>".to_owned(),
        };
        let rest = uri.strip_prefix(SCHEME).ok_or_else(malformed)?;
        let mut parts = rest.split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(cluster), Some(role), Some(id), None) => Self::new(cluster, role.parse()?, id),
            _ => Err(malformed()),
        }
    }
}

/// SHA-256 of a certificate's DER form: what audit records call the certificate by.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(Sha256::digest(certificate).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// Reads who a certificate speaks for. It checks no signature: give it only a certificate that a
/// handshake has accepted.
pub fn identify(certificate: &CertificateDer<'_>) -> Result<(Identity, Fingerprint), Error> {
    identify_from(certificate, "the peer's handshake")
}

/// `origin` is what errors call the source.
pub(crate) fn identify_from(
    certificate: &CertificateDer<'_>,
    origin: &str,
) -> Result<(Identity, Fingerprint), Error> {
    let uri = only_uri(certificate, origin)?;
    let identity = uri.parse().map_err(|error: Error| Error::NoIdentity {
        origin: origin.to_owned(),
        reason: error.to_string(),
    })?;
    Ok((identity, Fingerprint::of(certificate)))
}

/// The cluster that a CA's own certificate names: `spiffe://<cluster>`, with no path.
pub(crate) fn cluster_of_ca(
    certificate: &CertificateDer<'_>,
    origin: &str,
) -> Result<String, Error> {
    let uri = only_uri(certificate, origin)?;
    let cluster = uri.strip_prefix(SCHEME).filter(|rest| !rest.contains('/'));
    let cluster = cluster.ok_or_else(|| Error::NoIdentity {
        origin: origin.to_owned(),
        reason: format!("{uri:?} is not the name of a cluster's CA"),
    })?;
    checked("cluster id", cluster)
}

pub(crate) fn ca_uri(cluster: &str) -> Result<String, Error> {
    Ok(format!("{SCHEME}{}", checked("cluster id", cluster)?))
}

/// Two URI names would let one certificate speak for two identities, so that is refused like none.
fn only_uri(certificate: &CertificateDer<'_>, origin: &str) -> Result<String, Error> {
    let malformed = |reason: String| Error::Malformed {
        origin: origin.to_owned(),
        what: "certificate",
        reason,
    };
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|error| malformed(error.to_string()))?;
    let names = parsed
        .subject_alternative_name()
        .map_err(|error| malformed(error.to_string()))?;
    let mut uris = names
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
    match (uris.next(), uris.next()) {
        (Some(uri), None) => Ok(uri.to_owned()),
        (first, _) => Err(Error::NoIdentity {
            origin: origin.to_owned(),
            reason: format!(
                "it has {} URI name, and must have exactly one",
                if first.is_none() {
                    "no"
                } else {
                    "more than one"
                }
            ),
        }),
    }
}

fn checked(what: &'static str, value: &str) -> Result<String, Error> {
    let inner = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
    let first = value
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric());
    if first && value.len() <= NAME_LIMIT && value.bytes().all(inner) {
        Ok(value.to_owned())
    } else {
        Err(Error::BadName {
            what,
            value: value.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_and_uri_round_trip() {
        for role in [Role::Controller, Role::Agent, Role::Client] {
            let identity = Identity::new("q-1f", role, "a.1_x").unwrap();
            assert_eq!(identity.to_string(), format!("spiffe://q-1f/{role}/a.1_x"));
            assert_eq!(identity.to_string().parse::<Identity>().unwrap(), identity);
        }
    }

    #[test]
    fn uris_that_are_no_identity_are_refused() {
        for uri in [
            "",
            "spiffe://",
            "spiffe://q",
            "spiffe://q/agent",
            "spiffe://q/agent/",
            "spiffe://q/agent/a1/",
            "spiffe://q/agent/a1/b",
            "spiffe://q/Agent/a1",
            "spiffe://q/root/a1",
            "spiffe://q/agent/A1",
            "spiffe://q/agent/a%31",
            "spiffe://q/agent/../x",
            "SPIFFE://q/agent/a1",
            "https://q/agent/a1",
            "spiffe://q/agent/a1?x",
        ] {
            assert!(uri.parse::<Identity>().is_err(), "{uri}");
        }
        assert!(Identity::new("q", Role::Agent, &"a".repeat(64)).is_err());
        assert!(Identity::new("q", Role::Agent, &"a".repeat(63)).is_ok());
    }

    #[test]
    fn what_is_not_a_certificate_has_no_identity() {
        assert!(identify(&CertificateDer::from(vec![1, 2, 3])).is_err());
        assert!(identify(&CertificateDer::from(Vec::new())).is_err());
    }
}
