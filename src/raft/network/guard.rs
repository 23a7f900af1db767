//! Who may speak on the peer port, and whether they mean this member.
//!
//! The certificate has to name the controller that the header names, and the header has to mean this very
//! member, of this cluster, generation and log. Two clusters that were mixed up, a wrong address, and a
//! member that lost its log and came back under its id all end here. That member is refused in both
//! directions: it must not be told anything, and nothing that it asks or claims may count.

use std::sync::Arc;

use security::Role;
use tonic::Status;
use wire::transport::PeerInfo;
use wire::v1;

use super::codec;
use crate::consensus::NodeId;
use crate::member::{LogIdentity, controller, lost_log};
use crate::membership::Me;

/// The log that the membership in force here has for a member, if it knows that member.
pub type KnownLog = Arc<dyn Fn(NodeId) -> Option<LogIdentity> + Send + Sync>;

#[derive(Clone)]
pub struct Guard {
    me: Arc<Me>,
    known: KnownLog,
}

impl Guard {
    pub fn new(me: Me, known: KnownLog) -> Self {
        Self {
            me: Arc::new(me),
            known,
        }
    }

    pub fn me(&self) -> &Me {
        &self.me
    }

    /// Checks a request's origin and destination.
    pub fn check(
        &self,
        peer: Option<&PeerInfo>,
        header: Option<&v1::PeerHeader>,
    ) -> Result<(), Status> {
        let header = self.check_stranger(peer, header)?;
        if LogIdentity::from_slice(&header.to_log) != Some(self.me.node.log) {
            return Err(Status::failed_precondition(lost_log(self.me.id)));
        }
        // A sender that is not known here is new, or this member is behind: the term decides then.
        match (self.known)(header.from) {
            Some(known) if LogIdentity::from_slice(&header.from_log) != Some(known) => {
                Err(Status::failed_precondition(lost_log(header.from)))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The same without the log, which somebody who asks for it can't know.
    pub fn check_stranger<'h>(
        &self,
        peer: Option<&PeerInfo>,
        header: Option<&'h v1::PeerHeader>,
    ) -> Result<&'h v1::PeerHeader, Status> {
        let header = header.ok_or_else(|| codec::missing("header"))?;
        let refuse = |text: String| Err(Status::failed_precondition(text));
        if header.cluster_id != self.me.cluster_id {
            return refuse(format!(
                "this is a member of cluster {}, not of {}",
                self.me.cluster_id, header.cluster_id
            ));
        }
        if header.to != self.me.id {
            let (me, to) = (controller(self.me.id), controller(header.to));
            return refuse(format!("this is {me}, not {to}"));
        }
        if header.generation != self.me.generation.0 {
            return refuse(format!(
                "this is generation {} of the cluster, not {}",
                self.me.generation.0, header.generation
            ));
        }
        check_certificate(peer, &self.me.cluster_id, header.from)?;
        Ok(header)
    }
}

/// The handshake has proved that it is a certificate of our CA, for a controller.
fn check_certificate(peer: Option<&PeerInfo>, cluster: &str, from: NodeId) -> Result<(), Status> {
    let denied = |text: String| Status::permission_denied(text);
    let certificate = peer
        .and_then(|peer| peer.certificate.as_ref())
        .ok_or_else(|| denied("the peer port needs a controller's certificate".to_owned()))?;
    let (identity, _) =
        security::identify(certificate).map_err(|error| denied(error.to_string()))?;
    let expected = controller(from).to_string();
    let told = (identity.role(), identity.cluster(), identity.id());
    match told == (Role::Controller, cluster, expected.as_str()) {
        true => Ok(()),
        false => Err(denied(format!(
            "the certificate of {identity} may not speak as {expected}"
        ))),
    }
}
