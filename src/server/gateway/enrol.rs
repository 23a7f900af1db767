//! Letting a machine in: the one call that needs no certificate.
//!
//! ```text
//!  machine ── request, proof ──► any controller: proof good? ──► leader: entry uses the token up
//!     ▲                                │                                        │
//!     └────── name, certificate ◄── signs with the CA's key ◄───── name ◄───────┘
//! ```
//!
//! The controller that holds the machine's connection checks the proof, for only it knows what the
//! proof is bound to; and it signs, after the entry is committed. Should it die in between, the machine asks
//! again with the same key and is given the same name. Whatever is wrong with a token, the machine hears one
//! and the same sentence; the reason is in this controller's log.

use failpoint::Point;
use model::{Command, JoinTokenId, Role};
use security::{Binding, CertificateRequest, Identity, SecretHash};
use tonic::{Request, Response, Status};
use tracing::{info, warn};
use wire::convert::{enrolment_in, labels_out, role_in};
use wire::status::{Code, Failure};
use wire::transport::PeerInfo;
use wire::v1;

use super::request::Hop;
use super::tasks::{position_of, unexpected};
use super::{Deadline, Gateway};
use crate::callers::Caller;
use crate::{authority, limit};

#[tonic::async_trait]
impl v1::enrolments_server::Enrolments for Gateway {
    async fn enrol(
        &self,
        request: Request<v1::EnrolRequest>,
    ) -> Result<Response<v1::EnrolReply>, Status> {
        let address = peer(&request)?.address;
        let token = shortened(&request.get_ref().token);
        match self.enrolled(request).await {
            Ok(reply) => {
                info!(%address, %token, name = %reply.name, "let a machine in");
                Ok(Response::new(reply))
            }
            Err(failure) => {
                warn!(%address, %token, reason = %failure, "refused a machine that wants to join");
                Err(told(failure).into())
            }
        }
    }
}

/// What the machine hears. Who proved nothing learns nothing.
fn told(failure: Failure) -> Failure {
    match failure.code {
        Code::Unauthenticated => Failure::new(
            Code::Unauthenticated,
            "this cluster does not accept the join token",
        )
        .with_hint(
            "make another one with `quorate join-token create`; the controller's log says why",
        ),
        _ => failure,
    }
}

/// It goes into a log, and anybody may send it.
fn shortened(id: &str) -> String {
    id.chars().take(limit::TOKEN_ID_SHOWN).collect()
}

fn peer<T>(request: &Request<T>) -> Result<PeerInfo, Failure> {
    let peer = request.extensions().get::<PeerInfo>().cloned();
    peer.ok_or_else(|| Failure::new(Code::Internal, "the connection says nothing of itself"))
}

fn unproven(why: impl Into<String>) -> Failure {
    Failure::new(Code::Unauthenticated, why)
}

impl Gateway {
    async fn enrolled(
        &self,
        request: Request<v1::EnrolRequest>,
    ) -> Result<v1::EnrolReply, Failure> {
        let peer = peer(&request)?;
        self.0.pace.take(peer.address.ip())?;
        let deadline = Deadline::of(request.metadata());
        let message = request.into_inner();
        let binding = peer.binding.map(Binding).ok_or_else(|| {
            let why = "a machine that has a certificate has joined already";
            Failure::new(Code::Invalid, why).with_hint("connect without a certificate")
        })?;
        // Before the token is touched: it would be used up for nothing.
        let ca = self.0.authority.get().ok_or_else(authority::missing)?;
        if message.hosts.len() > limit::HOSTS_MAX {
            let why = format!("a certificate names {} hosts at most", limit::HOSTS_MAX);
            return Err(Failure::new(Code::OverLimit, why));
        }
        let asked = CertificateRequest::from_der(&message.request)
            .map_err(|error| Failure::new(Code::Invalid, error.to_string()))?;
        self.check_proof(&message, binding, deadline).await?;
        let role = role_in(&message.role)?;
        let admitted = self.admit(&message, &asked, deadline).await?;
        let role = match role {
            Role::Controller => security::Role::Controller,
            Role::Agent => security::Role::Agent,
            Role::Client => return Err(unproven("no client joins")),
        };
        let validity = std::time::Duration::from_millis(admitted.validity_ms);
        let signed = Identity::new(ca.cluster(), role, &admitted.name)
            .and_then(|identity| ca.sign_request(&asked, &identity, &message.hosts, validity));
        let cert_pem = signed.map_err(|error| Failure::new(Code::Invalid, error.to_string()))?;
        let members = self.0.cluster.members();
        Ok(v1::EnrolReply {
            name: admitted.name,
            ca_pem: ca.pem().to_owned(),
            cert_pem,
            controllers: members
                .iter()
                .map(|member| (&member.addresses).into())
                .collect(),
            labels: admitted.labels,
        })
    }

