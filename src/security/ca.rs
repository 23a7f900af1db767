//! The cluster's certificate authority: one ECDSA P-256 root that names its cluster and issues leaves.
//!
//! `ca.pem` is public and travels with every identity; `ca.key` is the cluster's most precious file. A
//! controller that has it makes certificates for machines that join, and for those whose end is near. `ca.pem` may hold several
//! roots while one replaces another; the one that `ca.key` belongs to signs.
//!
//! Left out: sealing `ca.key` with a key-encryption key. It is protected by its mode alone.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SubjectPublicKeyInfo,
    string::Ia5String,
};
use rustls_pki_types::{CertificateDer, DnsName, pem::PemObject};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::credentials::{KeyFiles, Trust};
use crate::error::Error;
use crate::files::{self, Privacy};
use crate::identity::{Identity, Role, ca_uri};
use crate::request::CertificateRequest;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Ten years: longer than the machines; replacing a root touches every one of them.
pub const ROOT_VALIDITY: Duration = DAY.saturating_mul(3650);
/// One year, for certificates that an administrator copies by hand.
pub const CERTIFICATE_VALIDITY: Duration = DAY.saturating_mul(365);
/// Certificates are valid from this long before they were made, because clocks of machines differ, and
/// one that is a few hours behind must not lock its process out.
pub const CLOCK_DIFFERENCE: Duration = DAY;

const CA_CERTIFICATE: &str = "ca.pem";
const CA_KEY: &str = "ca.key";

/// A certificate and its private key, in PEM. No `Debug` of the key.
pub struct CertifiedKey {
    pub cert_pem: String,
    pub key_pem: String,
}

impl CertifiedKey {
    /// Writes an identity directory: `ca.pem`, `cert.pem` and `key.pem` (0600). Creates it, or replaces
    /// what is in it.
    pub fn save(&self, directory: &Path, ca_pem: &str) -> Result<KeyFiles, Error> {
        files::create_directory(directory)?;
        let paths = KeyFiles::in_directory(directory);
        files::write(&paths.key, self.key_pem.as_bytes(), Privacy::Secret)?;
        files::write(&paths.cert, self.cert_pem.as_bytes(), Privacy::Public)?;
        files::write(&paths.ca, ca_pem.as_bytes(), Privacy::Public)?;
        Ok(paths)
    }
}

impl fmt::Debug for CertifiedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertifiedKey")
            .field("cert_pem", &self.cert_pem)
            .finish_non_exhaustive()
    }
}

