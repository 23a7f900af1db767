//! Blobs between members: asked for, fetched, and known to be on the disks of a majority.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use model::{BlobDigest, BlobRef};
use tokio::sync::Semaphore;
use tonic::Status;
use tonic::transport::Channel;
use wire::v1;
use wire::v1::peer_client::PeerClient;

use super::blocking;
use super::client::local_failure;
use super::dial::{CallError, Dialer, within};
use crate::blobs::{Blobs, Progress};
use crate::consensus::NodeId;
use crate::member::Node;
use crate::sync::lock;

/// Bytes in one message.
const PART_BYTES: usize = 256 * 1024;

/// For the first message: the asked member looks at all the bytes before it sends one.
const BEGIN_LIMIT: Duration = Duration::from_secs(20);

/// The longest pause between two messages.
const PART_PAUSE: Duration = Duration::from_secs(10);

/// For another member to have what it is asked to hold: it may have to fetch 64 MiB first.
const HOLD_LIMIT: Duration = Duration::from_secs(60);

/// Questions to one member at a time, of up to 1 MiB each.
const ASKS: usize = 8;

pub type Parts = Pin<Box<dyn Stream<Item = Result<v1::PeerBlobPart, Status>> + Send>>;

/// A blob, and its bytes where they are at hand.
#[derive(Debug, Clone)]
pub struct Item {
    pub blob: BlobRef,
    pub bytes: Option<Bytes>,
}

pub fn blob_ref(digest: &[u8], size: u64) -> Result<BlobRef, Status> {
    let digest = digest
        .try_into()
        .map(BlobDigest)
        .map_err(|_| Status::invalid_argument("a blob's digest has 32 bytes"))?;
    Ok(BlobRef { digest, size })
}

/// Answers a member that asks for a blob.
pub async fn send(blobs: Arc<Blobs>, request: &v1::PeerBlobRequest) -> Result<Parts, Status> {
    let (blob, offset) = (blob_ref(&request.digest, request.size)?, request.offset);
    let parts = pieces(blobs, blob, offset).await;
    let parts = parts.map_err(|error| Status::unavailable(error.to_string()))?;
    let parts = parts.ok_or_else(|| Status::not_found("that blob is not here"))?;
    Ok(Box::pin(parts.map(|part| match part {
        Ok(data) => Ok(v1::PeerBlobPart { data }),
        Err(error) => Err(Status::unavailable(error.to_string())),
    })))
}

/// The bytes of a blob from an offset on, piece by piece; none where it is not here.
pub async fn pieces(
    blobs: Arc<Blobs>,
    blob: BlobRef,
    offset: u64,
) -> io::Result<Option<impl Stream<Item = io::Result<Bytes>> + Send + 'static>> {
    let opened = blocking(move || blobs.read(&blob)).await?;
    let Some(mut file) = opened else {
        return Ok(None);
    };
    file.seek(SeekFrom::Start(offset))?;
    // Read when it is wanted: who does not read it occupies no thread.
    let pieces = stream::unfold(Some(file), async |file: Option<File>| {
        let mut file = file?;
        let read = blocking(move || {
            let mut part = Vec::with_capacity(PART_BYTES);
            (&mut file).take(PART_BYTES as u64).read_to_end(&mut part)?;
            Ok((part, file))
        });
        match read.await {
            Ok((part, _)) if part.is_empty() => None,
            Ok((part, file)) => Some((Ok(Bytes::from(part)), Some(file))),
            Err(error) => Some((Err(error), None)),
        }
    });
    Ok(Some(pieces))
}

/// Asks members for blobs.
#[derive(Clone)]
pub struct Exchange {
    dialer: Dialer,
    pub blobs: Arc<Blobs>,
    asked: Arc<Mutex<BTreeMap<(NodeId, String), Asked>>>,
}

/// The way to one that is asked to hold blobs.
#[derive(Clone)]
struct Asked {
    client: PeerClient<Channel>,
    turns: Arc<Semaphore>,
}

impl Exchange {
    pub fn new(dialer: &Dialer, blobs: &Arc<Blobs>) -> Self {
        Self {
            dialer: dialer.clone(),
            blobs: blobs.clone(),
            asked: Arc::default(),
        }
    }

    fn asked(&self, id: NodeId, address: &str) -> Asked {
        let mut asked = lock(&self.asked);
        let key = (id, address.to_owned());
        let known = asked.entry(key).or_insert_with(|| Asked {
            client: self.dialer.client(id, address),
            turns: Arc::new(Semaphore::new(ASKS)),
        });
        known.clone()
    }

    pub fn me(&self) -> NodeId {
        self.dialer.me().id
    }

    /// Has them on disk here, from their bytes or from whoever has them. Says which of them are.
    pub async fn have(&self, items: &[Item], peers: &[(NodeId, Node)]) -> io::Result<Vec<bool>> {
        let (blobs, given) = (self.blobs.clone(), items.to_vec());
        blocking(move || {
            let bytes = given.iter();
            let bytes = bytes.filter_map(|item| Some((item.blob, &**item.bytes.as_ref()?)));
            blobs.put(&bytes.collect::<Vec<_>>())
        })
        .await?;
        let mut here = Vec::with_capacity(items.len());
        for item in items {
            here.push(self.blobs.pin(&item.blob) || self.came(item.blob, peers).await?);
        }
        Ok(here)
    }

