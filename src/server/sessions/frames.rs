//! What goes out on a session: queued bodies become numbered frames when the transport has room.
//!
//! Specs stay shared until then, so a queue of assignments costs little memory. The term of a
//! frame is that under which the dispatcher decided it; frames of the session's own take the newest.

use std::sync::Arc;

use dispatch::{Cause, Message};
use futures::Stream;
use tokio::sync::mpsc;
use tonic::Status;
use wire::v1;
use wire::v1::controller_frame::Body;

use super::session::Session;

/// A frame in the queue. Those of the session itself are rare: they don't size the queue's room.
#[derive(Debug)]
pub enum Outgoing {
    /// Of the session itself.
    Frame(Box<Body>),
    /// Only how far the agent was heard: it measures the round trip with it.
    Ack,
    /// From the dispatcher, decided in this term.
    Dispatched { term: u64, message: Message },
}

impl Outgoing {
    pub fn own(body: Body) -> Outgoing {
        Outgoing::Frame(Box::new(body))
    }
}

/// Where the newest generation and term come from.
pub trait Era: Send + Sync + 'static {
    fn generation(&self) -> model::Generation;
    fn term(&self) -> u64;
}

/// The frames of `session`, until it is closed.
pub fn outbound(
    session: Arc<Session>,
    queue: mpsc::Receiver<Outgoing>,
    era: Arc<dyn Era>,
) -> impl Stream<Item = Result<v1::ControllerFrame, Status>> + Send {
    let sender = Sender {
        session,
        queue,
        era,
        seq: 0,
        over: false,
    };
    futures::stream::unfold(sender, |mut sender| async move {
        let item = sender.next().await?;
        Some((item, sender))
    })
}

struct Sender {
    session: Arc<Session>,
    queue: mpsc::Receiver<Outgoing>,
    era: Arc<dyn Era>,
    seq: u64,
    over: bool,
}

impl Sender {
    async fn next(&mut self) -> Option<Result<v1::ControllerFrame, Status>> {
        if self.over {
            return None;
        }
        let next = tokio::select! {
            biased;
            // What was queued before the close still goes out: it may say why.
            next = self.queue.recv() => next,
            () = self.session.closing().cancelled() => None,
        };
        match next {
            Some(next) => Some(Ok(self.frame(next))),
            None => {
                self.over = true;
                let reason = self.session.reason()?;
                Some(Err(Status::unavailable(format!(
                    "the session was closed: {reason}"
                ))))
            }
        }
    }

    fn frame(&mut self, outgoing: Outgoing) -> v1::ControllerFrame {
        self.seq += 1;
        let (term, body) = match outgoing {
            Outgoing::Frame(body) => (self.era.term(), Some(*body)),
            Outgoing::Ack => (self.era.term(), None),
            Outgoing::Dispatched { term, message } => (term, Some(body_of(message))),
        };
        v1::ControllerFrame {
            seq: self.seq,
            ack: self.session.handled(),
            generation: self.era.generation().0,
            term,
            body,
        }
    }
}

fn body_of(message: Message) -> Body {
    match message {
        Message::Leader(leading) => Body::Leader(v1::Leader { leading }),
        Message::Assign {
            fence,
            attempt,
            gpus,
            after,
            spec,
        } => Body::Assign(v1::Assign {
            fence: Some(fence.into()),
            spec: Some(Box::new(v1::TaskSpec::from(&*spec))),
            attempt,
            gpus: gpus.iter().map(|place| u32::from(*place)).collect(),
            after: after.into_iter().map(v1::Fence::from).collect(),
        }),
        Message::Cancel {
            fence,
            cause,
            reason,
        } => Body::Cancel(v1::Cancel {
            fence: Some(fence.into()),
            reason,
            cause: cause_of(cause).into(),
        }),
        Message::VerdictAck { fence, disposition } => Body::VerdictAck(v1::VerdictAck {
            fence: Some(fence.into()),
            disposition: v1::Disposition::from(disposition).into(),
        }),
        Message::RenewAck { nonce } => Body::RenewAck(v1::RenewAck { nonce }),
        Message::Backends(set) => Body::BackendsSet(wire::convert::backends_set_out(&set)),
    }
}

fn cause_of(cause: Cause) -> v1::CancelCause {
    match cause {
        Cause::Cancelled => v1::CancelCause::Cancelled,
        Cause::Stale => v1::CancelCause::Stale,
        Cause::Recalled => v1::CancelCause::Recalled,
        Cause::Evicted => v1::CancelCause::Evicted,
        Cause::Preempted => v1::CancelCause::Preempted,
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;
    use crate::sessions::session::tests::session;

    struct Fixed;

    impl Era for Fixed {
        fn generation(&self) -> model::Generation {
            model::Generation(3)
        }

        fn term(&self) -> u64 {
            9
        }
    }

    #[tokio::test]
    async fn frames_are_numbered_in_order_and_carry_the_term_of_their_decision() {
        let (session, queue) = session();
        let mut frames = Box::pin(outbound(Arc::clone(&session), queue, Arc::new(Fixed)));
        session.send(Outgoing::Dispatched {
            term: 5,
            message: Message::RenewAck { nonce: 1 },
        });
        session.send(Outgoing::own(Body::Untail(v1::Untail { id: 1 })));
        session.hear(4);
        let first = frames.next().await.unwrap().unwrap();
        assert_eq!(
            (first.seq, first.ack, first.generation, first.term),
            (1, 4, 3, 5)
        );
        let second = frames.next().await.unwrap().unwrap();
        assert_eq!((second.seq, second.term), (2, 9));
    }

    #[tokio::test]
    async fn a_closed_session_says_what_was_queued_then_why_then_nothing() {
        let (session, queue) = session();
        let mut frames = Box::pin(outbound(Arc::clone(&session), queue, Arc::new(Fixed)));
        session.untail(1);
        session.close("replaced");
        assert!(frames.next().await.unwrap().is_ok());
        let why = frames.next().await.unwrap().unwrap_err();
        assert!(why.message().contains("replaced"), "{why}");
        assert!(frames.next().await.is_none());
    }
}
