//! This controller's own certificate: at two thirds of its life there is another one, for the same key, which
//! the next handshakes show. Whoever has the CA's key signs for itself; else any other controller does.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use security::{CERTIFICATE_VALIDITY, CertificateRequest, Due, OwnKey, Renewals};
use tokio_util::sync::CancellationToken;
use tonic::Request;
use wire::status::Failure;
use wire::v1;

use crate::controller::Controller;
use crate::limit;

/// Until `stopping`.
pub async fn keep(controller: Arc<Controller>, identity: PathBuf, stopping: CancellationToken) {
    stopping
        .run_until_cancelled(rounds(&controller, &identity))
        .await;
}

async fn rounds(controller: &Controller, identity: &Path) {
    let mut renewals = Renewals::default();
    loop {
        let validity = controller.credentials.validity();
        let pause = match renewals.due(&validity, SystemTime::now()) {
            Due::Later(pause) => pause,
            Due::Now => {
                let renewed = renew(controller, identity).await;
                let then = "nobody talks to this controller";
                renewals.tried(&validity, SystemTime::now(), &renewed, then)
            }
        };
        tokio::time::sleep(pause).await;
    }
}

async fn renew(controller: &Controller, identity: &Path) -> Result<(), String> {
    let text = |error: security::Error| error.to_string();
    let key = OwnKey::load(identity).map_err(text)?;
    let request = key.request().map_err(text)?;
    let cert_pem = match controller.authority.get() {
        Some(ca) => {
            let asked = CertificateRequest::from_der(&request).map_err(text)?;
            let own = &controller.credentials;
            let names = own.host_names().map_err(text)?;
            let life = own.validity().life().min(CERTIFICATE_VALIDITY);
            ca.sign_request(&asked, own.identity(), &names, life)
                .map_err(text)?
        }
        None => ask_others(controller, request).await?,
    };
    let fresh = key.renewed(&cert_pem).map_err(text)?;
    controller.credentials.renew(&fresh).map_err(text)
}

async fn ask_others(controller: &Controller, request: Vec<u8>) -> Result<String, String> {
    let mut last = "there is no other controller to ask".to_owned();
    let message = v1::RenewRequest {
        request: request.into(),
    };
    for member in controller.cluster.members() {
        if member.id == controller.id {
            continue;
        }
        let Ok(channel) = controller.others.channel(member.id, &member.addresses.grpc) else {
            continue;
        };
        let mut client = v1::identities_client::IdentitiesClient::new(channel);
        let mut request = Request::new(message.clone());
        request.set_timeout(limit::MEMBER_ANSWER);
        match tokio::time::timeout(limit::MEMBER_ANSWER, client.renew(request)).await {
            Ok(Ok(reply)) => return Ok(reply.into_inner().cert_pem),
            Ok(Err(status)) => last = format!("{}: {}", member.id, Failure::read(&status)),
            Err(_) => last = format!("{} does not answer", member.id),
        }
    }
    Err(last)
}
