//! What a process holds: the roots it trusts, and its own certificate with its key.
//!
//! Loading checks all that can be checked before anybody is dialled: the key is private and belongs to
//! the certificate, the certificate names an identity, was issued by a root in `ca.pem`, and is valid
//! now. So a wrong file is an error at the start with the file's name in it, and not a refused handshake
//! later. Nothing is watched: whoever renews a certificate hands the new one over ([`Credentials::renew`]).

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::RootCertStore;
use rustls::sign::CertifiedKey as SigningKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::ca;
use crate::error::Error;
use crate::files::{self, Privacy};
use crate::identity::{Fingerprint, Identity, Role, cluster_of_ca, identify_from};
use crate::pin::Pin;
use crate::tls;
use crate::verify::{Chain, Refused};

/// Where an identity is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFiles {
    pub ca: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl KeyFiles {
    /// The usual names: `ca.pem`, `cert.pem`, `key.pem`.
    pub fn in_directory(directory: &Path) -> Self {
        Self {
            ca: directory.join("ca.pem"),
            cert: directory.join("cert.pem"),
            key: directory.join("key.pem"),
        }
    }
}

/// The roots of one cluster. With this alone a process can check whom it dials.
#[derive(Clone, Debug)]
pub struct Trust {
    cluster: String,
    roots: Arc<RootCertStore>,
    /// The same as they were read.
    certificates: Vec<CertificateDer<'static>>,
}

impl Trust {
    pub fn load(ca: &Path) -> Result<Self, Error> {
        Self::from_pem(
            &files::read(ca, Privacy::Public)?,
            &ca.display().to_string(),
        )
    }

    /// `origin` is what errors call the source.
    pub fn from_pem(pem: &[u8], origin: &str) -> Result<Self, Error> {
        Self::from_certificates(certificates(pem, origin)?, origin)
    }

    pub(crate) fn from_certificates(
        given: Vec<CertificateDer<'static>>,
        origin: &str,
    ) -> Result<Self, Error> {
        let mut used = Vec::new();
        let mut cluster: Option<String> = None;
        let mut roots = RootCertStore::empty();
        let mut expired = None;
        for root in given {
            let named = cluster_of_ca(&root, origin)?;
            if *cluster.get_or_insert_with(|| named.clone()) != named {
                return Err(malformed(
                    origin,
                    "CA",
                    "it holds the CAs of two clusters".to_owned(),
                ));
            }
            let (end, end_text) = end_of(&root, origin)?;
            // webpki looks at no date of a trust anchor, so an old root is dropped here.
            if end < SystemTime::now() {
                expired = Some(end_text);
                continue;
            }
            used.push(root.clone());
            roots
                .add(root)
                .map_err(|error| malformed(origin, "CA", error.to_string()))?;
        }
        match (cluster, expired) {
            (Some(cluster), _) if !roots.is_empty() => Ok(Self {
                cluster,
                roots: Arc::new(roots),
                certificates: used,
            }),
            (_, Some(end)) => Err(Error::Invalid {
                origin: origin.to_owned(),
                reason: format!("its only CA expired at {end}"),
                next: "check this machine's clock, or get the cluster's new ca.pem",
            }),
            (_, None) => Err(malformed(
                origin,
                "CA",
                "it holds no certificate".to_owned(),
            )),
        }
    }

    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// By which a machine that joins knows this cluster. Of several roots, the first.
    pub fn pin(&self) -> Result<Pin, Error> {
        let root = self.certificates.first();
        let root =
            root.ok_or_else(|| malformed("the CA", "CA", "it holds no certificate".into()))?;
        Pin::of(root)
    }

    pub(crate) fn roots(&self) -> &RootCertStore {
        &self.roots
    }
}

/// A process's own identity with its key, and the roots of its cluster.
#[derive(Clone)]
pub struct Credentials {
    trust: Trust,
    identity: Identity,
    held: Arc<Held>,
}

/// The certificate that is shown, which may be replaced while the process runs: every TLS configuration made
/// of these credentials, or of a clone, shows the new one in its next handshake.
#[derive(Debug)]
pub(crate) struct Held(RwLock<Certified>);

#[derive(Clone, Debug)]
struct Certified {
    key: Arc<SigningKey>,
    fingerprint: Fingerprint,
    validity: Validity,
}

/// When a certificate begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}

impl Validity {
    pub(crate) fn of(certificate: &X509Certificate<'_>) -> Self {
        let validity = certificate.validity();
        Self {
            not_before: ca::time(validity.not_before.timestamp()),
            not_after: ca::time(validity.not_after.timestamp()),
        }
    }

    /// From when it was made, which is later than the begin that it names, until its end.
    pub fn life(&self) -> Duration {
        let made = self.not_before + ca::CLOCK_DIFFERENCE;
        let life = self.not_after.duration_since(made);
        life.or_else(|_| self.not_after.duration_since(self.not_before))
            .unwrap_or_default()
    }