    /// Whether a blob came from others. Where it did not for lack of room here, that is said: nobody else is at fault.
    async fn came(&self, blob: BlobRef, peers: &[(NodeId, Node)]) -> io::Result<bool> {
        if self.fetch(&blob, peers).await.is_ok() {
            return Ok(true);
        }
        let blobs = self.blobs.clone();
        let progress = blocking(move || blobs.progress(&blob)).await;
        match progress {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => Err(error),
            progress => Ok(progress.is_ok_and(|it| it == Progress::Whole)),
        }
    }

    /// Fetches a blob from the first of these that has it.
    pub async fn fetch(&self, blob: &BlobRef, peers: &[(NodeId, Node)]) -> Result<(), CallError> {
        let mut failed = None;
        for (id, node) in peers {
            match self.fetch_from(blob, *id, node).await {
                Ok(()) => {
                    tracing::info!(%blob, from = id, "fetched a blob");
                    return Ok(());
                }
                Err(error) => {
                    tracing::debug!(%blob, from = id, %error, "a blob did not come");
                    failed = failed.or(Some(error));
                }
            }
        }
        Err(failed.unwrap_or_else(|| Status::not_found("nobody else is there").into()))
    }

    async fn fetch_from(&self, blob: &BlobRef, id: NodeId, node: &Node) -> Result<(), CallError> {
        let (blobs, wanted) = (self.blobs.clone(), *blob);
        let progress = blocking(move || blobs.progress(&wanted)).await;
        let mut offset = match progress.map_err(|error| local_failure(&error))? {
            Progress::Whole => return Ok(()),
            Progress::Partly(here) => here,
        };
        // A channel of its own, so that nothing waits behind it.
        let mut client = self.dialer.client(id, &node.addresses.raft);
        let request = v1::PeerBlobRequest {
            header: Some(self.dialer.header(id, node)),
            digest: Bytes::copy_from_slice(&blob.digest.0),
            size: blob.size,
            offset,
        };
        let mut parts = within(BEGIN_LIMIT, client.fetch_blob(request)).await?;
        loop {
            let part = tokio::time::timeout(PART_PAUSE, parts.message()).await;
            let Some(part) = part.map_err(|_| CallError::TimedOut(PART_PAUSE))?? else {
                return Err(Status::unavailable("it broke off").into());
            };
            let (blobs, wanted, at) = (self.blobs.clone(), *blob, offset);
            offset += part.data.len() as u64;
            let took = blocking(move || blobs.append(&wanted, at, &part.data)).await;
            match took.map_err(|error| local_failure(&error))? {
                Progress::Whole => return Ok(()),
                Progress::Partly(_) => {}
            }
        }
    }

    /// Which of them a member has on disk, after it was asked to.
    pub async fn ask(
        &self,
        items: &[Item],
        id: NodeId,
        node: &Node,
    ) -> Result<v1::PeerHoldReply, CallError> {
        let Asked { mut client, turns } = self.asked(id, &node.addresses.raft);
        // One that hangs has enough to do; it fetches what it lacks once it goes on.
        let turn = turns.try_acquire();
        let _turn = turn.map_err(|_| Status::unavailable("it has not answered the ones before"))?;
        let blobs = items.iter().map(|item| v1::PeerBlob {
            digest: Bytes::copy_from_slice(&item.blob.digest.0),
            size: item.blob.size,
            data: item.bytes.clone().unwrap_or_default(),
        });
        let request = v1::PeerHoldRequest {
            header: Some(self.dialer.header(id, node)),
            blobs: blobs.collect(),
        };
        let reply = within(HOLD_LIMIT, client.hold_blobs(request)).await?;
        match reply.held.len() == items.len() {
            true => Ok(reply),
            false => Err(Status::internal("it answered for others than it was asked for").into()),
        }
    }

    /// Answers one that asks.
    pub async fn hold(
        &self,
        request: v1::PeerHoldRequest,
        peers: &[(NodeId, Node)],
    ) -> Result<v1::PeerHoldReply, Status> {
        let items = request.blobs.into_iter().map(|blob| {
            let bytes = Some(blob.data).filter(|data| !data.is_empty());
            let blob = blob_ref(&blob.digest, blob.size)?;
            Ok::<_, Status>(Item { blob, bytes })
        });
        let items: Vec<_> = items.collect::<Result<_, _>>()?;
        match self.have(&items, peers).await {
            Ok(held) => Ok(v1::PeerHoldReply { held, full: false }),
            Err(error) if error.kind() == io::ErrorKind::StorageFull => Ok(v1::PeerHoldReply {
                held: vec![false; items.len()],
                full: true,
            }),
            Err(error) => Err(Status::unavailable(error.to_string())),
        }
    }

    /// What is missing comes, from whoever has it. Says how many came.
    pub async fn repair(&self, missing: &[BlobRef], peers: &[(NodeId, Node)]) -> usize {
        let mut came = 0;
        for blob in missing {
            match self.fetch(blob, peers).await {
                Ok(()) => came += 1,
                Err(error) => {
                    tracing::warn!(%blob, %error, "a blob is not here, and could not be fetched");
                }
            }
        }
        came
    }
}
