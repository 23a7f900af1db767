//! Files that are too large for a message: sent and fetched in pieces, and gone on with where they broke off.

use std::io::SeekFrom;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncSeek, AsyncSeekExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use super::backoff::Backoff;
use super::calls::endless;
use super::watch::{broken, may_go_on};
use super::{Client, Error, Terms};
use crate::status::{Code, Failure};
use crate::transport::MESSAGE_LIMIT;
use crate::v1;
use crate::v1::blobs_client::BlobsClient;
use crate::v1::put_blob_part::Part;

/// Bytes of one piece.
const PIECE: usize = 256 * 1024;
/// Pieces on their way, beside what the connection holds.
const AHEAD: usize = 4;

type Begun = (mpsc::Sender<v1::PutBlobPart>, Streaming<v1::PutBlobReply>);

impl Client {
    /// Puts a file on the disks of a majority. `told` hears how many bytes have arrived, which may be less than before
    /// where another controller goes on. Gives up where nothing arrives for longer than the client's patience.
    pub async fn put_blob(
        &self,
        blob: &v1::BlobRef,
        file: &mut (impl AsyncRead + AsyncSeek + Unpin + Send),
        mut told: impl FnMut(u64),
    ) -> Result<(), Error> {
        let mut backoff = Backoff::default();
        let mut news = Instant::now();
        let mut furthest = None;
        loop {
            let begun = self.begin_put(blob).await?;
            let mut arrived = |offset: u64| {
                if furthest < Some(offset) {
                    furthest = Some(offset);
                    news = Instant::now();
                }
                told(offset);
            };
            let error = match send(begun, blob.size, file, &mut arrived).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let patient = news.elapsed() <= self.settings().patience;
            if !may_go_on(&error) || !patient && backoff.is_long() {
                return Err(error);
            }
            sleep(backoff.next()).await;
        }
    }

    async fn begin_put(&self, blob: &v1::BlobRef) -> Result<Begun, Error> {
        self.call(Terms::READ, blob, |to, request| async move {
            let (pieces, queue) = mpsc::channel(AHEAD);
            let first = v1::PutBlobPart {
                part: Some(Part::Blob(request.into_inner())),
            };
            // The queue is new, and has room.
            pieces.try_send(first).ok();
            let replies = blobs(to).put(ReceiverStream::new(queue)).await?;
            Ok(replies.map(|replies| (pieces, replies)))
        })
        .await
    }

    /// The bytes of a blob, from an offset on. A stream that breaks is the caller's to continue.
    pub async fn get_blob(
        &self,
        blob: &v1::BlobRef,
        offset: u64,
    ) -> Result<Streaming<v1::BlobPart>, Error> {
        let message = v1::GetBlobRequest {
            blob: Some(blob.clone()),
            offset,
        };
        let send = |to, message: Request<_>| async move { blobs(to).get(endless(message)).await };
        self.call(Terms::READ, &message, send).await
    }

    /// All of a blob, in memory.
    pub async fn get_whole_blob(&self, blob: &v1::BlobRef) -> Result<Bytes, Error> {
        let mut whole = Vec::new();
        let mut backoff = Backoff::default();
        loop {
            let mut parts = self.get_blob(blob, whole.len() as u64).await?;
            let before = whole.len();
            let error = loop {
                match parts.message().await {
                    Ok(Some(part)) => whole.extend_from_slice(&part.data),
                    Ok(None) if whole.len() as u64 == blob.size => return Ok(whole.into()),
                    Ok(None) => break broken(&Status::unavailable("it broke off")),
                    Err(status) => break broken(&status),
                }
            };
            let stuck = whole.len() == before && backoff.is_long();
            if stuck || whole.len() as u64 > blob.size || !may_go_on(&error) {
                return Err(error);
            }
            sleep(backoff.next()).await;
        }
    }
}

/// From the offset that the controller names to the end, until a majority has it.
async fn send(
    (pieces, mut replies): Begun,
    size: u64,
    file: &mut (impl AsyncRead + AsyncSeek + Unpin + Send),
    arrived: &mut impl FnMut(u64),
) -> Result<(), Error> {
    let first = next(&mut replies).await?;
    arrived(first.offset);
    if first.held {
        return Ok(());
    }
    let mut sent = first.offset;
    file.seek(SeekFrom::Start(sent)).await.map_err(unreadable)?;
    loop {
        tokio::select! {
            reply = next(&mut replies) => {
                let reply = reply?;
                arrived(reply.offset);
                if reply.held {
                    return Ok(());
                }
            }
            // Closed, the other end tells why.
            Ok(place) = pieces.reserve(), if sent < size => {
                let data = piece(file, size - sent).await?;
                sent += data.len() as u64;
                let part = Some(Part::Data(data));
                place.send(v1::PutBlobPart { part });
            }
        }
    }
}

async fn piece(file: &mut (impl AsyncRead + Unpin), left: u64) -> Result<Bytes, Error> {
    let wanted = usize::try_from(left).map_or(PIECE, |left| left.min(PIECE));
    let mut data = vec![0; wanted];
    file.read_exact(&mut data).await.map_err(unreadable)?;
    Ok(data.into())
}

async fn next(replies: &mut Streaming<v1::PutBlobReply>) -> Result<v1::PutBlobReply, Error> {
    match replies.message().await {
        Ok(Some(reply)) => Ok(reply),
        Ok(None) => Err(broken(&Status::unavailable("the controller ended it"))),
        Err(status) => Err(broken(&status)),
    }
}

/// The file on this side: it was changed, or its disk fails.
fn unreadable(error: std::io::Error) -> Error {
    let text = format!("the file can't be read as it was: {error}");
    Error::known(Failure::new(Code::Invalid, text))
}

fn blobs(channel: Channel) -> BlobsClient<Channel> {
    BlobsClient::new(channel).max_decoding_message_size(MESSAGE_LIMIT)
}
