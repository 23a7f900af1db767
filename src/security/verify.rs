//! The checks inside the handshake: chain, purpose, time, cluster, role, id.
//!
//! rustls calls one of the two verifiers when the peer's certificate arrives. Both run [`Chain`], which
//! asks webpki for a path to one of our roots and then reads the identity; the verifiers add what this
//! socket expects. Host names are never looked at: an address may change hands, an identity does not.
//!
//! What the two tell the other side differs. A server answers with the exact TLS alert, because the
//! person who can repair a refused client sits at the client; a client, where that person sits in front
//! of it, puts the whole sentence into its own error.

use std::fmt::Write as _;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, PeerIncompatible,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use crate::credentials::Trust;
use crate::identity::{Identity, Role, identify};
use crate::pin::Pin;
use crate::tls::{self, Clients, Expected};

/// Why a certificate is not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("it expired {seconds} s ago by this machine's clock")]
    Expired { seconds: u64 },
    #[error("it only becomes valid in {seconds} s by this machine's clock")]
    NotYetValid { seconds: u64 },
    #[error("it was not issued by the CA of cluster {cluster}")]
    OtherCa { cluster: String },
    #[error(
        "no CA that it shows has the key that the token names, so it is another cluster, or somebody between"
    )]
    OtherPin,
    #[error("it speaks for cluster {theirs}, and this is cluster {ours}")]
    OtherCluster { ours: String, theirs: String },
    #[error("{reason}")]
    NoIdentity { reason: String },
    #[error("it speaks for {identity}, and only role {allowed} may be here")]
    WrongRole { identity: Identity, allowed: String },
    #[error("it speaks for {identity}, and {expected} was expected here")]
    WrongId {
        identity: Identity,
        expected: String,
    },
    #[error("{reason}")]
    Other { reason: String },
}

impl Refused {
    /// What a server tells a client: the alert that says most.
    fn into_alert(self) -> rustls::Error {
        rustls::Error::InvalidCertificate(match self {
            Self::Expired { .. } => CertificateError::Expired,
            Self::NotYetValid { .. } => CertificateError::NotValidYet,
            Self::OtherCa { .. } | Self::OtherPin => CertificateError::UnknownIssuer,
            Self::OtherCluster { .. } | Self::WrongRole { .. } | Self::WrongId { .. } => {
                CertificateError::ApplicationVerificationFailure
            }
            Self::NoIdentity { .. } | Self::Other { .. } => CertificateError::BadEncoding,
        })
    }

    /// What a client tells its own user.
    fn into_explanation(self) -> rustls::Error {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(self))))
    }
}

/// Checks that a certificate is one of our cluster's.
#[derive(Debug)]
pub(crate) struct Chain {
    trust: Trust,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Chain {
    pub(crate) fn new(trust: &Trust) -> Self {
        Self {
            trust: trust.clone(),
            algorithms: tls::provider().signature_verification_algorithms,
        }
    }

    /// Our own certificate. Every role dials, so every one must be good for a client.
    pub(crate) fn check_own(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Identity, Refused> {
        self.check(end_entity, intermediates, now, KeyUsage::client_auth())
    }

    fn check(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<Identity, Refused> {
        let certificate =
            EndEntityCert::try_from(end_entity).map_err(|error| self.refuse(error))?;
        let roots = &self.trust.roots().roots;
        certificate
            .verify_for_usage(
                self.algorithms.all,
                roots,
                intermediates,
                now,
                usage,
                None,
                None,
            )
            .map_err(|error| self.refuse(error))?;
        let (identity, _) = identify(end_entity).map_err(|error| Refused::NoIdentity {
            reason: error.to_string(),
        })?;
        if identity.cluster() != self.trust.cluster() {
            return Err(Refused::OtherCluster {
                ours: self.trust.cluster().to_owned(),
                theirs: identity.cluster().to_owned(),
            });
        }
        Ok(identity)
    }

    fn refuse(&self, error: webpki::Error) -> Refused {
        match error {
            webpki::Error::CertExpired { time, not_after } => Refused::Expired {
                seconds: time.as_secs().saturating_sub(not_after.as_secs()),
            },
            webpki::Error::CertNotValidYet { time, not_before } => Refused::NotYetValid {
                seconds: not_before.as_secs().saturating_sub(time.as_secs()),
            },
            // A root of the same name with another key ends in a wrong signature.
            webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
                Refused::OtherCa {
                    cluster: self.trust.cluster().to_owned(),
                }
            }
            other => Refused::Other {
                reason: format!("it is not usable here ({other})"),
            },
        }
    }

    fn verify_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }
}

/// Never asked: every configuration of ours speaks TLS 1.3 only.
fn no_tls12() -> Result<HandshakeSignatureValid, rustls::Error> {
    Err(rustls::Error::PeerIncompatible(
        PeerIncompatible::ServerDoesNotSupportTls12Or13,
    ))
}

/// On the accepting side.
#[derive(Debug)]
pub(crate) struct ClientVerifier {
    chain: Chain,
    clients: Clients,
    /// Lets a browser offer only certificates that can be accepted.
    hints: Vec<DistinguishedName>,
}

impl ClientVerifier {
    pub(crate) fn new(trust: &Trust, clients: Clients) -> Self {
        Self {
            chain: Chain::new(trust),
            clients,
            hints: trust.roots().subjects(),
        }
    }