/// A certificate authority with its key, able to issue.
pub struct Ca {
    cluster: String,
    pem: String,
    not_after: SystemTime,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    /// Makes a new authority for a cluster. Nothing is written; see [`Ca::save`].
    pub fn create(cluster_id: &str) -> Result<Self, Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(internal("make a key"))?;
        let now = SystemTime::now();
        let mut params = CertificateParams::default();
        params.not_before = (now - CLOCK_DIFFERENCE).into();
        params.not_after = (now + ROOT_VALIDITY).into();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.subject_alt_names = vec![SanType::URI(ia5(ca_uri(cluster_id)?)?)];
        // The key's hash keeps the names of two roots of one cluster apart.
        let hash = hex::encode(&Sha256::digest(key.public_key_raw())[..4]);
        params.distinguished_name = named(&format!("quorate {cluster_id} CA {hash}"));
        let certificate = params
            .self_signed(&key)
            .map_err(internal("sign the root"))?;
        Self::assemble(&certificate.pem(), &key.serialize_pem(), "the new CA")
    }

    /// From texts that another controller gave.
    pub fn from_pem(ca_pem: &str, key_pem: &str) -> Result<Self, Error> {
        Self::assemble(ca_pem, key_pem, "the given CA")
    }

    /// Whether a directory holds a CA's key, usable or not.
    pub fn is_in(directory: &Path) -> bool {
        directory.join(CA_KEY).exists()
    }

    /// Loads `ca.pem` and `ca.key` from a directory.
    pub fn load(directory: &Path) -> Result<Self, Error> {
        let certificate = directory.join(CA_CERTIFICATE);
        let origin = certificate.display().to_string();
        let pem = text(files::read(&certificate, Privacy::Public)?, &origin)?;
        let key_path = directory.join(CA_KEY);
        let key = text(
            files::read(&key_path, Privacy::Secret)?,
            &key_path.display().to_string(),
        )?;
        Self::assemble(&pem, &key, &origin)
    }

    /// Writes `ca.pem` and `ca.key` (0600) to a directory that holds neither.
    pub fn save(&self, directory: &Path) -> Result<(), Error> {
        files::create_directory(directory)?;
        let (key, certificate) = (directory.join(CA_KEY), directory.join(CA_CERTIFICATE));
        files::refuse_existing(&key)?;
        files::refuse_existing(&certificate)?;
        files::write(
            &key,
            self.issuer.key().serialize_pem().as_bytes(),
            Privacy::Secret,
        )?;
        files::write(&certificate, self.pem.as_bytes(), Privacy::Public)
    }

    /// Writes both to a directory that has no key yet. The key comes last: where it is, all is, and a try that
    /// was cut short may be made again.
    pub fn keep(&self, directory: &Path) -> Result<(), Error> {
        files::create_directory(directory)?;
        let (key, certificate) = (directory.join(CA_KEY), directory.join(CA_CERTIFICATE));
        files::refuse_existing(&key)?;
        files::write(&certificate, self.pem.as_bytes(), Privacy::Public)?;
        files::write(&key, self.key_pem().as_bytes(), Privacy::Secret)
    }

    /// The key itself: for the controllers of this cluster and nobody else.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// The cluster that this CA speaks for.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// What everybody else gets: the contents of `ca.pem`.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Makes a key and a certificate for `identity`, valid for `validity` from now or until the root ends.
    /// `names` are the DNS names and IP addresses by which browsers and other programs dial a controller;
    /// Quorate itself never looks at them.
    pub fn issue(
        &self,
        identity: &Identity,
        names: &[String],
        validity: Duration,
    ) -> Result<CertifiedKey, Error> {
        let now = SystemTime::now();
        let end = now.checked_add(validity).unwrap_or(self.not_after);
        self.issue_between(identity, names, now - CLOCK_DIFFERENCE, end)
    }

    pub(crate) fn issue_between(
        &self,
        identity: &Identity,
        names: &[String],
        not_before: SystemTime,
        not_after: SystemTime,
    ) -> Result<CertifiedKey, Error> {
        let params = self.certificate(identity, names, not_before, not_after)?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(internal("make a key"))?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .map_err(internal("sign a certificate"))?;
        Ok(CertifiedKey {
            cert_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        })
    }

    /// A certificate, in PEM, for the key of a request that proved to hold it. All that the certificate says
    /// is said here: of the request only the key counts.
    pub fn sign_request(
        &self,
        request: &CertificateRequest,
        identity: &Identity,
        names: &[String],
        validity: Duration,
    ) -> Result<String, Error> {
        let now = SystemTime::now();
        let end = now.checked_add(validity).unwrap_or(self.not_after);
        let params = self.certificate(identity, names, now - CLOCK_DIFFERENCE, end)?;
        let key = SubjectPublicKeyInfo::from_der(request.public_key())
            .map_err(internal("use the key of a request"))?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .map_err(internal("sign a certificate"))?;
        Ok(certificate.pem())
    }

    fn certificate(
        &self,
        identity: &Identity,
        names: &[String],
        not_before: SystemTime,
        not_after: SystemTime,
    ) -> Result<CertificateParams, Error> {
        if identity.cluster() != self.cluster {
            return Err(Error::ForeignCluster {
                own: self.cluster.clone(),
                asked: identity.cluster().to_owned(),
            });
        }
        let mut params = CertificateParams::default();
        params.not_before = not_before.into();
        params.not_after = not_after.min(self.not_after).into();
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match identity.role() {
            // Controllers accept connections and dial each other.
            Role::Controller => {
                vec![
                    ExtendedKeyUsagePurpose::ServerAuth,
                    ExtendedKeyUsagePurpose::ClientAuth,
                ]
            }
            Role::Agent | Role::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        params.distinguished_name = named(identity.id());
        params.subject_alt_names = vec![SanType::URI(ia5(identity.to_string())?)];
        if identity.role() == Role::Controller {
            for name in names {
                params.subject_alt_names.push(host(name)?);
            }
        } else if !names.is_empty() {
            return Err(Error::NamesNotAllowed(identity.role()));
        }
        Ok(params)
    }

    /// Signs whatever a test asks for, also what this CA would never issue.
    #[cfg(test)]
    pub(crate) fn sign(&self, params: &CertificateParams) -> CertifiedKey {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        CertifiedKey {
            cert_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        }
    }

    fn assemble(pem: &str, key_pem: &str, origin: &str) -> Result<Self, Error> {
        let trust = Trust::from_pem(pem.as_bytes(), origin)?;
        let key = KeyPair::from_pem(key_pem).map_err(|error| Error::Malformed {
            origin: origin.replace(CA_CERTIFICATE, CA_KEY),
            what: "private key",
            reason: error.to_string(),
        })?;
        let (own, not_after) = own_root(pem, &key, origin)?.ok_or_else(|| Error::KeyMismatch {
            origin: origin.to_owned(),
        })?;
        let issuer =
            Issuer::from_ca_cert_der(&own, key).map_err(internal("use the root certificate"))?;
        Ok(Self {
            cluster: trust.cluster().to_owned(),
            pem: pem.to_owned(),
            not_after,
            issuer,
        })
    }
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ca")
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

/// The root in `pem` that `key` belongs to, and when it ends.
fn own_root(
    pem: &str,
    key: &KeyPair,
    origin: &str,
) -> Result<Option<(CertificateDer<'static>, SystemTime)>, Error> {
    let malformed = |reason: String| Error::Malformed {
        origin: origin.to_owned(),
        what: "certificate",
        reason,
    };
    for root in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let root = root.map_err(|error| malformed(error.to_string()))?;
        let (_, parsed) =
            X509Certificate::from_der(&root).map_err(|error| malformed(error.to_string()))?;
        if *parsed.public_key().subject_public_key.data == *key.public_key_raw() {
            let end = time(parsed.validity().not_after.timestamp());
            return Ok(Some((root, end)));
        }
    }
    Ok(None)
}

