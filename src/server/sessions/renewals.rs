//! Leases: an agent's lease is renewed only after a quorum round that began after its request
//! arrived, so a deposed leader can't keep an agent alive. One round serves all requests that wait.

use model::Millis;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::dispatcher::{Inputs, Signal};
use crate::{limit, quorum};

/// A request that arrived.
#[derive(Debug, Clone, Copy)]
pub struct Renewal {
    pub session: dispatch::SessionId,
    pub nonce: u64,
    /// Monotonic time of its arrival.
    pub received: Millis,
}

/// Where requests wait for the next round.
pub type Renewals = mpsc::Sender<Renewal>;

/// Confirms leases until the controller stops. A round that fails is not repeated: agents ask
/// again long before their lease ends.
pub async fn confirm_leases(
    cluster: raft::Cluster,
    mut renewals: mpsc::Receiver<Renewal>,
    inputs: Inputs,
    stopping: CancellationToken,
) {
    let mut batch = Vec::new();
    loop {
        let received = tokio::select! {
            () = stopping.cancelled() => return,
            received = renewals.recv_many(&mut batch, limit::RENEWALS) => received,
        };
        if received == 0 {
            return;
        }
        match quorum::confirm(&cluster).await {
            Ok(_) => {
                for Renewal {
                    session,
                    nonce,
                    received,
                } in batch.drain(..)
                {
                    let confirmed = dispatch::Input::LeaseConfirmed {
                        session,
                        nonce,
                        received,
                    };
                    inputs.send(Signal::Input(confirmed)).await;
                }
            }
            Err(error) => {
                debug!(%error, renewals = batch.len(), "renewals are not confirmed");
                batch.clear();
            }
        }
    }
}
