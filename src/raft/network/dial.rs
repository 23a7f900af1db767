//! Channels to peers, the header of every request, and what a failed call means.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustls::ClientConfig;
use tonic::Status;
use tonic::transport::Channel;
use wire::transport::{self, Connection, DialError, Timers};
use wire::v1;
use wire::v1::peer_client::PeerClient;

use crate::consensus::NodeId;
use crate::member::Node;
use crate::membership::Me;
use crate::network::tls::PeerTls;

/// Bytes of one message between peers. Reads for replication stop at 1 MiB, but one entry may be larger
/// than that, and has to travel whole.
pub const MESSAGE_BYTES: usize = 72 << 20;

/// How a member reaches its peers.
#[derive(Clone)]
pub struct Dialer {
    me: Me,
    /// For gRPC.
    tls: Arc<ClientConfig>,
    /// For entries of the log.
    log_tls: Arc<ClientConfig>,
    /// Instead of what the membership says.
    overrides: Arc<BTreeMap<NodeId, String>>,
}

impl Dialer {
    pub fn new(me: Me, tls: &PeerTls, overrides: BTreeMap<NodeId, String>) -> Self {
        Self {
            me,
            tls: tls.client.clone(),
            log_tls: tls.log_client.clone(),
            overrides: Arc::new(overrides),
        }
    }

    pub fn me(&self) -> &Me {
        &self.me
    }

    pub fn address(&self, id: NodeId, known: &str) -> String {
        self.overrides
            .get(&id)
            .cloned()
            .unwrap_or_else(|| known.to_owned())
    }

    /// A channel of one's own; it connects when it is first used.
    pub fn client(&self, id: NodeId, address: &str) -> PeerClient<Channel> {
        let address = self.address(id, address);
        let channel = transport::channel(&address, self.tls.clone(), Timers::default());
        PeerClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES)
            .max_encoding_message_size(MESSAGE_BYTES)
    }

    /// A connection for entries of the log.
    pub async fn log_connection(&self, address: &str) -> Result<Connection, DialError> {
        transport::connect(address, self.log_tls.clone(), Timers::default()).await
    }

    pub fn header(&self, to: NodeId, node: &Node) -> v1::PeerHeader {
        v1::PeerHeader {
            to_log: Bytes::copy_from_slice(&node.log.0),
            ..self.header_to_stranger(to)
        }
    }

    /// For a controller whose log is not known yet.
    pub fn header_to_stranger(&self, to: NodeId) -> v1::PeerHeader {
        v1::PeerHeader {
            cluster_id: self.me.cluster_id.clone(),
            from: self.me.id,
            to,
            generation: self.me.generation.0,
            to_log: Bytes::new(),
            from_log: Bytes::copy_from_slice(&self.me.node.log.0),
        }
    }
}

/// Why a call brought no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    #[error("{}", reason(_0))]
    Status(#[from] Status),
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("the connection broke: {0}")]
    Broken(io::Error),
}

fn reason(status: &Status) -> String {
    match transport::dial_error(status) {
        Some(error) => error.to_string(),
        None => format!("{:?}: {}", status.code(), status.message()),
    }
}

/// A call with a deadline, whatever the transport does.
pub async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, CallError> {
    match tokio::time::timeout(limit, call).await {
        Ok(result) => Ok(result?.into_inner()),
        Err(_) => Err(CallError::TimedOut(limit)),
    }
}
