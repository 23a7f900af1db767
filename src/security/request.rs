//! A machine's own key, and the request (PKCS #10) by which it is certified.
//!
//! The key is made here and stays in its file. A request proves that whoever made it holds the key; all else
//! that it may say is ignored, because the CA alone says who somebody is.

use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ECDSA_WITH_SHA256,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::ca::{internal, text};
use crate::credentials::{self, Credentials, KeyFiles, Validity};
use crate::error::Error;
use crate::files::{self, Privacy};

/// Bytes. One of ours has 250; a longer one is not read.
const REQUEST_LIMIT: usize = 4 * 1024;

/// A request whose maker holds the key in it.
#[derive(Clone, Debug)]
pub struct CertificateRequest {
    public_key: Vec<u8>,
}

impl CertificateRequest {
    /// Refuses one that is not signed with its own key, or whose key is none of ours.
    pub fn from_der(der: &[u8]) -> Result<Self, Error> {
        let malformed = |reason: &str| Error::Malformed {
            origin: "the certificate request".to_owned(),
            what: "request",
            reason: reason.to_owned(),
        };
        if der.len() > REQUEST_LIMIT {
            return Err(malformed("it is too long"));
        }
        let (rest, parsed) = X509CertificationRequest::from_der(der)
            .map_err(|error| malformed(&error.to_string()))?;
        let info = &parsed.certification_request_info;
        let key = &info.subject_pki;
        let curve = key.algorithm.parameters.as_ref();
        let curve = curve.and_then(|curve| curve.as_oid().ok());
        let ours = key.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY
            && curve == Some(OID_EC_P256)
            && parsed.signature_algorithm.algorithm == OID_SIG_ECDSA_WITH_SHA256;
        if !rest.is_empty() || !ours {
            return Err(malformed(
                "a P-256 key and its signature with SHA-256 are expected",
            ));
        }
        let holder = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &key.subject_public_key.data);
        holder
            .verify(info.raw, &parsed.signature_value.data)
            .map_err(|_| malformed("it is not signed with its own key"))?;
        Ok(Self {
            public_key: key.raw.to_vec(),
        })
    }

    /// SubjectPublicKeyInfo, in DER.
    pub(crate) fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// SHA-256 of the public key.
    pub fn key_hash(&self) -> [u8; 32] {
        Sha256::digest(&self.public_key).into()
    }
}

/// SHA-256 of the public key in a certificate.
pub fn key_hash(certificate: &CertificateDer<'_>) -> Result<[u8; 32], Error> {
    Ok(Sha256::digest(parsed(certificate)?.public_key().raw).into())
}

/// The DNS names and addresses in a certificate.
pub fn host_names(certificate: &CertificateDer<'_>) -> Result<Vec<String>, Error> {
    let parsed = parsed(certificate)?;
    let names = parsed.subject_alternative_name().ok().flatten();
    let names = names.iter().flat_map(|names| &names.value.general_names);
    Ok(names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => address(bytes),
            _ => None,
        })
        .collect())
}

/// How long a certificate was to live when it was made.
pub fn validity(certificate: &CertificateDer<'_>) -> Result<Duration, Error> {
    Ok(Validity::of(&parsed(certificate)?).life())
}

fn parsed<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Error> {
    credentials::parsed(certificate, "the peer's handshake")
}

fn address(bytes: &[u8]) -> Option<String> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(std::net::Ipv4Addr::from(four).to_string());
    }
    let sixteen = <[u8; 16]>::try_from(bytes).ok()?;
    Some(std::net::Ipv6Addr::from(sixteen).to_string())
}

/// The key of this machine, in its identity directory.
pub struct OwnKey {
    directory: PathBuf,
    key: KeyPair,
}

