//! Who may speak on the peer port, and whether they mean this member.
//!
//! The certificate has to name the controller that the header names, and the header has to mean this very
//! member, of this cluster, generation and log. Two clusters that were mixed up, a wrong address, and a
//! member that lost its log and came back under its id all end here.

use std::sync::Arc;

use security::Role;
use tonic::Status;
use wire::transport::PeerInfo;
use wire::v1;

use super::codec;
use crate::consensus::NodeId;
use crate::member::{LogIdentity, controller};
use crate::membership::Me;

#[derive(Clone)]
pub struct Guard(Arc<Me>);

impl Guard {
    pub fn new(me: Me) -> Self {
        Self(Arc::new(me))
    }

    pub fn me(&self) -> &Me {
        &self.0
    }

    /// Checks a request's origin and destination.
    pub fn check(
        &self,
        peer: Option<&PeerInfo>,
        header: Option<&v1::PeerHeader>,
    ) -> Result<(), Status> {
        let header = self.check_stranger(peer, header)?;
        if LogIdentity::from_slice(&header.to_log) == Some(self.0.node.log) {
            return Ok(());
        }
        Err(Status::failed_precondition(format!(
            "the log of {} is not the one that the membership knows: this machine has lost that log \
             and may not act under its id; remove {0}, and let the machine join under a new id",
            controller(self.0.id)
        )))
    }

    /// The same without the log, which somebody who asks for it can't know.
    pub fn check_stranger<'h>(
        &self,
        peer: Option<&PeerInfo>,
        header: Option<&'h v1::PeerHeader>,
    ) -> Result<&'h v1::PeerHeader, Status> {
        let header = header.ok_or_else(|| codec::missing("header"))?;
        let refuse = |text: String| Err(Status::failed_precondition(text));
        if header.cluster_id != self.0.cluster_id {
            return refuse(format!(
                "this is a member of cluster {}, not of {}",
                self.0.cluster_id, header.cluster_id
            ));
        }
        if header.to != self.0.id {
            let (me, to) = (controller(self.0.id), controller(header.to));
            return refuse(format!("this is {me}, not {to}"));
        }
        if header.generation != self.0.generation.0 {
            return refuse(format!(
                "this is generation {} of the cluster, not {}",
                self.0.generation.0, header.generation
            ));
        }
        check_certificate(peer, &self.0.cluster_id, header.from)?;
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
