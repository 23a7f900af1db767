//! Blobs: a file comes, piece by piece, and goes on where it stopped; or it goes.

use std::pin::Pin;

use futures::{Stream, StreamExt};
use model::BlobRef;
use raft::Progress;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use wire::status::{Code, Failure};
use wire::v1;
use wire::v1::put_blob_part::Part;

use super::{Gateway, failure};
use crate::limit;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Replies = mpsc::Sender<Result<v1::PutBlobReply, Status>>;

#[tonic::async_trait]
impl v1::blobs_server::Blobs for Gateway {
    type PutStream = Answers<v1::PutBlobReply>;
    type GetStream = Answers<v1::BlobPart>;

    async fn put(
        &self,
        request: Request<Streaming<v1::PutBlobPart>>,
    ) -> Result<Response<Self::PutStream>, Status> {
        self.reader(&request)?;
        let parts = request.into_inner();
        let (replies, receiver) = mpsc::channel(limit::STREAM_ANSWERS);
        let gateway = self.clone();
        self.0.background.spawn(async move {
            let stopping = gateway.0.stopping.clone();
            let taken = tokio::select! {
                taken = gateway.take(parts, &replies) => taken,
                () = replies.closed() => return,
                () = stopping.cancelled() => Err(failure::stopping()),
            };
            if let Err(failure) = taken {
                // Whoever asked may have gone.
                replies.send(Err(failure.into())).await.ok();
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn get(
        &self,
        request: Request<v1::GetBlobRequest>,
    ) -> Result<Response<Self::GetStream>, Status> {
        // Agents fetch what their tasks need.
        self.0.caller(&request)?;
        let v1::GetBlobRequest { blob, offset } = request.into_inner();
        let blob = named(blob)?;
        if offset > blob.size {
            let text = format!("the blob has {} bytes", blob.size);
            return Err(Failure::new(Code::Invalid, text).into());
        }
        let pieces = self.0.cluster.read_blob(blob, offset).await;
        let pieces = pieces.map_err(|error| failure::of_raft(&error))?;
        let parts = pieces.map(|piece| match piece {
            Ok(data) => Ok(v1::BlobPart { data }),
            Err(error) => Err(Failure::new(Code::Busy, error.to_string()).into()),
        });
        Ok(Response::new(Box::pin(parts)))
    }
}

impl Gateway {
    async fn take(
        &self,
        mut parts: Streaming<v1::PutBlobPart>,
        replies: &Replies,
    ) -> Result<(), Failure> {
        let blob = match next(&mut parts).await? {
            Some(Part::Blob(blob)) => named(Some(blob))?,
            Some(Part::Data(_)) | None => {
                let text = "the first message has to say which blob comes";
                return Err(Failure::new(Code::Invalid, text));
            }
        };
        blob.validate()?;
        let cluster = &self.0.cluster;
        let progress = cluster.blob_progress(blob).await;
        let mut progress = progress.map_err(|error| refused(&error))?;
        let begun = told(replies, blob, progress).await;
        let mut offset = begun;
        while progress != Progress::Whole {
            let Some(part) = next(&mut parts).await? else {
                let text = format!("{offset} of {} bytes came", blob.size);
                return Err(Failure::new(Code::Invalid, text));
            };
            let Part::Data(data) = part else {
                return Err(Failure::new(Code::Invalid, "one blob at a time"));
            };
            let end = offset + data.len() as u64;
            let appended = cluster.append_blob(blob, offset, data).await;
            progress = appended.map_err(|error| match begun {
                0 => refused(&error),
                // It may be what somebody else brought before.
                _ => Failure::new(Code::Busy, error.to_string()),
            })?;
            told(replies, blob, progress).await;
            offset = end;
        }
        let held = cluster.hold(vec![(blob, None)]).await;
        held.map_err(|error| match error {
            // It was, a moment ago.
            raft::HoldError::Nowhere(_) => Failure::new(Code::Busy, "it is not here any more"),
            other => failure::of_hold(other),
        })?;
        let done = v1::PutBlobReply {
            offset: blob.size,
            held: true,
        };
        replies.send(Ok(done)).await.ok();
        Ok(())
    }
}

/// Says how far it came. Whoever asked may have gone; the reader ends then.
async fn told(replies: &Replies, blob: BlobRef, progress: Progress) -> u64 {
    let offset = match progress {
        Progress::Partly(here) => here,
        Progress::Whole => blob.size,
    };
    let reply = v1::PutBlobReply {
        offset,
        held: false,
    };
    replies.send(Ok(reply)).await.ok();
    offset
}

async fn next(parts: &mut Streaming<v1::PutBlobPart>) -> Result<Option<Part>, Failure> {
    let message = tokio::time::timeout(limit::UPLOAD_PAUSE, parts.message()).await;
    let message = message.map_err(|_| Failure::new(Code::Busy, "nothing came for too long"))?;
    let message = message.map_err(|status| Failure::new(Code::Busy, status.message()))?;
    Ok(message.and_then(|message| message.part))
}

fn named(blob: Option<v1::BlobRef>) -> Result<BlobRef, Failure> {
    let blob = blob.ok_or_else(|| Failure::new(Code::Invalid, "the blob is missing"))?;
    Ok(blob.try_into()?)
}

fn refused(error: &std::io::Error) -> Failure {
    match error.kind() {
        std::io::ErrorKind::InvalidData | std::io::ErrorKind::InvalidInput => {
            Failure::new(Code::Invalid, error.to_string())
        }
        std::io::ErrorKind::StorageFull => Failure::new(Code::NoRoom, error.to_string()),
        _ => Failure::new(Code::Busy, error.to_string()),
    }
}
