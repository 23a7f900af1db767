//! A segment of the archive on its way to a member that lacks it: one that got a snapshot, or lost a file.
//!
//! The records travel in their order, and what they add up to is compared with the digest that the state has for the
//! segment before they are used. A segment that is complete is not asked for twice, so every try gets further.

use std::io;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, stream};
use model::{Record, RecordKey};
use tokio::sync::{Mutex, mpsc};
use tonic::{Code, Status, Streaming};
use wire::v1;

use super::blocking;
use super::client::local_failure;
use super::dial::{CallError, Dialer, within};
use crate::archive::Archive;
use crate::archive::need::Need;
use crate::consensus::NodeId;
use crate::machine::Published;
use crate::member::Node;

/// Bytes of records in one message.
const PART_BYTES: usize = 1 << 20;

/// Messages read ahead of the network.
const READ_AHEAD: usize = 4;

/// For the first message: the asked member writes what waits before it reads.
const BEGIN_LIMIT: Duration = Duration::from_secs(30);

/// The longest pause between two messages.
const PART_PAUSE: Duration = Duration::from_secs(30);

pub type Parts = Pin<Box<dyn Stream<Item = Result<v1::PeerSegmentPart, Status>> + Send>>;

/// Answers a member that asks for a segment.
pub fn send(
    published: &Published,
    archive: Arc<Archive>,
    request: &v1::PeerSegmentRequest,
) -> Result<Parts, Status> {
    let (first, end) = (request.first, request.end);
    let state = published.view().state.clone();
    if state.last_applied() + 1 < end {
        return Err(Status::unavailable(
            "this member has not applied that much yet",
        ));
    }
    if !state.all_segments().any(|segment| segment.first == first) {
        return Err(Status::not_found("that segment was dropped"));
    }
    let (parts, queue) = mpsc::channel(READ_AHEAD);
    // It ends with the segment, or when nobody takes its parts any more.
    drop(tokio::task::spawn_blocking(move || {
        let mut part = v1::PeerSegmentPart::default();
        let mut bytes = 0;
        let read = archive.visit(first, end, &mut |record| {
            let RecordKey { index, n } = record.key;
            bytes += record.bytes.len();
            part.records.push(v1::PeerRecord {
                index,
                n,
                bytes: Bytes::from_owner(record.bytes),
            });
            if bytes < PART_BYTES {
                return Ok(ControlFlow::Continue(()));
            }
            bytes = 0;
            let full = std::mem::take(&mut part);
            Ok(match parts.blocking_send(Ok(full)) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            })
        });
        let last = match read {
            Ok(()) => Ok(part),
            Err(error) => Err(Status::unavailable(error.to_string())),
        };
        // Nobody may be there to take it.
        parts.blocking_send(last).ok();
    }));
    let parts = stream::unfold(queue, async |mut queue: mpsc::Receiver<_>| {
        let part = queue.recv().await?;
        Some((part, queue))
    });
    Ok(Box::pin(parts))
}

/// Fetches what this member lacks.
#[derive(Clone)]
pub struct Fetcher {
    pub dialer: Dialer,
    pub archive: Arc<Archive>,
    /// One segment comes at a time: two would write to one file.
    turn: Arc<Mutex<()>>,
}

/// Whether a segment is here now.
enum Came {
    Here,
    /// Somebody's log has dropped it, and this one's will.
    Dropped,
}

impl Fetcher {
    pub fn new(dialer: &Dialer, archive: &Arc<Archive>) -> Self {
        Self {
            dialer: dialer.clone(),
            archive: archive.clone(),
            turn: Arc::default(),
        }
    }

    /// Until all that is needed is here, from whoever of these has it. Returns the first reason why one could
    /// not be had from any of them.
    pub async fn complete(
        &self,
        needs: Vec<Need>,
        peers: &[(NodeId, Node)],
    ) -> Result<(), CallError> {
        let archive = self.archive.clone();
        let missing = blocking(move || archive.missing(&needs)).await;
        let missing = missing.map_err(|error| local_failure(&error))?;
        let mut failed = Ok(());
        for need in missing {
            // What came is not asked for at the next try.
            if let Err(error) = self.fetch(&need, peers).await {
                failed = failed.and(Err(error));
            }
        }
        failed
    }

    /// What the state of now lacks, fetched and taken into use.
    pub async fn repair(
        &self,
        lacks: Vec<Need>,
        peers: &[(NodeId, Node)],
    ) -> Result<(), CallError> {
        let mut failed = Ok(());
        for need in lacks {
            // One that nobody has does not keep the others away.
            match self.fetch(&need, peers).await {
                Ok(Came::Here) => {
                    let archive = self.archive.clone();
                    let adopted = blocking(move || archive.adopt(&need)).await;
                    adopted.map_err(|error| local_failure(&error))?;
                }
                Ok(Came::Dropped) => {}
                Err(error) => failed = failed.and(Err(error)),
            }
        }
        failed
    }

    async fn fetch(&self, need: &Need, peers: &[(NodeId, Node)]) -> Result<Came, CallError> {
        let _one_at_a_time = self.turn.lock().await;
        let mut failed = None;
        for (id, node) in peers {
            match self.fetch_from(need, *id, node).await {
                Ok(()) => {
                    tracing::info!(segment = need.first, from = id, "fetched a segment");
                    return Ok(Came::Here);
                }
                // The log drops it there, so it will here.
                Err(CallError::Status(status)) if status.code() == Code::NotFound => {
                    return Ok(Came::Dropped);
                }
                Err(error) => {
                    tracing::warn!(segment = need.first, from = id, %error, "a segment did not come");
                    failed = failed.or(Some(error));
                }
            }
        }
        let nobody = || Status::unavailable("nobody else is there to fetch it from").into();
        Err(failed.unwrap_or_else(nobody))
    }

    async fn fetch_from(&self, need: &Need, id: NodeId, node: &Node) -> Result<(), CallError> {
        // A channel of its own, so that nothing waits behind it.
        let mut client = self.dialer.client(id, &node.addresses.raft);
        let request = v1::PeerSegmentRequest {
            header: Some(self.dialer.header(id, node)),
            first: need.first,
            end: need.end,
        };
        let mut parts = within(BEGIN_LIMIT, client.fetch_segment(request)).await?;
        let (archive, wanted) = (self.archive.clone(), need.clone());
        let begun = blocking(move || archive.incoming(&wanted)).await;
        let mut incoming = begun.map_err(|error| local_failure(&error))?;
        while let Some(part) = next(&mut parts).await? {
            let put = blocking(move || {
                incoming.put(&records(part)?)?;
                Ok(incoming)
            });
            incoming = put.await.map_err(|error| local_failure(&error))?;
        }
        let finished = blocking(move || incoming.finish()).await;
        finished.map_err(|error| local_failure(&error))
    }
}

fn records(part: v1::PeerSegmentPart) -> io::Result<Vec<Record>> {
    let read = |record: v1::PeerRecord| {
        let key = RecordKey {
            index: record.index,
            n: record.n,
        };
        let bytes: Bytes = record.bytes;
        Record::read(key, bytes.as_ref().into())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
    };
    part.records.into_iter().map(read).collect()
}

async fn next(
    parts: &mut Streaming<v1::PeerSegmentPart>,
) -> Result<Option<v1::PeerSegmentPart>, CallError> {
    match tokio::time::timeout(PART_PAUSE, parts.message()).await {
        Ok(part) => Ok(part?),
        Err(_) => Err(CallError::TimedOut(PART_PAUSE)),
    }
}