    /// Against the state as it is now: a token may have been made a moment ago, elsewhere.
    async fn check_proof(
        &self,
        message: &v1::EnrolRequest,
        binding: Binding,
        deadline: Deadline,
    ) -> Result<(), Failure> {
        let id = JoinTokenId::new(&message.token).map_err(|error| unproven(error.to_string()))?;
        let (state, _) = self.read(deadline).await?;
        let token = state.join_token(&id);
        let token = token.ok_or_else(|| unproven(format!("there is no join token {id}")))?;
        let hash = SecretHash(token.asked.secret);
        match hash.is_proven_by(&message.proof, binding, &message.request) {
            true => Ok(()),
            false => Err(unproven(format!(
                "it does not know the secret of join token {id}"
            ))),
        }
    }

    /// Uses the token up, on the leader, in the name of this controller.
    async fn admit(
        &self,
        message: &v1::EnrolRequest,
        asked: &CertificateRequest,
        deadline: Deadline,
    ) -> Result<v1::AdmitReply, Failure> {
        let caller = Caller {
            principal: self.0.principal(),
            forwarded: false,
        };
        let request = v1::AdmitRequest {
            token: message.token.clone(),
            role: message.role.clone(),
            name: message.name.clone(),
            key_hash: asked.key_hash().to_vec().into(),
        };
        let admitted = self.admitted(&caller, request, deadline).await?;
        Ok(admitted.into_inner())
    }

    /// The same on behalf of another controller.
    pub(super) async fn admit_for(
        &self,
        request: Request<v1::AdmitRequest>,
    ) -> Result<Response<v1::AdmitReply>, Failure> {
        let caller = self.0.caller(&request)?;
        let id = caller.principal.name.parse();
        let member = id.is_ok_and(|id| self.0.cluster.address_of(id).is_some());
        if caller.principal.role != Role::Controller || !member {
            let why = "only a controller of this cluster vouches for a machine";
            return Err(Failure::new(Code::Forbidden, why));
        }
        let deadline = Deadline::of(request.metadata());
        self.admitted(&caller, request.into_inner(), deadline).await
    }

    async fn admitted(
        &self,
        caller: &Caller,
        request: v1::AdmitRequest,
        deadline: Deadline,
    ) -> Result<Response<v1::AdmitReply>, Failure> {
        let enrolment = enrolment_in(&request)?;
        enrolment.validate()?;
        self.led(
            caller,
            deadline,
            || self.admit_here(caller, enrolment.clone()),
            |hop| {
                let request = Hop::pass_on(caller, deadline, request.clone());
                async move { hop.identities().admit(request).await }
            },
        )
        .await
    }

    async fn admit_here(
        &self,
        caller: &Caller,
        mut enrolment: model::Enrolment,
    ) -> Result<v1::AdmitReply, Failure> {
        enrolment.last_controller = self.0.cluster.last_id();
        let command = Command::Enrol(enrolment);
        failpoint::at(Point::TokenUseBefore);
        let accepted = self.proposed(caller.principal.clone(), command).await?;
        failpoint::at(Point::TokenUseAfter);
        match &accepted.reply {
            model::Reply::Enrolled(enrolled) => Ok(v1::AdmitReply {
                position: Some(position_of(&accepted)),
                name: enrolled.name.clone(),
                validity_ms: enrolled.validity.0,
                labels: labels_out(&enrolled.labels),
            }),
            other => Err(unexpected(other)),
        }
    }
}
