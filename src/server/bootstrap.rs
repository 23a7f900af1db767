//! How a controller comes into its cluster: the first one founds it, every other one asks to join.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use tokio_util::sync::CancellationToken;
use tonic::Request;
use tracing::{info, warn};
use wire::status::Failure;
use wire::v1;

use crate::controller::Controller;
use crate::limit;

/// Made by `cluster init`: this directory's first start founds the cluster.
const MARKER: &str = "bootstrap";

/// What a start needs to know.
pub struct Start {
    pub data_dir: PathBuf,
    /// gRPC addresses to ask for membership.
    pub join: Vec<String>,
}

/// Founds or joins, as it is due, and is done; or gives up when the controller stops.
pub async fn enter(controller: Arc<Controller>, start: Start, stopping: CancellationToken) {
    let entered = async {
        if start.data_dir.join(MARKER).exists() {
            found(&controller, &start).await;
        } else {
            join(&controller, &start.join).await;
        }
    };
    tokio::select! {
        () = entered => {}
        () = stopping.cancelled() => {}
    }
}

/// Whom to ask to become a voter under the present addresses; nothing where that is so already.
/// A join may have been cut short half-way, and addresses change: then the members are asked,
/// this one among them, for it may be the only voter there is.
fn to_ask(controller: &Controller, join: &[String]) -> Option<Vec<String>> {
    let members = controller.cluster.members();
    let me = members.iter().find(|member| member.id == controller.id);
    let settled = me.is_some_and(|me| {
        me.role != raft::MemberRole::Learner && me.addresses == controller.addresses
    });
    if settled {
        return None;
    }
    let mut addresses = join.to_vec();
    if me.is_some() {
        let others = members.iter().filter(|member| member.id != controller.id);
        addresses.extend(others.map(|member| member.addresses.grpc.clone()));
        addresses.push(controller.addresses.grpc.clone());
    }
    Some(addresses)
}

/// Repeating it is safe: an earlier start may have been cut short.
async fn found(controller: &Controller, start: &Start) {
    loop {
        match controller.cluster.initialize().await {
            Ok(()) => break,
            Err(error) => warn!(%error, "founding the cluster is not done yet"),
        }
        tokio::time::sleep(limit::JOIN_PAUSE).await;
    }
    match remove_marker(&start.data_dir) {
        Ok(()) => info!("founded the cluster"),
        // It is only done again, without effect, at the next start.
        Err(error) => warn!(%error, "cannot remove the bootstrap marker"),
    }
}

fn remove_marker(data_dir: &Path) -> io::Result<()> {
    fs::remove_file(data_dir.join(MARKER))?;
    durable::sync_dir(data_dir)
}

/// Asks each address in turn until this controller is a voter. Every reason is logged once.
async fn join(controller: &Controller, given: &[String]) {
    let mut logged = HashSet::new();
    let mut rounds = 0;
    while let Some(addresses) = to_ask(controller, given) {
        // Right after the start a membership that is on disk may not be seen yet.
        if addresses.is_empty() && rounds == 1 {
            warn!(
                "is no member of a cluster, and was told none: use --join on a new controller, \
                 or `quorate cluster init` for a new cluster"
            );
        }
        for address in &addresses {
            match ask_to_join(controller, address).await {
                Ok(()) => {
                    info!(%address, "joined the cluster");
                    return;
                }
                Err(failure) => {
                    let reason = format!("{address}: {failure}");
                    if logged.len() < REASONS_MAX && logged.insert(reason.clone()) {
                        warn!(%reason, "could not join yet, and goes on asking");
                    }
                }
            }
        }
        rounds += 1;
        tokio::time::sleep(limit::JOIN_PAUSE).await;
    }
    info!("is a voter");
}

/// Reasons remembered: they may contain numbers that differ each time.
const REASONS_MAX: usize = 64;

async fn ask_to_join(controller: &Controller, address: &str) -> Result<(), Failure> {
    let unusable =
        |error: security::Error| Failure::new(wire::status::Code::NotTrusted, error.to_string());
    let channel = controller.others.anyone_at(address).map_err(unusable)?;
    let mut request = Request::new(v1::JoinRequest {
        id: controller.id.to_string(),
        address: Some((&controller.addresses).into()),
    });
    request.set_timeout(limit::JOIN_TRY);
    let answer = v1::cluster_client::ClusterClient::new(channel)
        .join(request)
        .await;
    match answer {
        Ok(_) => Ok(()),
        Err(status) => Err(match wire::transport::dial_error(&status) {
            Some(error) => Failure::new(wire::status::Code::Unreachable, error.to_string()),
            None => Failure::read(&status),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_marker_is_removed_once() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(MARKER), "").unwrap();
        remove_marker(dir.path()).unwrap();
        assert!(!dir.path().join(MARKER).exists());
        assert!(remove_marker(dir.path()).is_err());
    }
}
