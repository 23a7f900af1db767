//! Certificates for those who have one: the next one, and the CA's key for a controller that lacks it.

use model::{AgentId, Principal, Role};
use raft::MemberRole;
use security::{CERTIFICATE_VALIDITY, CertificateRequest};
use tonic::{Request, Response, Status};
use tracing::info;
use wire::status::{Code, Failure};
use wire::transport::PeerInfo;
use wire::v1;

use super::Gateway;
use crate::authority;

#[tonic::async_trait]
impl v1::identities_server::Identities for Gateway {
    async fn renew(
        &self,
        request: Request<v1::RenewRequest>,
    ) -> Result<Response<v1::RenewReply>, Status> {
        Ok(Response::new(self.renewed(&request)?))
    }

    async fn admit(
        &self,
        request: Request<v1::AdmitRequest>,
    ) -> Result<Response<v1::AdmitReply>, Status> {
        Ok(self.admit_for(request).await?)
    }

    async fn authority(
        &self,
        request: Request<v1::AuthorityRequest>,
    ) -> Result<Response<v1::AuthorityReply>, Status> {
        Ok(Response::new(self.hand_authority(&request)?))
    }
}

fn forbidden(why: impl Into<String>) -> Failure {
    Failure::new(Code::Forbidden, why)
}

impl Gateway {
    /// For the same identity, key, names and life as the certificate that is shown: a renewal gives nobody
    /// what they had not.
    fn renewed(&self, request: &Request<v1::RenewRequest>) -> Result<v1::RenewReply, Failure> {
        let invalid = |error: security::Error| Failure::new(Code::Invalid, error.to_string());
        let caller = self.0.caller(request)?;
        let peer = request.extensions().get::<PeerInfo>();
        let shown = peer.and_then(|peer| peer.certificate.as_ref());
        let shown = shown.ok_or_else(|| forbidden("a renewal needs the certificate itself"))?;
        if caller.forwarded {
            return Err(forbidden("a renewal is not passed on"));
        }
        self.may_renew(&caller.principal)?;
        let asked = CertificateRequest::from_der(&request.get_ref().request).map_err(invalid)?;
        if asked.key_hash() != security::key_hash(shown).map_err(invalid)? {
            return Err(forbidden(
                "a renewal is for the key of the present certificate",
            ));
        }
        let ca = self.0.authority.get().ok_or_else(authority::missing)?;
        let (identity, _) = security::identify(shown).map_err(invalid)?;
        let names = security::host_names(shown).map_err(invalid)?;
        let validity = security::validity(shown).map_err(invalid)?;
        let validity = validity.min(CERTIFICATE_VALIDITY);
        let cert_pem = ca.sign_request(&asked, &identity, &names, validity);
        let cert_pem = cert_pem.map_err(invalid)?;
        info!(%identity, "renewed a certificate");
        Ok(v1::RenewReply { cert_pem })
    }

    /// Only whom the cluster knows, by this controller's own state, which is no more than a moment old. People
    /// do not renew: their certificates end when an administrator said.
    fn may_renew(&self, principal: &Principal) -> Result<(), Failure> {
        let name = &principal.name;
        let known = match principal.role {
            Role::Controller => name
                .parse()
                .is_ok_and(|id| self.0.cluster.address_of(id).is_some()),
            Role::Agent => {
                AgentId::new(name).is_ok_and(|id| self.0.cluster.view().agent(&id).is_some())
            }
            Role::Client => return Err(forbidden("a client's certificate is not renewed")),
        };
        match known {
            true => Ok(()),
            false => Err(forbidden(format!(
                "this cluster knows no {name}, or not any more"
            ))),
        }
    }

    /// Whoever has a vote could do anything anyhow; a learner, or one that was never let in, could not.
    fn hand_authority(
        &self,
        request: &Request<v1::AuthorityRequest>,
    ) -> Result<v1::AuthorityReply, Failure> {
        let caller = self.0.caller(request)?;
        let members = self.0.cluster.members();
        let voter = members.iter().any(|member| {
            member.role != MemberRole::Learner && member.id.to_string() == caller.principal.name
        });
        if caller.forwarded || caller.principal.role != Role::Controller || !voter {
            return Err(forbidden(
                "the CA's key is for the voters of this cluster alone",
            ));
        }
        let ca = self.0.authority.get().ok_or_else(authority::missing)?;
        info!(controller = %caller.principal.name, "handed over the CA's key");
        Ok(v1::AuthorityReply {
            ca_pem: ca.pem().to_owned(),
            key_pem: ca.key_pem(),
        })
    }
}
