//! Who is calling: the principal that the connection's certificate proves.
//!
//! TLS asks for a certificate but does not insist, so that a refusal can be a readable answer. A
//! controller passes on the principal of a request that it forwards; nobody else may.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use model::{ControllerId, Principal, Role};
use tonic::metadata::{BinaryMetadataValue, MetadataMap};
use tonic::{Request, Status};
use wire::status::{Code, Failure};
use wire::transport::PeerInfo;

use crate::limit;

/// The metadata key of a forwarded principal.
pub const PRINCIPAL: &str = "x-quorate-principal-bin";

/// Who asks, and by which way.
#[derive(Debug, Clone)]
pub struct Caller {
    pub principal: Principal,
    /// Another controller passed it on: it must not go any further.
    pub forwarded: bool,
}

/// Reads callers off requests, and remembers the certificates that it has seen.
#[derive(Debug, Default)]
pub struct Callers {
    seen: RwLock<HashMap<Vec<u8>, Principal>>,
}

impl Callers {
    /// What is passed on counts only where `is_member` says so of the controller that does it: one that
    /// has a certificate and was never let in, or is in no longer, speaks for nobody.
    pub fn of<T>(
        &self,
        request: &Request<T>,
        is_member: impl FnOnce(ControllerId) -> bool,
    ) -> Result<Caller, Failure> {
        let direct = self.certificate(request)?;
        match request.metadata().get_bin(PRINCIPAL) {
            None => Ok(Caller {
                principal: direct,
                forwarded: false,
            }),
            Some(_) if direct.role != Role::Controller => Err(Failure::new(
                Code::Forbidden,
                "only a controller of this cluster may pass on the principal of another",
            )),
            // Its client is told so and asks another one: a controller that was removed may not have heard of it yet.
            Some(_) if !direct.name.parse().is_ok_and(is_member) => Err(Failure::new(
                Code::ShuttingDown,
                format!(
                    "{} is no controller of this cluster, or not any more",
                    direct.name
                ),
            )),
            Some(passed_on) => Ok(Caller {
                principal: decode(passed_on)?,
                forwarded: true,
            }),
        }
    }

    /// The agent that opens a session.
    pub fn agent<T>(&self, request: &Request<T>) -> Result<Principal, Failure> {
        let direct = self.certificate(request)?;
        if direct.role != Role::Agent {
            return Err(Failure::new(
                Code::Forbidden,
                "only an agent may open a session",
            ));
        }
        Ok(direct)
    }

    fn certificate<T>(&self, request: &Request<T>) -> Result<Principal, Failure> {
        let peer = request.extensions().get::<PeerInfo>();
        let certificate = peer.and_then(|peer| peer.certificate.as_ref());
        let certificate = certificate.ok_or_else(unauthenticated)?;
        let seen = self.seen.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(principal) = seen.get(&certificate[..]) {
            return Ok(principal.clone());
        }
        drop(seen);
        let (identity, fingerprint) =
            security::identify(certificate).map_err(|_| unauthenticated())?;
        let principal = Principal {
            name: identity.id().to_owned(),
            role: role_of(identity.role()),
            fingerprint: fingerprint.0,
        };
        let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= limit::CERTIFICATES {
            seen.clear();
        }
        seen.insert(certificate.to_vec(), principal.clone());
        Ok(principal)
    }
}

/// Puts the caller's principal on a request that is passed on.
pub fn pass_on(principal: &Principal, metadata: &mut MetadataMap) {
    let bytes = rmp_serde::to_vec(principal).expect("a principal encodes into memory");
    metadata.insert_bin(PRINCIPAL, BinaryMetadataValue::from_bytes(&bytes));
}

/// Refuses whoever showed no certificate, before their message is read: it may be large, and there may
/// be many.
pub fn refuse_strangers(request: Request<()>) -> Result<Request<()>, Status> {
    let peer = request.extensions().get::<PeerInfo>();
    match peer.and_then(|peer| peer.certificate.as_ref()) {
        Some(_) => Ok(request),
        None => Err(unauthenticated().into()),
    }
}