    fn allow(&self, identity: Identity) -> Result<(), Refused> {
        match &self.clients {
            Clients::Required(roles) if !roles.contains(&identity.role()) => {
                Err(Refused::WrongRole {
                    identity,
                    allowed: listed(roles),
                })
            }
            Clients::Required(_) | Clients::Optional => Ok(()),
        }
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        match self.clients {
            Clients::Required(_) => true,
            Clients::Optional => false,
        }
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.chain
            .check(end_entity, intermediates, now, KeyUsage::client_auth())
            .and_then(|identity| self.allow(identity))
            .map_err(|refused| {
                tracing::warn!(reason = %refused, "refused a client's certificate");
                refused.into_alert()
            })?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.algorithms.supported_schemes()
    }
}

/// On the dialling side.
#[derive(Debug)]
pub(crate) struct ServerVerifier {
    basis: Basis,
    algorithms: WebPkiSupportedAlgorithms,
}

/// What a server is known by.
#[derive(Debug)]
enum Basis {
    Trusted {
        chain: Chain,
        expected: Expected,
    },
    /// To one who joins: the trust is made of the CA that the server shows, once that CA's key has the hash that
    /// the token names.
    Pinned(Pin),
}

impl ServerVerifier {
    pub(crate) fn new(trust: &Trust, expected: Expected) -> Self {
        let chain = Chain::new(trust);
        Self::on(Basis::Trusted { chain, expected })
    }

    pub(crate) fn pinned(pin: Pin) -> Self {
        Self::on(Basis::Pinned(pin))
    }

    fn on(basis: Basis) -> Self {
        Self {
            basis,
            algorithms: tls::provider().signature_verification_algorithms,
        }
    }

    fn check(
        &self,
        end_entity: &CertificateDer<'_>,
        shown: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Refused> {
        let usage = KeyUsage::server_auth();
        match &self.basis {
            Basis::Trusted { chain, expected } => {
                let identity = chain.check(end_entity, shown, now, usage)?;
                expect(expected, identity)
            }
            Basis::Pinned(pin) => {
                let chain = Chain::new(&pinned(pin, shown)?);
                let identity = chain.check(end_entity, &[], now, usage)?;
                expect(&Expected::any(Role::Controller), identity)
            }
        }
    }
}

/// The CA that a server shows, where it is the one that was named.
fn pinned(pin: &Pin, shown: &[CertificateDer<'_>]) -> Result<Trust, Refused> {
    let ca = shown.iter().find(|ca| pin.matches(ca));
    let ca = ca.ok_or(Refused::OtherPin)?.clone().into_owned();
    Trust::from_certificates(vec![ca], "the CA that it shows").map_err(|error| Refused::Other {
        reason: error.to_string(),
    })
}

fn expect(expected: &Expected, identity: Identity) -> Result<(), Refused> {
    if identity.role() != expected.role {
        return Err(Refused::WrongRole {
            identity,
            allowed: expected.role.to_string(),
        });
    }
    match &expected.id {
        Some(id) if identity.id() != id => {
            let expected = format!("{} {id}", expected.role);
            Err(Refused::WrongId { identity, expected })
        }
        Some(_) | None => Ok(()),
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        shown: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(end_entity, shown, now)
            .map_err(Refused::into_explanation)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn listed(roles: &[Role]) -> String {
    let mut text = String::new();
    for (i, role) in roles.iter().enumerate() {
        let separator = if i == 0 { "" } else { " or " };
        write!(text, "{separator}{role}").expect("writing to a string cannot fail");
    }
    text
}
