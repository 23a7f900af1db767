//! Where blobs come from: any controller that the agent knows.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::{FutureExt, StreamExt};
use tokio::sync::watch;
use wire::client::Client;
use wire::status::Reaction;

use super::cache::{Failed, Source};
use crate::renewal;

/// Connections are used again for so long; after that a renewed certificate, or other controllers, are noticed.
const FRESH: Duration = Duration::from_secs(60);

/// A client, and since when it is used.
type Held = Mutex<Option<(Instant, Client)>>;

/// Asks the controllers at the addresses that are dialled, with the certificate of this directory.
pub fn controllers(identity: PathBuf, dialled: watch::Receiver<Vec<String>>) -> Source {
    let held = Arc::new(Held::default());
    Arc::new(move |blob, offset| {
        let client = client(&held, &identity, &dialled);
        async move {
            let asked = client?.get_blob(&blob.into(), offset).await;
            let parts = asked.map_err(|error| match error.code().reaction() {
                Reaction::Rejected => Failed::ForGood(error.to_string()),
                Reaction::Unavailable | Reaction::Unknown | Reaction::Fatal => {
                    Failed::Now(error.to_string())
                }
            })?;
            let pieces = parts.map(|part| match part {
                Ok(part) => Ok(part.data),
                Err(status) => Err(Failed::Now(status.message().to_owned())),
            });
            Ok(pieces.boxed())
        }
        .boxed()
    })
}

fn client(
    held: &Held,
    identity: &Path,
    dialled: &watch::Receiver<Vec<String>>,
) -> Result<Client, Failed> {
    let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((since, client)) = &*held
        && since.elapsed() < FRESH
    {
        return Ok(client.clone());
    }
    let credentials = renewal::credentials(identity);
    let credentials = credentials.map_err(|error| Failed::Now(error.to_string()))?;
    let made = renewal::client_as(&credentials, &dialled.borrow()).map_err(Failed::Now)?;
    *held = Some((Instant::now(), made.clone()));
    Ok(made)
}
