//! Submits on one stream: each is what a call of its own would be, without the cost of that call.
//!
//! ```text
//!  client ──► place in the queue of replies, then a message ──► worked on, all in one task ──► queue ──► client
//! ```
//!
//! A message is read only once its reply has a place, so what is read and not yet taken by the client is bounded by one
//! number, and HTTP/2's flow control holds the client back. They are worked on beside the stream of the replies:
//! a client that does not read stops nothing that its submits hold of what is everybody's.
//!
//! A follower passes each of them on by itself, as it does with calls, so leadership may move under an open stream.

use std::pin::Pin;

use futures::stream::FuturesUnordered;
use futures::{Stream, StreamExt};
use tokio::sync::mpsc::{self, OwnedPermit};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use wire::status::{Code, Failure};
use wire::v1;
use wire::v1::submit_all_reply::Outcome;

use super::{Gateway, failure};
use crate::callers::Caller;
use crate::limit;

type Reply = Result<v1::SubmitAllReply, Status>;
type Replies = Pin<Box<dyn Stream<Item = Reply> + Send>>;

impl Gateway {
    pub(super) fn submit_tasks(
        &self,
        request: Request<Streaming<v1::SubmitRequest>>,
    ) -> Result<Response<Replies>, Failure> {
        let caller = self.0.caller(&request)?;
        if caller.forwarded {
            // Who may speak for others is asked of each call, and not once for all that comes later.
            let text = "a stream of submits can't be passed on: each of them is passed on alone";
            return Err(Failure::new(Code::Forbidden, text));
        }
        let (replies, receiver) = mpsc::channel(limit::SUBMITS_ON_A_STREAM);
        let gateway = self.clone();
        tokio::spawn(async move {
            let messages = request.into_inner();
            gateway.work_on(&caller, messages, replies).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    /// Until the client has ended the stream and all is answered, or is gone. Ends early when the controller stops, and
    /// where a message can't be read: then what was read before is answered first.
    async fn work_on(
        &self,
        caller: &Caller,
        mut messages: Streaming<v1::SubmitRequest>,
        replies: mpsc::Sender<Reply>,
    ) {
        let mut working = FuturesUnordered::new();
        let mut reading = true;
        let mut end = None;
        while reading || !working.is_empty() {
            let next = async {
                // Without a place nobody listens any more.
                let place = replies.clone().reserve_owned().await.ok()?;
                Some((place, messages.next().await?))
            };
            tokio::select! {
                Some(()) = working.next() => {}
                next = next, if reading => match next {
                    Some((place, Ok(message))) => {
                        working.push(self.submit_on_stream(caller, message, place));
                    }
                    Some((_, Err(status))) => (reading, end) = (false, Some(status)),
                    None => reading = false,
                },
                () = self.0.stopping.cancelled(), if reading => {
                    (reading, end) = (false, Some(failure::stopping().into()));
                }
                // Its submits stand or not, as those of a caller that hangs up.
                () = replies.closed() => return,
            }
        }
        if let Some(status) = end {
            // It may have gone meanwhile.
            let _told_or_gone = replies.send(Err(status)).await;
        }
    }

    async fn submit_on_stream(
        &self,
        caller: &Caller,
        message: v1::SubmitRequest,
        place: OwnedPermit<Reply>,
    ) {
        self.0.metrics.submits.inc();
        let request_id = message.request_id.clone();
        let outcome = match self.submit_named(caller, message).await {
            Ok(reply) => Outcome::Accepted(reply),
            Err(failure) => Outcome::Refused(failure.into()),
        };
        place.send(Ok(v1::SubmitAllReply {
            request_id,
            outcome: Some(outcome),
        }));
    }

    async fn submit_named(
        &self,
        caller: &Caller,
        message: v1::SubmitRequest,
    ) -> Result<v1::SubmitReply, Failure> {
        if message.request_id.is_empty() {
            let text =
                "on a stream a submit needs a request id: nothing else tells whose reply is whose";
            return Err(Failure::new(Code::Invalid, text));
        }
        // An alarm in the stream's metadata is that of the whole stream, and its client ends it then.
        let reply = self.submit_task(caller, None, message).await?;
        Ok(reply.into_inner())
    }
}