impl OwnKey {
    /// The one that is there, or a new one, which is on disk before anybody hears of it: a try that was cut
    /// short is made again with the same key.
    pub fn load_or_create(directory: &Path) -> Result<Self, Error> {
        let paths = KeyFiles::in_directory(directory);
        if paths.key.exists() {
            return Self::load(directory);
        }
        files::create_directory(directory)?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(internal("make a key"))?;
        files::write(&paths.key, key.serialize_pem().as_bytes(), Privacy::Secret)?;
        Ok(Self {
            directory: directory.to_owned(),
            key,
        })
    }

    /// Refuses a key file that group or others can read.
    pub fn load(directory: &Path) -> Result<Self, Error> {
        let path = KeyFiles::in_directory(directory).key;
        let origin = path.display().to_string();
        let pem = text(files::read(&path, Privacy::Secret)?, &origin)?;
        let key = KeyPair::from_pem(&pem).map_err(|error| Error::Malformed {
            origin,
            what: "private key",
            reason: error.to_string(),
        })?;
        Ok(Self {
            directory: directory.to_owned(),
            key,
        })
    }

    /// To be certified, in DER.
    pub fn request(&self) -> Result<Vec<u8>, Error> {
        let request = CertificateParams::default()
            .serialize_request(&self.key)
            .map_err(internal("make a certificate request"))?;
        Ok(request.der().to_vec())
    }

    /// SHA-256 of the public key.
    pub fn key_hash(&self) -> [u8; 32] {
        Sha256::digest(self.key.subject_public_key_info()).into()
    }

    /// Stores the first certificate, with the CA that it is from. The certificate comes last: where it is, all
    /// is. Nothing is written that could not be used.
    pub fn certified(&self, ca_pem: &str, cert_pem: &str) -> Result<Credentials, Error> {
        let credentials = Credentials::from_pem(ca_pem, cert_pem, &self.key.serialize_pem())?;
        let paths = KeyFiles::in_directory(&self.directory);
        files::write(&paths.ca, ca_pem.as_bytes(), Privacy::Public)?;
        files::write(&paths.cert, cert_pem.as_bytes(), Privacy::Public)?;
        Ok(credentials)
    }

    /// Stores a certificate in the place of the one before it.
    pub fn renewed(&self, cert_pem: &str) -> Result<Credentials, Error> {
        let paths = KeyFiles::in_directory(&self.directory);
        let origin = paths.ca.display().to_string();
        let ca_pem = text(files::read(&paths.ca, Privacy::Public)?, &origin)?;
        let credentials = Credentials::from_pem(&ca_pem, cert_pem, &self.key.serialize_pem())?;
        files::write(&paths.cert, cert_pem.as_bytes(), Privacy::Public)?;
        Ok(credentials)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use rcgen::{ExtendedKeyUsagePurpose, SanType};
    use rustls_pki_types::pem::PemObject;

    use super::*;
    use crate::{Ca, Identity, Role, identify};

    const HOUR: Duration = Duration::from_secs(3600);

    fn agent() -> Identity {
        Identity::new("q1", Role::Agent, "a1").unwrap()
    }

    #[test]
    fn a_key_is_certified_renewed_and_stays_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let ca = Ca::create("q1").unwrap();
        let key = OwnKey::load_or_create(&dir.path().join("identity")).unwrap();
        let again = OwnKey::load_or_create(&dir.path().join("identity")).unwrap();
        assert_eq!(key.key_hash(), again.key_hash());
        let paths = KeyFiles::in_directory(&dir.path().join("identity"));
        assert_eq!(std::fs::metadata(&paths.key).unwrap().mode() & 0o777, 0o600);
        let request = CertificateRequest::from_der(&again.request().unwrap()).unwrap();
        assert_eq!(request.key_hash(), key.key_hash());
        let first = ca.sign_request(&request, &agent(), &[], HOUR).unwrap();
        let held = key.certified(ca.pem(), &first).unwrap();
        assert_eq!(
            Credentials::load(&paths).unwrap().fingerprint(),
            held.fingerprint()
        );
        let leaf = CertificateDer::from_pem_slice(first.as_bytes()).unwrap();
        assert_eq!(key_hash(&leaf).unwrap(), key.key_hash());
        assert!(validity(&leaf).unwrap().abs_diff(HOUR) < Duration::from_secs(2));
        let second = ca.sign_request(&request, &agent(), &[], 2 * HOUR).unwrap();
        let fresh = key.renewed(&second).unwrap();
        held.renew(&fresh).unwrap();
        assert_eq!(held.expires_at(), fresh.expires_at());
        let two_thirds = held.expires_at() - 2 * HOUR / 3;
        assert_eq!(held.validity().renewal(), two_thirds);
    }

