//! The leader's end.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, SinkExt, Stream, StreamExt};
use openraft::AsyncRuntime;
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tonic::{Code, Status};
use wire::transport::{self, Connection, DialError, Incomings, Outgoings};
use wire::v1;
use wire::v1::peer_log_answer::Answer;

use super::ANSWER_BYTES;
use super::company::in_company;
use crate::consensus::Types;
use crate::network::codec;
use crate::network::dial::{CallError, Dialer, MESSAGE_BYTES};

/// For connecting and the handshake of TLS, on a busy machine.
const SETUP: Duration = Duration::from_secs(2);

/// A connection on which a request has waited this long for an answer is given up; twice as long, where it was
/// sent just after a look. Whether the peer is alive is told by heartbeats, not by this. A peer that has stopped
/// reading, because its disk is behind by many requests, is given up earlier, by TCP (`Timers::unacknowledged`).
const STALL: Duration = Duration::from_secs(5);

type Answers = Incomings<Connection, v1::PeerLogAnswer>;
type Requests = Outgoings<Connection, v1::PeerAppendRequest>;

/// A connection on which every request was answered.
pub struct Link {
    address: String,
    answers: Answers,
    requests: Requests,
    /// Until the first request has taken it along.
    header: Option<v1::PeerHeader>,
}

impl Link {
    pub async fn open(
        dialer: &Dialer,
        address: String,
        header: &v1::PeerHeader,
    ) -> Result<Self, CallError> {
        let connected = tokio::time::timeout(SETUP, dialer.log_connection(&address)).await;
        let connection = connected.map_err(|_| CallError::TimedOut(SETUP))??;
        let (answers, requests) = transport::messages(connection, ANSWER_BYTES, MESSAGE_BYTES);
        Ok(Self {
            address,
            answers,
            requests,
            header: Some(header.clone()),
        })
    }

    /// Whether it leads there and can be used again: that the peer has hung up, or said what it was not asked,
    /// shows by reading.
    pub fn is_good(&mut self, address: &str) -> bool {
        self.address == address && self.answers.next().now_or_never().is_none()
    }
}

/// Sends the requests and gives the answers. Where all were answered, the link is in `kept` afterwards.
pub fn session<'k, R: AsyncRuntime>(
    link: Link,
    kept: &'k mut Option<Link>,
    requests: impl Stream<Item = AppendEntriesRequest<Types<R>>> + Send + Unpin + 'static,
) -> BoxStream<'k, Result<StreamAppendResult<Types<R>>, CallError>> {
    let Link {
        address,
        answers,
        requests: out,
        mut header,
    } = link;
    let is_fresh = header.is_some();
    let sent = Arc::new(AtomicU64::new(0));
    let counter = sent.clone();
    let messages = in_company(requests).map(move |request| {
        counter.fetch_add(1, Ordering::Relaxed);
        codec::put_append(&request, header.take())
    });
    let session = Session {
        address,
        is_fresh,
        kept,
        answers,
        requests: Going::On(send_all(messages, out).boxed()),
        sent,
        answered: 0,
        patience: Patience::new(),
    };
    stream::unfold(Some(session), |session| async {
        let mut session = session?;
        let next = match session.next().await {
            Ok(Some(reply)) => codec::append_reply::<R>(reply).map_err(CallError::from),
            Ok(None) => {
                session.keep();
                return None;
            }
            Err(error) => Err(error),
        };
        // openraft ends the stream after a conflict or a higher vote, and so does the follower.
        let goes_on = matches!(next, Ok(Ok(_)));
        Some((next, goes_on.then_some(session)))
    })
    .boxed()
}

struct Session<'k> {
    address: String,
    /// Nothing was read yet, not even whether our certificate is accepted.
    is_fresh: bool,
    kept: &'k mut Option<Link>,
    answers: Answers,
    requests: Going,
    sent: Arc<AtomicU64>,
    answered: u64,
    patience: Patience,
}

