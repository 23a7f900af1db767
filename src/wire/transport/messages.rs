//! Protobuf messages on a connection of their own, each behind its length.
//!
//! For one long conversation of small messages, each of which somebody waits for: there HTTP/2's headers,
//! windows and frames are more work than what they carry. Flow is controlled by TCP alone, so each
//! connection is for one purpose.

use std::io;
use std::marker::PhantomData;

use bytes::{BufMut, BytesMut};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};
use tokio_util::codec::{Decoder, Encoder, FramedRead, FramedWrite, LengthDelimitedCodec};

/// Of a message's length.
const HEAD_BYTES: usize = 4;

/// A stream of the messages that come in. It ends where the other side closes its half in order.
pub type Incomings<S, M> = FramedRead<ReadHalf<S>, Codec<M>>;
/// A sink for the messages that go out. Dropping it without `close` may lose what was not flushed.
pub type Outgoings<S, M> = FramedWrite<WriteHalf<S>, Codec<M>>;

/// Both directions of a connection, with the most bytes that a message may have in each.
pub fn messages<S, In, Out>(
    connection: S,
    most_in: usize,
    most_out: usize,
) -> (Incomings<S, In>, Outgoings<S, Out>)
where
    S: AsyncRead + AsyncWrite,
    In: Message + Default,
    Out: Message,
{
    let (read, write) = tokio::io::split(connection);
    (
        FramedRead::new(read, Codec::new(most_in)),
        FramedWrite::new(write, Codec::new(most_out)),
    )
}

/// One kind of message: 4 bytes of length, big endian, and its encoding.
pub struct Codec<M> {
    frames: LengthDelimitedCodec,
    most: usize,
    kind: PhantomData<fn(M) -> M>,
}

impl<M> Codec<M> {
    fn new(most: usize) -> Self {
        Self {
            frames: LengthDelimitedCodec::builder()
                .max_frame_length(most)
                .new_codec(),
            most,
            kind: PhantomData,
        }
    }
}

impl<M: Message + Default> Decoder for Codec<M> {
    type Item = M;
    type Error = io::Error;

    fn decode(&mut self, bytes: &mut BytesMut) -> io::Result<Option<M>> {
        let frame = self.frames.decode(bytes)?;
        let message = frame.map(|frame| M::decode(frame.freeze()));
        message
            .transpose()
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

impl<M: Message> Encoder<M> for Codec<M> {
    type Error = io::Error;

    fn encode(&mut self, message: M, bytes: &mut BytesMut) -> io::Result<()> {
        let length = message.encoded_len();
        let told = u32::try_from(length).ok().filter(|_| length <= self.most);
        let Some(told) = told else {
            let text = format!("a message of {length} bytes is too long: {} fit", self.most);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        };
        bytes.reserve(HEAD_BYTES + length);
        bytes.put_u32(told);
        message.encode(bytes).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use futures::{SinkExt, StreamExt};

    use super::*;
    use crate::v1::PeerLogId;

    type Ends = (
        Incomings<tokio::io::DuplexStream, PeerLogId>,
        Outgoings<tokio::io::DuplexStream, PeerLogId>,
    );

    fn pair(most: usize) -> (Ends, Ends) {
        let (one, other) = tokio::io::duplex(16);
        (messages(one, most, most), messages(other, most, most))
    }

    fn id(index: u64) -> PeerLogId {
        PeerLogId { term: 1, index }
    }

    #[tokio::test]
    async fn messages_arrive_whole_and_in_order_and_then_the_end() {
        let ((_, mut out), (mut come, _)) = pair(64);
        let sending = async {
            // An empty one, and more than the pipe between holds.
            for index in [0, 1, u64::MAX, 3] {
                out.feed(id(index)).await.unwrap();
            }
            out.feed(PeerLogId::default()).await.unwrap();
            out.close().await.unwrap();
        };
        let reading = async {
            let mut all = Vec::new();
            while let Some(message) = come.next().await {
                all.push(message.unwrap());
            }
            all
        };
        let ((), all) = tokio::join!(sending, reading);
        assert_eq!(
            all,
            [id(0), id(1), id(u64::MAX), id(3), PeerLogId::default()]
        );
    }

    #[tokio::test]
    async fn a_message_that_is_too_long_is_neither_sent_nor_read() {
        let ((_, mut out), _) = pair(3);
        let error = out.send(id(u64::MAX)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);

        let (one, other) = tokio::io::duplex(64);
        let (_come, mut out) = messages::<_, PeerLogId, PeerLogId>(one, 64, 64);
        let (mut come, _out) = messages::<_, PeerLogId, PeerLogId>(other, 3, 64);
        out.send(id(u64::MAX)).await.unwrap();
        assert!(come.next().await.unwrap().is_err());
    }

    #[tokio::test]
    async fn an_end_in_the_middle_of_a_message_is_an_error() {
        use tokio::io::AsyncWriteExt;

        let (mut one, other) = tokio::io::duplex(64);
        let (mut come, _out) = messages::<_, PeerLogId, PeerLogId>(other, 64, 64);
        one.write_all(&[0, 0, 0, 9, 8]).await.unwrap();
        drop(one);
        assert!(come.next().await.unwrap().is_err());
        assert!(come.next().await.is_none());
    }
}