    #[test]
    fn a_certificate_of_somebody_else_is_not_taken_in_a_renewal() {
        let dir = tempfile::tempdir().unwrap();
        let ca = Ca::create("q1").unwrap();
        let key = OwnKey::load_or_create(dir.path()).unwrap();
        let request = CertificateRequest::from_der(&key.request().unwrap()).unwrap();
        let own = ca.sign_request(&request, &agent(), &[], HOUR).unwrap();
        let held = key.certified(ca.pem(), &own).unwrap();
        let other = Identity::new("q1", Role::Agent, "a2").unwrap();
        let theirs = ca.sign_request(&request, &other, &[], HOUR).unwrap();
        let theirs = key.renewed(&theirs).unwrap();
        held.renew(&theirs).unwrap_err();
        let unrelated = ca.issue(&agent(), &[], HOUR).unwrap();
        let error = key.renewed(&unrelated.cert_pem).unwrap_err();
        assert!(matches!(error, Error::KeyMismatch { .. }), "{error}");
    }

    #[test]
    fn of_a_request_only_the_key_counts() {
        let ca = Ca::create("q1").unwrap();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut greedy = CertificateParams::default();
        greedy.subject_alt_names = vec![SanType::URI(
            "spiffe://q1/controller/c1".try_into().unwrap(),
        )];
        greedy.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        greedy.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let request = greedy.serialize_request(&key);
        // A request for a CA may not even be made by the library; without it, the rest is.
        let request = request.or_else(|_| {
            greedy.is_ca = rcgen::IsCa::NoCa;
            greedy.serialize_request(&key)
        });
        let request = CertificateRequest::from_der(request.unwrap().der()).unwrap();
        let issued = ca.sign_request(&request, &agent(), &[], HOUR).unwrap();
        let leaf = CertificateDer::from_pem_slice(issued.as_bytes()).unwrap();
        assert_eq!(identify(&leaf).unwrap().0, agent());
        let parsed = parsed(&leaf).unwrap();
        let usage = parsed.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth);
        assert!(!parsed.is_ca());
    }

    #[test]
    fn a_request_that_its_key_did_not_sign_is_refused_as_is_garbage() {
        let dir = tempfile::tempdir().unwrap();
        let key = OwnKey::load_or_create(dir.path()).unwrap();
        let good = key.request().unwrap();
        CertificateRequest::from_der(&good).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            // What stands around the signature may be written in more than one way.
            let other = CertificateRequest::from_der(&bad)
                .is_ok_and(|read| read.key_hash() != key.key_hash());
            assert!(!other, "byte {at} changes the key unnoticed");
        }
        let mut longer = good.clone();
        longer.push(0);
        for bad in [
            &[][..],
            &good[1..],
            &good[..good.len() - 1],
            &longer,
            &[0; 5000],
        ] {
            assert!(CertificateRequest::from_der(bad).is_err());
        }
    }

    #[test]
    fn the_names_of_a_controller_are_read_back() {
        let ca = Ca::create("q1").unwrap();
        let names = ["c1.example", "10.1.2.3", "::1"].map(str::to_owned);
        let identity = Identity::new("q1", Role::Controller, "c1").unwrap();
        let issued = ca.issue(&identity, &names, HOUR).unwrap();
        let leaf = CertificateDer::from_pem_slice(issued.cert_pem.as_bytes()).unwrap();
        assert_eq!(host_names(&leaf).unwrap(), names);
    }
}
