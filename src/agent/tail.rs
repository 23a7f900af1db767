//! Serves output to controllers: ranges of a stream, and streams that still grow.
//!
//! Each request is a task that reads a chunk and waits for room in its session before it reads the
//! next one. So a slow reader costs a few chunks of memory, and never slows the attempt: that
//! writes to its log, not to its readers.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use model::Fence;
use tokio::sync::mpsc::Sender;
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinSet, spawn_blocking};
use wire::v1;
use wire::v1::agent_frame::Body;

use crate::output::{Chunk, Logs, Source, Stream};

/// Requests that one session serves at a time; a further one is answered with `gone`.
const TAILS_MAX: usize = 256;

/// The requests of one session; dropped with it.
pub(crate) struct Tails {
    logs: Arc<Logs>,
    out: Sender<Body>,
    tasks: JoinSet<u64>,
    by_id: HashMap<u64, AbortHandle>,
}

/// A stream that does not end by itself is followed until the attempt ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    Now,
    Ended,
}

impl Tails {
    /// `out` takes chunks; its capacity is what is in flight at most.
    pub fn new(logs: Arc<Logs>, out: Sender<Body>) -> Tails {
        Tails {
            logs,
            out,
            tasks: JoinSet::new(),
            by_id: HashMap::new(),
        }
    }

    /// Begins to serve it once its `turn` comes.
    pub fn start(&mut self, request: v1::Tail, turn: oneshot::Receiver<()>) {
        while let Some(joined) = self.tasks.try_join_next() {
            if let Ok(id) = joined {
                self.by_id.remove(&id);
            }
        }
        let stream = match request.stream() {
            v1::OutputStream::Stdout => Some(Stream::Stdout),
            v1::OutputStream::Stderr => Some(Stream::Stderr),
            v1::OutputStream::Unspecified => None,
        };
        let v1::Tail {
            id,
            fence,
            offset,
            follow,
            ..
        } = request;
        let full = self.by_id.len() >= TAILS_MAX;
        let fence = fence.filter(|_| !full).map(Fence::from);
        let until = if follow { Until::Ended } else { Until::Now };
        let (out, logs) = (self.out.clone(), Arc::clone(&self.logs));
        let task = async move {
            // Only an agent that ends gives no turn.
            turn.await.unwrap_or_default();
            let source = match fence {
                Some(fence) => find(logs, fence).await,
                None => None,
            };
            match source.zip(stream) {
                Some((source, stream)) => serve(id, source, stream, offset, until, out).await,
                None => send(&out, gone(id, offset)).await,
            };
            id
        };
        let handle = self.tasks.spawn(task);
        if let Some(replaced) = self.by_id.insert(id, handle) {
            replaced.abort();
        }
    }

    pub fn stop(&mut self, id: u64) {
        if let Some(task) = self.by_id.remove(&id) {
            task.abort();
        }
    }
}

fn gone(id: u64, offset: u64) -> v1::Output {
    v1::Output {
        id,
        offset,
        gone: true,
        ..v1::Output::default()
    }
}

/// Whether the session still takes output.
type Open = bool;

async fn send(out: &Sender<Body>, output: v1::Output) -> Open {
    out.send(Body::Output(output)).await.is_ok()
}

async fn serve(
    id: u64,
    source: Source,
    stream: Stream,
    mut offset: u64,
    until: Until,
    out: Sender<Body>,
) -> Open {
    let mut progress = match &source {
        Source::Open(log) if until == Until::Ended => Some(log.follow()),
        Source::Open(_) | Source::Disk(_) => None,
    };
    loop {
        // Asked before the read: what is written in between is not missed.
        let ended = progress
            .as_mut()
            .is_none_or(|progress| progress.borrow_and_update().ended);
        match read(&source, stream, offset).await {
            Ok(Some(Chunk { offset: at, data })) => {
                offset = at + data.len() as u64;
                let output = v1::Output {
                    id,
                    offset: at,
                    data,
                    ..Default::default()
                };
                if !send(&out, output).await {
                    return false;
                }
            }
            Ok(None) if ended => {
                return send(
                    &out,
                    v1::Output {
                        id,
                        offset,
                        end: true,
                        ..Default::default()
                    },
                )
                .await;
            }
            Ok(None) => {
                let Some(progress) = &mut progress else {
                    continue;
                };
                // The log is gone only after it ended, and then this is over, too.
                if progress.changed().await.is_err() {
                    let last = v1::Output {
                        id,
                        offset,
                        end: true,
                        ..Default::default()
                    };
                    return send(&out, last).await;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "could not read output");
                let data = Bytes::new();
                return send(
                    &out,
                    v1::Output {
                        id,
                        offset,
                        data,
                        end: true,
                        gone: true,
                    },
                )
                .await;
            }
        }
    }
}

/// It may ask the disk, and must not hold up the lease, which is renewed on the same threads.
async fn find(logs: Arc<Logs>, fence: Fence) -> Option<Source> {
    spawn_blocking(move || logs.find(fence)).await.ok()?
}

/// From memory at once, from the disk where blocking is fine.
async fn read(source: &Source, stream: Stream, offset: u64) -> io::Result<Option<Chunk>> {
    if let Source::Open(log) = source
        && let Ok(chunk) = log.recent(stream, offset)
    {
        return Ok(chunk);
    }
    let source = source.clone();
    spawn_blocking(move || source.read(stream, offset))
        .await
        .map_err(io::Error::other)?
}
