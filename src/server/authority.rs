//! The CA's key on a controller: loaded where it is, fetched from another voter where it is not.
//!
//! The first controller has it from `cluster init`, in `ca/` of its data directory; every other voter asks for
//! it over a connection on which both show controllers' certificates, so that machines can join, and
//! certificates be renewed, whichever controllers are left. Where nobody has it, because it is kept
//! elsewhere, nothing joins by a token.
//!
//! Left out: sealing the key, see ADR 14. Its file is readable by its owner only.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use security::{Ca, Trust};
use tokio_util::sync::CancellationToken;
use tonic::Request;
use tracing::{error, info, warn};
use wire::status::{Code, Failure};
use wire::v1;

use crate::controller::Controller;
use crate::limit;

/// In the data directory.
const DIRECTORY: &str = "ca";

/// The key, if it is here.
pub struct Authority {
    directory: PathBuf,
    ca: RwLock<Option<Arc<Ca>>>,
}

impl Authority {
    /// One that can't be used is as good as none; the log says why.
    pub fn open(data_dir: &Path, trust: &Trust) -> Authority {
        let directory = data_dir.join(DIRECTORY);
        let loaded = match Ca::is_in(&directory) {
            true => Ca::load(&directory).map_err(|error| error.to_string()),
            false => Err(String::new()),
        };
        let checked = loaded.and_then(|ca| ours(ca, trust));
        if let Err(reason) = &checked
            && !reason.is_empty()
        {
            error!(%reason, "the CA's key can't be used: no machine joins here");
        }
        Authority {
            directory,
            ca: RwLock::new(checked.ok().map(Arc::new)),
        }
    }

    pub fn get(&self) -> Option<Arc<Ca>> {
        self.ca
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// On disk first, so that it is here after a restart too.
    fn take(&self, ca: Ca) -> Result<(), security::Error> {
        ca.keep(&self.directory)?;
        *self.ca.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(ca));
        Ok(())
    }
}

/// Only the CA that certified this controller speaks for its cluster.
fn ours(ca: Ca, trust: &Trust) -> Result<Ca, String> {
    match trust.pin() {
        Ok(pin) if pin.is_among(ca.pem()) => Ok(ca),
        Ok(_) => Err("it is another CA's than the one that this controller trusts".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// What a controller says that lacks the key.
pub fn missing() -> Failure {
    Failure::new(Code::Busy, "this controller does not have the CA's key").with_hint(
        "it fetches the key from another voter; where `cluster init` put it elsewhere, copy ca.pem and ca.key \
         to `ca` in a controller's data directory and restart that one",
    )
}

/// Fetches the key, once this controller has a vote and for as long as it lacks it.
pub async fn keep(controller: Arc<Controller>, stopping: CancellationToken) {
    let fetching = async {
        let mut told = false;
        while controller.authority.get().is_none() {
            tokio::time::sleep(limit::AUTHORITY_PAUSE).await;
            match fetch(&controller).await {
                Ok(true) => info!("has the CA's key"),
                Ok(false) => {}
                Err(error) if !told => {
                    warn!(%error, "cannot keep the CA's key");
                    told = true;
                }
                Err(_) => {}
            }
        }
    };
    stopping.run_until_cancelled(fetching).await;
}

/// Takes the key while whoever has it can still give it: one that is removed may be the only one.
pub async fn before_removal(controller: &Controller) -> Result<(), Failure> {
    if controller.authority.get().is_some() {
        return Ok(());
    }
    let fetched = fetch(controller).await.map(drop);
    fetched.map_err(|error| {
        let why = format!(
            "this controller can't keep the CA's key, which the one that is to go may be the only one to have: {error}"
        );
        Failure::new(Code::Busy, why)
    })
}

/// From whichever other member gives it.
async fn fetch(controller: &Controller) -> Result<bool, String> {
    let mut unusable = None;
    for member in controller.cluster.members() {
        let address = &member.addresses.grpc;
        let Ok(channel) = controller.others.channel(member.id, address) else {
            continue;
        };
        if member.id == controller.id {
            continue;
        }
        let mut client = v1::identities_client::IdentitiesClient::new(channel);
        let mut request = Request::new(v1::AuthorityRequest {});
        request.set_timeout(limit::MEMBER_ANSWER);
        let answer = tokio::time::timeout(limit::MEMBER_ANSWER, client.authority(request)).await;
        let Ok(Ok(answer)) = answer else {
            continue;
        };
        let v1::AuthorityReply { ca_pem, key_pem } = answer.into_inner();
        let ca = Ca::from_pem(&ca_pem, &key_pem).map_err(|error| error.to_string());
        let ca = match ca.and_then(|ca| ours(ca, controller.credentials.trust())) {
            Ok(ca) => ca,
            // Another one may have a good one.
            Err(error) => {
                unusable = Some(error);
                continue;
            }
        };
        let taken = controller.authority.take(ca);
        return taken.map(|()| true).map_err(|error| error.to_string());
    }
    unusable.map_or(Ok(false), Err)
}