/// Seconds since the Unix epoch. A time before it counts as the epoch: both are long over.
pub(crate) fn time(seconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

pub(crate) fn text(bytes: Vec<u8>, origin: &str) -> Result<String, Error> {
    String::from_utf8(bytes).map_err(|_| Error::Malformed {
        origin: origin.to_owned(),
        what: "PEM text",
        reason: "it is not UTF-8".to_owned(),
    })
}

fn host(name: &str) -> Result<SanType, Error> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    DnsName::try_from(name).map_err(|_| Error::BadHost(name.to_owned()))?;
    Ok(SanType::DnsName(ia5(name.to_owned())?))
}

fn ia5(text: String) -> Result<Ia5String, Error> {
    Ia5String::try_from(text).map_err(internal("encode a name"))
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

pub(crate) fn internal(what: &'static str) -> impl Fn(rcgen::Error) -> Error {
    move |error| Error::Internal {
        what,
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;
    use crate::credentials::Credentials;

    fn agent(cluster: &str) -> Identity {
        Identity::new(cluster, Role::Agent, "a1").unwrap()
    }

    #[test]
    fn a_saved_ca_issues_the_same_trust_again() {
        let dir = tempfile::tempdir().unwrap();
        let ca = Ca::create("q1").unwrap();
        ca.save(dir.path()).unwrap();
        assert_eq!(
            fs::metadata(dir.path().join("ca.key")).unwrap().mode() & 0o777,
            0o600
        );
        let again = Ca::load(dir.path()).unwrap();
        assert_eq!((again.cluster(), again.pem()), ("q1", ca.pem()));
        let issued = again
            .issue(&agent("q1"), &[], CERTIFICATE_VALIDITY)
            .unwrap();
        let credentials =
            Credentials::from_pem(ca.pem(), &issued.cert_pem, &issued.key_pem).unwrap();
        assert_eq!(credentials.identity(), &agent("q1"));
    }

    #[test]
    fn a_ca_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let ca = Ca::create("q1").unwrap();
        ca.save(dir.path()).unwrap();
        let error = Ca::create("q1").unwrap().save(dir.path()).unwrap_err();
        assert!(matches!(error, Error::Exists(_)), "{error}");
        assert_eq!(Ca::load(dir.path()).unwrap().pem(), ca.pem());
    }

    #[test]
    fn a_ca_key_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        Ca::create("q1").unwrap().save(dir.path()).unwrap();
        fs::set_permissions(dir.path().join("ca.key"), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            Ca::load(dir.path()),
            Err(Error::Exposed { mode: 0o644, .. })
        ));
    }

    #[test]
    fn a_key_of_another_ca_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let ca = Ca::create("q1").unwrap();
        ca.save(dir.path()).unwrap();
        fs::write(dir.path().join("ca.pem"), Ca::create("q1").unwrap().pem()).unwrap();
        assert!(matches!(
            Ca::load(dir.path()),
            Err(Error::KeyMismatch { .. })
        ));
        // While a root is replaced the file holds both, and the key's own is found.
        let both = format!("{}{}", Ca::create("q1").unwrap().pem(), ca.pem());
        fs::write(dir.path().join("ca.pem"), both).unwrap();
        let issued = Ca::load(dir.path())
            .unwrap()
            .issue(&agent("q1"), &[], DAY)
            .unwrap();
        assert!(Credentials::from_pem(ca.pem(), &issued.cert_pem, &issued.key_pem).is_ok());
    }

    #[test]
    fn a_ca_issues_for_its_own_cluster_only_and_host_names_for_controllers_only() {
        let ca = Ca::create("q1").unwrap();
        let names = vec![
            "localhost".to_owned(),
            "::1".to_owned(),
            "127.0.0.1".to_owned(),
        ];
        let controller = Identity::new("q1", Role::Controller, "c1").unwrap();
        assert!(matches!(
            ca.issue(&agent("q2"), &[], DAY),
            Err(Error::ForeignCluster { .. })
        ));
        assert!(matches!(
            ca.issue(&agent("q1"), &names, DAY),
            Err(Error::NamesNotAllowed(_))
        ));
        assert!(ca.issue(&controller, &names, DAY).is_ok());
        for wrong in ["host:7400", "", "a b", "spiffe://q1/agent/a1"] {
            let error = ca.issue(&controller, &[wrong.to_owned()], DAY).unwrap_err();
            assert!(matches!(error, Error::BadHost(_)), "{error}");
        }
    }

    #[test]
    fn a_certificate_never_outlives_its_root() {
        let ca = Ca::create("q1").unwrap();
        let issued = ca.issue(&agent("q1"), &[], Duration::MAX).unwrap();
        let credentials =
            Credentials::from_pem(ca.pem(), &issued.cert_pem, &issued.key_pem).unwrap();
        assert_eq!(credentials.expires_at(), ca.not_after);
    }
}
