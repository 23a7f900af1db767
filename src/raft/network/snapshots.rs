//! A snapshot on its way from a leader to a member that is too far behind for the log.
//!
//! The manifest goes first, then the chunks as they stand on disk. The receiver takes one snapshot at a
//! time, checks every chunk and the whole, and only then gives it to openraft. Both sides give up when
//! nothing moves.

use std::sync::Arc;
use std::time::Duration;

use futures::stream;
use model::Addresses;
use tokio::sync::mpsc;
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use wire::v1;
use wire::v1::peer_client::PeerClient;
use wire::v1::peer_snapshot_part::Part;

use super::client::local_failure;
use super::codec;
use super::dial::{CallError, within};
use crate::config::SNAPSHOT_TIMEOUT;
use crate::consensus::{NodeId, Vote};
use crate::member::{LogIdentity, Node};
use crate::snapshot::manifest::Manifest;
use crate::snapshot::shelf::Incoming;
use crate::snapshot::{Handle, Shelf, chunk};

/// The slowest network that is waited for, in bytes a second.
const SLOWEST: u64 = 1 << 20;

/// The longest pause between two chunks.
const CHUNK_PAUSE: Duration = Duration::from_secs(30);

/// Chunks read ahead of the network.
const READ_AHEAD: usize = 4;

/// Sends a snapshot and waits until it is installed. Returns the receiver's vote.
pub async fn send(
    client: &mut PeerClient<Channel>,
    header: &v1::PeerHeader,
    from_address: &str,
    vote: Vote,
    handle: &Handle,
) -> Result<Vote, CallError> {
    let mut reader = handle.reader().map_err(|error| local_failure(&error))?;
    let first = v1::PeerSnapshotHeader {
        header: Some(header.clone()),
        vote: Some(codec::put_vote(&vote)),
        manifest: handle.manifest.encode().into(),
        from_address: from_address.to_owned(),
    };
    let (parts, queue) = mpsc::channel(READ_AHEAD);
    let reading = tokio::task::spawn_blocking(move || {
        let mut next = Some(Part::Header(first));
        while let Some(part) = next {
            // The call was given up.
            if parts
                .blocking_send(v1::PeerSnapshotPart { part: Some(part) })
                .is_err()
            {
                break;
            }
            next = reader.next()?.map(|(record, _)| Part::Chunk(record));
        }
        Ok::<_, std::io::Error>(())
    });
    let requests = stream::unfold(queue, async |mut queue: mpsc::Receiver<_>| {
        let part = queue.recv().await?;
        Some((part, queue))
    });
    let segments = handle.manifest.segments.iter().map(|need| need.bytes);
    let bytes = handle.manifest.bytes + segments.sum::<u64>();
    let limit = SNAPSHOT_TIMEOUT + Duration::from_secs(bytes / SLOWEST);
    let reply = within(limit, client.install_snapshot(requests)).await;
    if let Ok(Err(error)) = reading.await {
        return Err(local_failure(&error));
    }
    Ok(codec::vote(reply?.vote)?)
}

/// What a leader sends first.
pub struct Announced {
    pub header: Option<v1::PeerHeader>,
    pub from_address: String,
    pub vote: Vote,
    pub manifest: Manifest,
}

impl Announced {
    /// Who sends it, and where that is.
    pub fn sender(&self) -> Option<(NodeId, Node)> {
        let header = self.header.as_ref()?;
        let node = Node {
            addresses: Addresses {
                raft: self.from_address.clone(),
                ..Addresses::default()
            },
            log: LogIdentity::from_slice(&header.from_log)?,
        };
        (!self.from_address.is_empty()).then_some((header.from, node))
    }
}

pub async fn announced(parts: &mut Streaming<v1::PeerSnapshotPart>) -> Result<Announced, Status> {
    let Some(Part::Header(first)) = next(parts).await? else {
        return Err(codec::missing("header"));
    };
    let manifest = Manifest::decode(&first.manifest)
        .map_err(|damage| Status::invalid_argument(format!("the manifest: {damage}")))?;
    Ok(Announced {
        header: first.header,
        from_address: first.from_address,
        vote: codec::vote(first.vote)?,
        manifest,
    })
}

/// Receives the chunks and verifies the whole.
pub async fn receive(
    shelf: Arc<Shelf>,
    manifest: Manifest,
    parts: &mut Streaming<v1::PeerSnapshotPart>,
) -> Result<Handle, Status> {
    let mut incoming = blocking(move || shelf.receive(manifest)).await?;
    while let Some(part) = next(parts).await? {
        let Part::Chunk(record) = part else {
            return Err(Status::invalid_argument("a second header"));
        };
        if record.len() > 2 * chunk::CHUNK_BYTES {
            return Err(Status::invalid_argument("a chunk that is too large"));
        }
        incoming = blocking(move || incoming.add(&record).map(|()| incoming)).await?;
    }
    blocking(move || Incoming::finish(incoming)).await
}

async fn next(parts: &mut Streaming<v1::PeerSnapshotPart>) -> Result<Option<Part>, Status> {
    match tokio::time::timeout(CHUNK_PAUSE, parts.message()).await {
        Ok(message) => Ok(message?.and_then(|message| message.part)),
        Err(_) => Err(Status::deadline_exceeded("no chunk came")),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, Status> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| Status::data_loss(error.to_string())),
        Err(error) => Err(Status::internal(error.to_string())),
    }
}