    /// At two thirds of its life: a third is left for trouble.
    pub fn renewal(&self) -> SystemTime {
        self.not_after - self.life() / 3
    }
}

impl Held {
    fn now(&self) -> Certified {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn key(&self) -> Arc<SigningKey> {
        self.now().key
    }
}

impl Credentials {
    /// Refuses a key file that group or others can read.
    pub fn load(paths: &KeyFiles) -> Result<Self, Error> {
        let trust = Trust::load(&paths.ca)?;
        let cert = files::read(&paths.cert, Privacy::Public)?;
        let key = files::read(&paths.key, Privacy::Secret)?;
        let origins = Origins {
            cert: paths.cert.display().to_string(),
            key: paths.key.display().to_string(),
        };
        Self::assemble(trust, &cert, &key, &origins)
    }

    /// From texts that were never files.
    pub fn from_pem(ca_pem: &str, cert_pem: &str, key_pem: &str) -> Result<Self, Error> {
        let trust = Trust::from_pem(ca_pem.as_bytes(), "the given CA")?;
        let origins = Origins {
            cert: "the given certificate".to_owned(),
            key: "the given key".to_owned(),
        };
        Self::assemble(trust, cert_pem.as_bytes(), key_pem.as_bytes(), &origins)
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    pub fn fingerprint(&self) -> Fingerprint {
        self.held.now().fingerprint
    }

    /// From then on every peer refuses this certificate.
    pub fn expires_at(&self) -> SystemTime {
        self.validity().not_after
    }

    /// The DNS names and addresses in it.
    pub fn host_names(&self) -> Result<Vec<String>, Error> {
        match self.held.key().cert.first() {
            Some(leaf) => crate::request::host_names(leaf),
            None => Ok(Vec::new()),
        }
    }

    pub fn validity(&self) -> Validity {
        self.held.now().validity
    }

    /// Shows another certificate of the same identity from now on.
    pub fn renew(&self, fresh: &Credentials) -> Result<(), Error> {
        if fresh.identity != self.identity {
            return Err(Error::Invalid {
                origin: "the answer to a renewal".to_owned(),
                reason: format!(
                    "it speaks for {}, and not for {}",
                    fresh.identity, self.identity
                ),
                next: "see the log of the controller that answered",
            });
        }
        let certified = fresh.held.now();
        *self.held.0.write().unwrap_or_else(PoisonError::into_inner) = certified;
        Ok(())
    }

    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    pub(crate) fn held(&self) -> Arc<Held> {
        Arc::clone(&self.held)
    }

    fn assemble(trust: Trust, cert: &[u8], key: &[u8], origins: &Origins) -> Result<Self, Error> {
        let chain = certificates(cert, &origins.cert)?;
        let Some((leaf, intermediates)) = chain.split_first() else {
            return Err(malformed(
                &origins.cert,
                "certificate",
                "it holds none".to_owned(),
            ));
        };
        let (identity, fingerprint) = identify_from(leaf, &origins.cert)?;
        let validity = Validity::of(&parsed(leaf, &origins.cert)?);
        Chain::new(&trust)
            .check_own(leaf, intermediates, UnixTime::now())
            .map_err(|refused| own_is_refused(&refused, &origins.cert))?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| malformed(&origins.key, "private key", error.to_string()))?;
        let mut shown = chain;
        // One that joins knows the CA by the hash of its key alone, so a controller shows it.
        if identity.role() == Role::Controller {
            shown.extend(trust.certificates.iter().cloned());
        }
        let key =
            SigningKey::from_der(shown, key, &tls::provider()).map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => Error::KeyMismatch {
                    origin: origins.cert.clone(),
                },
                other => malformed(&origins.key, "private key", other.to_string()),
            })?;
        Ok(Self {
            trust,
            identity,
            held: Arc::new(Held(RwLock::new(Certified {
                key: Arc::new(key),
                fingerprint,
                validity,
            }))),
        })
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("identity", &self.identity)
            .field("fingerprint", &self.fingerprint())
            .finish_non_exhaustive()
    }
}

/// What errors call the two sources.
struct Origins {
    cert: String,
    key: String,
}

fn own_is_refused(refused: &Refused, origin: &str) -> Error {
    let next = match refused {
        Refused::Expired { .. } | Refused::NotYetValid { .. } => {
            "check this machine's clock; then join again by a token (--join), or make a new one with `quorate cert create`"
        }
        Refused::OtherCa { .. } | Refused::OtherCluster { .. } | Refused::OtherPin => {
            "use the ca.pem that came with it, or make a new one with `quorate cert create`"
        }
        Refused::NoIdentity { .. }
        | Refused::WrongRole { .. }
        | Refused::WrongId { .. }
        | Refused::Other { .. } => "make a new one with `quorate cert create`",
    };
    Error::Invalid {
        origin: origin.to_owned(),
        reason: refused.to_string(),
        next,
    }
}

fn certificates(pem: &[u8], origin: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| malformed(origin, "certificate", error.to_string()))
}

