//! The agent's own certificate: at two thirds of its life it asks any controller for another one, for the same
//! key, which the next sessions show. Sessions that are open go on.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use security::{Alpn, Credentials, Due, Expected, KeyFiles, OwnKey, Renewals, Role, Validity};
use tokio::sync::watch;
use wire::client::{Client, Settings};
use wire::v1;

/// Until it is dropped. `addresses`: where controllers are dialled.
pub(crate) async fn keep(identity: PathBuf, addresses: watch::Receiver<Vec<String>>) {
    let mut renewals = Renewals::default();
    let mut validity = match credentials(&identity) {
        Ok(held) => held.validity(),
        // It was read a moment ago: sessions say what is wrong with it.
        Err(_) => return,
    };
    loop {
        let pause = match renewals.due(&validity, SystemTime::now()) {
            Due::Later(pause) => pause,
            Due::Now => {
                let known = addresses.borrow().clone();
                let renewed = renew(&identity, &known).await;
                let then = "no controller takes a session";
                let pause = renewals.tried(&validity, SystemTime::now(), &renewed, then);
                validity = renewed.unwrap_or(validity);
                pause
            }
        };
        tokio::time::sleep(pause).await;
    }
}

pub(crate) fn credentials(identity: &Path) -> Result<Credentials, security::Error> {
    Credentials::load(&KeyFiles::in_directory(identity))
}

/// A client of the controllers at these addresses, beside the sessions with them.
pub(crate) fn client_as(held: &Credentials, addresses: &[String]) -> Result<Client, String> {
    let tls = security::client_config(held, Expected::any(Role::Controller), Alpn::H2);
    let tls = tls.map_err(|error| error.to_string())?;
    let client = Client::connect(addresses, tls, Settings::default());
    client.map_err(|error| error.to_string())
}

/// Somebody may have put another certificate there meanwhile: then that one is renewed, or is good as it is.
async fn renew(identity: &Path, addresses: &[String]) -> Result<Validity, String> {
    let text = |error: security::Error| error.to_string();
    let held = credentials(identity).map_err(text)?;
    if Renewals::default().due(&held.validity(), SystemTime::now()) != Due::Now {
        return Ok(held.validity());
    }
    let key = OwnKey::load(identity).map_err(text)?;
    let request = v1::RenewRequest {
        request: key.request().map_err(text)?.into(),
    };
    let client = client_as(&held, addresses)?;
    let reply = client
        .renew(&request)
        .await
        .map_err(|error| error.to_string())?;
    let fresh = key.renewed(&reply.cert_pem).map_err(text)?;
    Ok(fresh.validity())
}