enum Going {
    On(BoxFuture<'static, io::Result<Requests>>),
    /// There are no more of them.
    Over(Requests),
    /// They can't be sent any more. Why is often still to be read: a refusal, a conflict, an alert of TLS.
    Broken(io::Error),
}

enum Heard {
    Answer(Option<io::Result<v1::PeerLogAnswer>>),
    Sent(io::Result<Requests>),
    Tick,
}

impl Session<'_> {
    /// The next answer; nothing once all requests were sent and answered.
    async fn next(&mut self) -> Result<Option<v1::PeerAppendReply>, CallError> {
        loop {
            let outstanding = self.outstanding();
            if matches!(self.requests, Going::Over(_)) && outstanding == 0 {
                return Ok(None);
            }
            match self.hear().await {
                Heard::Answer(Some(Ok(answer))) => return self.reply(answer).map(Some),
                Heard::Answer(end) => return Err(self.broken(end)),
                Heard::Sent(Ok(requests)) => self.requests = Going::Over(requests),
                Heard::Sent(Err(error)) => self.requests = Going::Broken(error),
                Heard::Tick => {
                    let outstanding = self.outstanding() > 0;
                    if self.patience.is_over(outstanding, self.answered) {
                        return Err(CallError::TimedOut(STALL));
                    }
                }
            }
        }
    }

    async fn hear(&mut self) -> Heard {
        let sending = async {
            match &mut self.requests {
                Going::On(sending) => sending.await,
                Going::Over(_) | Going::Broken(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            // Answers first: a commit waits for them.
            biased;
            answer = self.answers.next() => Heard::Answer(answer),
            sent = sending => Heard::Sent(sent),
            () = self.patience.tick() => Heard::Tick,
        }
    }

    fn outstanding(&self) -> u64 {
        let sent = self.sent.load(Ordering::Relaxed);
        sent.saturating_sub(self.answered)
    }

    fn reply(&mut self, answer: v1::PeerLogAnswer) -> Result<v1::PeerAppendReply, CallError> {
        self.is_fresh = false;
        let reply = match answer.answer {
            Some(Answer::Reply(reply)) => reply,
            Some(Answer::Refused(refusal)) => {
                return Err(Status::new(Code::from(refusal.code), refusal.reason).into());
            }
            None => return Err(codec::missing("answer").into()),
        };
        if self.outstanding() == 0 {
            return Err(Status::internal("an answer to no request").into());
        }
        self.answered += 1;
        Ok(reply)
    }

    /// What an end of the answers means.
    fn broken(&mut self, end: Option<io::Result<v1::PeerLogAnswer>>) -> CallError {
        let read = match end {
            Some(Err(error)) => error,
            Some(Ok(_)) | None => io::ErrorKind::UnexpectedEof.into(),
        };
        if self.is_fresh {
            return DialError::told_late(&self.address, &read).into();
        }
        match &self.requests {
            Going::Broken(error) => CallError::Broken(error.kind().into()),
            Going::On(_) | Going::Over(_) => CallError::Broken(read),
        }
    }

    fn keep(self) {
        if let Going::Over(requests) = self.requests {
            *self.kept = Some(Link {
                address: self.address,
                answers: self.answers,
                requests,
                header: None,
            });
        }
    }
}

/// All that is ready goes out together.
async fn send_all(
    messages: impl Stream<Item = v1::PeerAppendRequest> + Send,
    mut out: Requests,
) -> io::Result<Requests> {
    let mut messages = std::pin::pin!(messages.fuse());
    while let Some(message) = messages.next().await {
        out.feed(message).await?;
        while let Some(Some(message)) = messages.next().now_or_never() {
            out.feed(message).await?;
        }
        out.flush().await?;
    }
    Ok(out)
}

/// Whether a whole `STALL` went by in which something was outstanding and no answer came.
struct Patience {
    ticks: Interval,
    /// How many were answered at the last tick, if more was outstanding then.
    waiting_at: Option<u64>,
}

impl Patience {
    fn new() -> Self {
        let mut ticks = interval_at(Instant::now() + STALL, STALL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            ticks,
            waiting_at: None,
        }
    }

    async fn tick(&mut self) {
        self.ticks.tick().await;
    }

    fn is_over(&mut self, outstanding: bool, answered: u64) -> bool {
        let before = self.waiting_at;
        self.waiting_at = outstanding.then_some(answered);
        before.is_some() && before == self.waiting_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_waits_from_one_tick_to_the_next_is_over() {
        let mut patience = Patience::new();
        assert!(!patience.is_over(true, 0), "it may have been sent just now");
        assert!(!patience.is_over(true, 1), "one was answered meanwhile");
        assert!(!patience.is_over(false, 2), "all were");
        assert!(!patience.is_over(true, 2));
        assert!(patience.is_over(true, 2));
    }
}