fn end_of(certificate: &CertificateDer<'_>, origin: &str) -> Result<(SystemTime, String), Error> {
    let parsed = parsed(certificate, origin)?;
    let end = parsed.validity().not_after;
    Ok((ca::time(end.timestamp()), end.to_string()))
}

/// A certificate's fields; `origin` says where it is from, for an error.
pub(crate) fn parsed<'a>(
    certificate: &'a CertificateDer<'_>,
    origin: &str,
) -> Result<X509Certificate<'a>, Error> {
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|error| malformed(origin, "certificate", error.to_string()))?;
    Ok(parsed)
}

fn malformed(origin: &str, what: &'static str, reason: String) -> Error {
    Error::Malformed {
        origin: origin.to_owned(),
        what,
        reason,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::ca::{CERTIFICATE_VALIDITY, Ca};

    fn issue(ca: &Ca) -> crate::CertifiedKey {
        let identity = Identity::new(ca.cluster(), Role::Agent, "a1").unwrap();
        ca.issue(&identity, &[], CERTIFICATE_VALIDITY).unwrap()
    }

    #[test]
    fn a_saved_identity_is_loaded_again() {
        let dir = tempfile::tempdir().unwrap();
        let ca = Ca::create("q1").unwrap();
        let paths = issue(&ca)
            .save(&dir.path().join("identity"), ca.pem())
            .unwrap();
        let credentials = Credentials::load(&paths).unwrap();
        assert_eq!(credentials.identity().to_string(), "spiffe://q1/agent/a1");
        assert_eq!(credentials.trust().cluster(), "q1");
        assert!(credentials.expires_at() > SystemTime::now() + Duration::from_secs(86_400 * 364));
        assert!(!format!("{credentials:?}").contains("PRIVATE"));
    }

    #[test]
    fn a_key_file_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let ca = Ca::create("q1").unwrap();
        let paths = issue(&ca).save(dir.path(), ca.pem()).unwrap();
        fs::set_permissions(&paths.key, fs::Permissions::from_mode(0o640)).unwrap();
        let error = Credentials::load(&paths).unwrap_err();
        assert!(
            matches!(error, Error::Exposed { mode: 0o640, .. }),
            "{error}"
        );
        assert!(error.to_string().contains("key.pem"), "{error}");
    }

    #[test]
    fn a_certificate_of_another_ca_is_refused_when_loaded() {
        let (ours, other) = (Ca::create("q1").unwrap(), Ca::create("q1").unwrap());
        let issued = issue(&other);
        let error =
            Credentials::from_pem(ours.pem(), &issued.cert_pem, &issued.key_pem).unwrap_err();
        assert!(
            error.to_string().contains("not issued by the CA"),
            "{error}"
        );
        let both = format!("{}{}", ours.pem(), other.pem());
        assert!(Credentials::from_pem(&both, &issued.cert_pem, &issued.key_pem).is_ok());
    }

    #[test]
    fn an_expired_certificate_is_refused_when_loaded() {
        let ca = Ca::create("q1").unwrap();
        let identity = Identity::new("q1", Role::Agent, "a1").unwrap();
        let day = Duration::from_secs(86_400);
        let now = SystemTime::now();
        let issued = ca
            .issue_between(&identity, &[], now - 2 * day, now - day)
            .unwrap();
        let error = Credentials::from_pem(ca.pem(), &issued.cert_pem, &issued.key_pem).unwrap_err();
        assert!(error.to_string().contains("expired"), "{error}");
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let ca = Ca::create("q1").unwrap();
        let (one, two) = (issue(&ca), issue(&ca));
        let error = Credentials::from_pem(ca.pem(), &one.cert_pem, &two.key_pem).unwrap_err();
        assert!(matches!(error, Error::KeyMismatch { .. }), "{error}");
    }

    #[test]
    fn roots_of_two_clusters_are_not_mixed() {
        let both = format!(
            "{}{}",
            Ca::create("q1").unwrap().pem(),
            Ca::create("q2").unwrap().pem()
        );
        let error = Trust::from_pem(both.as_bytes(), "ca.pem").unwrap_err();
        assert!(error.to_string().contains("two clusters"), "{error}");
    }

    #[test]
    fn garbage_and_swapped_files_are_errors_and_no_panic() {
        let ca = Ca::create("q1").unwrap();
        let issued = issue(&ca);
        let (cert, key) = (issued.cert_pem.as_str(), issued.key_pem.as_str());
        for (a, c, k) in [
            ("", cert, key),
            ("nonsense", cert, key),
            (cert, cert, key),
            (ca.pem(), "", key),
            (ca.pem(), key, cert),
            (ca.pem(), ca.pem(), key),
            (ca.pem(), cert, ""),
            (
                ca.pem(),
                cert,
                "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            ),
            (ca.pem(), &cert[..cert.len() / 2], key),
        ] {
            assert!(Credentials::from_pem(a, c, k).is_err());
        }
    }
}
