//! Submits on one stream: each is what a call of its own would be, without the cost of that call.
//!
//! The submits are worked on inside the stream of the replies, with no task for each. So what is read and not yet
//! answered is bounded by one number, and a client that does not read its replies is not read from either. HTTP/2's
//! flow control tells it so.
//!
//! A follower passes each of them on by itself, as it does with calls, so leadership may move under an open stream.

use std::pin::Pin;

use futures::{Stream, StreamExt, stream};
use tonic::{Request, Response, Status, Streaming};
use wire::status::{Code, Failure};
use wire::v1;
use wire::v1::submit_all_reply::Outcome;

use super::{Gateway, failure};
use crate::callers::Caller;
use crate::limit;

type Replies = Pin<Box<dyn Stream<Item = Result<v1::SubmitAllReply, Status>> + Send>>;

impl Gateway {
    pub(super) fn submit_tasks(
        &self,
        request: Request<Streaming<v1::SubmitRequest>>,
    ) -> Result<Response<Replies>, Failure> {
        let caller = self.0.caller(&request)?;
        let gateway = self.clone();
        let stopping = self.0.stopping.clone();
        let replies = request
            .into_inner()
            .take_until(stopping.clone().cancelled_owned())
            .map(move |message| {
                let (gateway, caller) = (gateway.clone(), caller.clone());
                // What can't be read leaves nothing to go on with: it ends the stream.
                async move { Ok(gateway.submit_on_stream(&caller, message?).await) }
            })
            .buffer_unordered(limit::SUBMITS_ON_A_STREAM);
        // The client has not ended it: it has to hear that this was not its own end.
        let end = stream::once(async move {
            let stopped = stopping.is_cancelled();
            stopped.then(|| Err(failure::stopping().into()))
        });
        let replies = replies.chain(end.filter_map(std::future::ready));
        Ok(Response::new(Box::pin(replies)))
    }

    async fn submit_on_stream(
        &self,
        caller: &Caller,
        message: v1::SubmitRequest,
    ) -> v1::SubmitAllReply {
        self.0.metrics.submits.inc();
        let request_id = message.request_id.clone();
        let outcome = match self.submit_named(caller, message).await {
            Ok(reply) => Outcome::Accepted(reply),
            Err(failure) => Outcome::Refused(failure.into()),
        };
        v1::SubmitAllReply {
            request_id,
            outcome: Some(outcome),
        }
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
