//! What lets a program in: a context file, the credentials that it names, and channels made of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use security::{Alpn, Ca, Credentials, Expected, Identity, KeyFiles, Role};
use serde::Deserialize;
use tokio_rustls::rustls::ClientConfig;
use tonic::transport::Channel;

use crate::Error;
use crate::cluster::Layout;

/// A context file: where the controllers are, and who asks.
#[derive(Debug, Clone, Deserialize)]
pub struct Context {
    pub addresses: Vec<String>,
    pub ca: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Context {
    pub fn read(path: &Path) -> Result<Context, Error> {
        let text = fs::read_to_string(path).map_err(Error::file("reading", path))?;
        let mut context: Context =
            toml::from_str(&text).map_err(|error| Error::format(path, error))?;
        let directory = path.parent().unwrap_or(Path::new("/"));
        for file in [&mut context.ca, &mut context.cert, &mut context.key] {
            // Relative ones are meant from where the context is.
            *file = directory.join(&file);
        }
        Ok(context)
    }

    pub fn credentials(&self) -> Result<Credentials, Error> {
        let Context { ca, cert, key, .. } = self.clone();
        Ok(Credentials::load(&KeyFiles { ca, cert, key })?)
    }
}

/// TLS towards any controller of the credentials' cluster, for gRPC.
pub fn grpc_tls(credentials: &Credentials) -> Result<Arc<ClientConfig>, Error> {
    Ok(security::client_config(
        credentials,
        Expected::any(Role::Controller),
        Alpn::H2,
    )?)
}

/// TLS towards any controller's HTTPS port.
pub fn https_tls(credentials: &Credentials) -> Result<Arc<ClientConfig>, Error> {
    Ok(security::client_config(
        credentials,
        Expected::any(Role::Controller),
        Alpn::Http1,
    )?)
}

/// One lazy connection: it dials at the first call, and again after it broke.
pub fn channel(address: &str, tls: &Arc<ClientConfig>) -> Channel {
    wire::transport::channel(address, Arc::clone(tls), wire::transport::Timers::default())
}

/// A new identity from the cluster's own authority, such as an administrator makes for a machine.
pub fn issue(layout: &Layout, role: Role, id: &str, into: &Path) -> Result<Credentials, Error> {
    let ca = authority(layout)?;
    let identity = Identity::new(ca.cluster(), role, id)?;
    let key = ca.issue(&identity, &[], security::CERTIFICATE_VALIDITY)?;
    Ok(Credentials::load(&key.save(into, ca.pem())?)?)
}

/// The authority's directory is the one in which `ca.key` lies: beside `ca.pem`, or, where that is only
/// a copy, in the first controller's data directory.
pub fn authority_directory(layout: &Layout) -> Result<PathBuf, Error> {
    let named = layout.ca.clone();
    let beside = named.parent().map(Path::to_owned).unwrap_or_default();
    let initial = layout
        .controllers
        .first()
        .map(|first| first.data_dir.join("ca"));
    [Some(named.clone()), Some(beside), initial]
        .into_iter()
        .flatten()
        .find(|directory| directory.join("ca.key").is_file())
        .ok_or_else(|| Error::format(&named, "no ca.key in it or beside it"))
}

fn authority(layout: &Layout) -> Result<Ca, Error> {
    Ok(Ca::load(&authority_directory(layout)?)?)
}