fn decode(passed_on: &BinaryMetadataValue) -> Result<Principal, Failure> {
    let bytes = passed_on.to_bytes().ok();
    let principal = bytes.and_then(|bytes| rmp_serde::from_slice(&bytes).ok());
    principal.ok_or_else(|| Failure::new(Code::Invalid, format!("{PRINCIPAL} is not a principal")))
}

fn unauthenticated() -> Failure {
    Failure::new(
        Code::Unauthenticated,
        "this needs a certificate of the cluster",
    )
}

fn role_of(role: security::Role) -> Role {
    match role {
        security::Role::Controller => Role::Controller,
        security::Role::Agent => Role::Agent,
        security::Role::Client => Role::Client,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;
    use security::{CERTIFICATE_VALIDITY, Ca, Identity};

    use super::*;

    fn request(role: Option<security::Role>, name: &str) -> Request<()> {
        let certificate = role.map(|role| {
            let ca = Ca::create("q1").unwrap();
            let identity = Identity::new("q1", role, name).unwrap();
            let issued = ca.issue(&identity, &[], CERTIFICATE_VALIDITY).unwrap();
            CertificateDer::from_pem_slice(issued.cert_pem.as_bytes()).unwrap()
        });
        let mut request = Request::new(());
        let address = "127.0.0.1:1".parse().unwrap();
        request.extensions_mut().insert(PeerInfo {
            certificate: certificate.map(Arc::new),
            address,
            binding: None,
        });
        request
    }

    fn anybody(_: ControllerId) -> bool {
        true
    }

    #[test]
    fn a_principal_is_what_the_certificate_says() {
        let callers = Callers::default();
        let asked = request(Some(security::Role::Client), "ada");
        let first = callers.of(&asked, anybody).unwrap();
        assert_eq!(
            (first.principal.name.as_str(), first.principal.role),
            ("ada", Role::Client)
        );
        assert!(!first.forwarded);
        assert_eq!(
            callers.of(&asked, anybody).unwrap().principal,
            first.principal
        );
    }

    #[test]
    fn nobody_without_a_certificate_is_anybody() {
        let callers = Callers::default();
        for nobody in [request(None, ""), Request::new(())] {
            assert_eq!(
                callers.of(&nobody, anybody).unwrap_err().code,
                Code::Unauthenticated
            );
        }
    }

    #[test]
    fn only_a_controller_passes_on_a_principal() {
        let callers = Callers::default();
        let ada = Principal {
            name: "ada".into(),
            role: Role::Client,
            fingerprint: [7; 32],
        };
        let mut by_controller = request(Some(security::Role::Controller), "c2");
        pass_on(&ada, by_controller.metadata_mut());
        let caller = callers.of(&by_controller, anybody).unwrap();
        assert!(caller.forwarded);
        assert_eq!(caller.principal, ada);
        let never_let_in = callers.of(&by_controller, |id| id != ControllerId(2));
        assert_eq!(never_let_in.unwrap_err().code, Code::ShuttingDown);
        for role in [security::Role::Client, security::Role::Agent] {
            let mut by_other = request(Some(role), "eve");
            pass_on(&ada, by_other.metadata_mut());
            assert_eq!(
                callers.of(&by_other, anybody).unwrap_err().code,
                Code::Forbidden
            );
        }
        let mut garbled = request(Some(security::Role::Controller), "c2");
        garbled
            .metadata_mut()
            .insert_bin(PRINCIPAL, BinaryMetadataValue::from_bytes(b"?"));
        assert!(callers.of(&garbled, anybody).is_err());
    }

    #[test]
    fn a_session_needs_an_agents_certificate() {
        let callers = Callers::default();
        assert!(
            callers
                .agent(&request(Some(security::Role::Agent), "a1"))
                .is_ok()
        );
        assert!(
            callers
                .agent(&request(Some(security::Role::Client), "a1"))
                .is_err()
        );
        assert!(
            callers
                .agent(&request(Some(security::Role::Controller), "c1"))
                .is_err()
        );
    }
}
