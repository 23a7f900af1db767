//! TLS configurations for the sockets of a cluster.
//!
//! Every one speaks TLS 1.3 only, takes its cryptography from aws-lc-rs by name (never from a process-wide
//! default, which any dependency might set), and neither issues nor uses session tickets. Whom they trust
//! never changes; the certificate that they show is that of the credentials at the time of a handshake.

use std::sync::Arc;

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig, SignatureScheme};

use crate::credentials::{Credentials, Held, Trust};
use crate::error::Error;
use crate::identity::Role;
use crate::pin::Pin;
use crate::verify::{ClientVerifier, ServerVerifier};

/// What a socket asks of those who connect to it.
#[derive(Clone, Debug)]
pub enum Clients {
    /// A certificate of one of these roles, or the handshake fails.
    Required(Vec<Role>),
    /// Certificates are asked for. None is accepted, a bad one is not, and the handler decides.
    Optional,
}

impl Clients {
    pub fn required(roles: &[Role]) -> Self {
        Self::Required(roles.to_vec())
    }
}

/// Whom a dialling process expects to find.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    pub(crate) role: Role,
    pub(crate) id: Option<String>,
}

impl Expected {
    /// Any member of the cluster with this role.
    pub fn any(role: Role) -> Self {
        Self { role, id: None }
    }

    /// This one and no other.
    pub fn exactly(role: Role, id: &str) -> Self {
        Self {
            role,
            id: Some(id.to_owned()),
        }
    }
}

/// What is spoken inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alpn {
    /// gRPC: HTTP/2 and nothing else.
    H2,
    /// Plain web servers and their callers.
    Http1,
    /// HTTP/2 where the other side can, else HTTP/1.1.
    Any,
    /// Entries of the log, from a leader to one follower ([`LOG_PROTOCOL`]).
    Log,
    /// What is spoken between controllers: gRPC or the log, as the caller asks.
    Peers,
}

/// The name under which a leader asks for a connection that carries entries of the log.
pub const LOG_PROTOCOL: &[u8] = b"quorate-log/1";

impl Alpn {
    fn protocols(self) -> Vec<Vec<u8>> {
        match self {
            Self::H2 => vec![b"h2".to_vec()],
            Self::Http1 => vec![b"http/1.1".to_vec()],
            Self::Any => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            Self::Log => vec![LOG_PROTOCOL.to_vec()],
            Self::Peers => vec![b"h2".to_vec(), LOG_PROTOCOL.to_vec()],
        }
    }
}

/// For a listening socket.
pub fn server_config(
    credentials: &Credentials,
    clients: Clients,
    alpn: Alpn,
) -> Result<Arc<ServerConfig>, Error> {
    let verifier = ClientVerifier::new(credentials.trust(), clients);
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| unusable(&error))?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(Shown(credentials.held())));
    config.alpn_protocols = alpn.protocols();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// For dialling as ourselves.
pub fn client_config(
    credentials: &Credentials,
    expected: Expected,
    alpn: Alpn,
) -> Result<Arc<ClientConfig>, Error> {
    let own = Shown(credentials.held());
    let verifier = ServerVerifier::new(credentials.trust(), expected);
    let config = checking(verifier)?.with_client_cert_resolver(Arc::new(own));
    Ok(finished(config, alpn))
}

/// For dialling without a certificate: the server is checked as always, and knows nothing of us.
pub fn anonymous_client_config(
    trust: &Trust,
    expected: Expected,
    alpn: Alpn,
) -> Result<Arc<ClientConfig>, Error> {
    let config = checking(ServerVerifier::new(trust, expected))?.with_no_client_auth();
    Ok(finished(config, alpn))
}

/// For dialling a cluster of which nothing is known but the hash of its CA's key. The check is in the
/// handshake: to a server that the CA did not certify as a controller, nothing is sent.
pub fn pinned_client_config(pin: &Pin, alpn: Alpn) -> Result<Arc<ClientConfig>, Error> {
    let config = checking(ServerVerifier::pinned(*pin))?.with_no_client_auth();
    Ok(finished(config, alpn))
}

/// Shows the certificate that is held at the time.
#[derive(Debug)]
struct Shown(Arc<Held>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.key())
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(
        &self,
        _root_hints: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        Some(self.0.key())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

type CheckingBuilder = rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>;

fn checking(verifier: ServerVerifier) -> Result<CheckingBuilder, Error> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| unusable(&error))?;
    // "dangerous" because it replaces the check of host names; ours checks identities instead.
    Ok(builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier)))
}

fn finished(mut config: ClientConfig, alpn: Alpn) -> Arc<ClientConfig> {
    config.alpn_protocols = alpn.protocols();
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn unusable(error: &rustls::Error) -> Error {
    Error::Internal {
        what: "set up TLS 1.3",
        reason: error.to_string(),
    }
}
