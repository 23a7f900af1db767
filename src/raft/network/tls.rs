//! TLS of the peer port.

use std::sync::Arc;

use rustls::{ClientConfig, ServerConfig};
use security::{Alpn, Clients, Credentials, Expected, Role, client_config, server_config};

/// How a controller is met on the peer port, and how it meets others: both sides show a controller's
/// certificate.
#[derive(Clone, Debug)]
pub struct PeerTls {
    pub(crate) server: Arc<ServerConfig>,
    /// For gRPC.
    pub(crate) client: Arc<ClientConfig>,
    /// For entries of the log.
    pub(crate) log_client: Arc<ClientConfig>,
}

impl PeerTls {
    pub fn new(credentials: &Credentials) -> Result<Self, security::Error> {
        let controllers = Clients::required(&[Role::Controller]);
        let dialling = |alpn| client_config(credentials, Expected::any(Role::Controller), alpn);
        Ok(Self {
            server: server_config(credentials, controllers, Alpn::Peers)?,
            client: dialling(Alpn::H2)?,
            log_client: dialling(Alpn::Log)?,
        })
    }
}
