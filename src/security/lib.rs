//! Who is at the other end: certificates, and the TLS that checks them.
//!
//! A cluster has one certificate authority ([`Ca`]). Every process holds a certificate from it with
//! exactly one URI name, `spiffe://<cluster>/<role>/<id>`, and that name, not a host name, is its
//! [`Identity`]. The flow: `cluster init` makes the CA and issues key pairs; their files ([`KeyFiles`])
//! become [`Credentials`]; [`server_config`] and [`client_config`] turn those into TLS
//! configurations whose verifiers check chain, purpose, cluster, role and, where asked, the id *inside*
//! the handshake, so that no byte of a request is read from a peer that is not who it must be.
//!
//! TLS 1.3 only, and no session is ever resumed: a resumed session would check nothing again. `ca.pem` may
//! hold the old and the new root at once.
//!
//! A machine that joins has no certificate yet. It has a [`JoinToken`], by whose [`Pin`] it knows the cluster
//! in the handshake ([`pinned_client_config`]), and by whose [`Secret`] the cluster knows it; the key that it
//! made ([`OwnKey`]) is certified by a controller that has the CA's ([`Ca::sign_request`]).
//!
//! Left out: what an identity may do (the gateways and `model` decide that), revocation lists, and
//! sockets: this crate does no network IO.

mod ca;
mod credentials;
mod error;
mod files;
mod identity;
mod join_token;
mod pin;
mod renewal;
mod request;
mod tls;
mod verify;

#[cfg(test)]
mod handshake_tests;
#[cfg(test)]
mod pin_tests;

pub use ca::{CERTIFICATE_VALIDITY, CLOCK_DIFFERENCE, Ca, CertifiedKey, ROOT_VALIDITY};
pub use credentials::{Credentials, KeyFiles, Trust, Validity};
pub use error::Error;
pub use files::read_secret;
pub use identity::{Fingerprint, Identity, Role, identify};
pub use join_token::{Binding, JoinToken, Secret, SecretHash};
pub use pin::Pin;
pub use renewal::{Due, Renewals};
pub use request::{CertificateRequest, OwnKey, host_names, key_hash, validity};
pub use tls::{
    Alpn, Clients, Expected, LOG_PROTOCOL, anonymous_client_config, client_config,
    pinned_client_config, server_config,
};
