//! The follower's end.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::{FutureExt, SinkExt, Stream, StreamExt, stream};
use openraft::Raft;
use openraft::errors::Fatal;
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use openraft_rt_tokio::TokioRuntime;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use wire::transport::{self, Accepted, Incomings, PeerInfo};
use wire::v1;
use wire::v1::peer_log_answer::Answer;

use super::ANSWER_BYTES;
use crate::consensus::{NodeId, Types};
use crate::machine::Machine;
use crate::network::codec;
use crate::network::dial::MESSAGE_BYTES;
use crate::network::guard::Guard;
use crate::network::service::stopped;
use crate::sync::lock;

/// Whoever connects has a request to send. One who sends none takes a place for nothing.
const FIRST_REQUEST: Duration = Duration::from_secs(5);

type C = Types<TokioRuntime>;
type Requests = Incomings<Accepted, v1::PeerAppendRequest>;
type Request = AppendEntriesRequest<C>;

/// Takes what leaders send.
#[derive(Clone)]
pub struct Receiver {
    guard: Guard,
    raft: Raft<C, Machine<TokioRuntime>>,
    /// The newest conversation with each sender, and what ends it. A leader that lost its connection makes
    /// another at once; the old one may yet hold many requests, behind a slow disk.
    newest: Arc<Mutex<BTreeMap<NodeId, CancellationToken>>>,
}

impl Receiver {
    pub fn new(guard: Guard, raft: Raft<C, Machine<TokioRuntime>>) -> Self {
        Self {
            guard,
            raft,
            newest: Arc::default(),
        }
    }

    /// Whether this connection is for entries of the log.
    pub fn is_for(connection: &Accepted) -> bool {
        connection.protocol() == Some(security::LOG_PROTOCOL)
    }

    /// Until the leader hangs up, connects anew, or is told why nothing more is taken.
    pub async fn serve(self, connection: Accepted) {
        let address = connection.peer().address;
        if let Err(error) = self.converse(connection).await {
            tracing::debug!(%address, %error, "a replication connection broke");
        }
    }

    async fn converse(self, connection: Accepted) -> io::Result<()> {
        let origin = connection.peer().clone();
        let (mut requests, mut answers) =
            transport::messages(connection, MESSAGE_BYTES, ANSWER_BYTES);
        let Some(first) = first(&mut requests).await? else {
            return Ok(());
        };
        let (sender, first) = match self.admitted(&origin, first) {
            Ok(admitted) => admitted,
            Err(status) => {
                answers.feed(refused(&status)).await?;
                return answers.close().await;
            }
        };
        // openraft reads the requests in a task of its own, which this lets go of the connection.
        let over = CancellationToken::new();
        let _at_the_end = over.clone().drop_guard();
        let earlier = lock(&self.newest).insert(sender, over.clone());
        if let Some(earlier) = earlier {
            earlier.cancel();
        }
        let refusal = Arc::new(Mutex::new(None));
        let accepted = stream::once(std::future::ready(first))
            .chain(accepted(requests, refusal.clone()))
            .take_until(over.clone().cancelled_owned());
        let replies = self.raft.stream_append(Box::pin(accepted));
        let answering = async {
            let good = answer_all(replies, &mut answers).await?;
            let refusal = lock(&refusal).take();
            if let Some(status) = refusal {
                answers.feed(refused(&status)).await?;
            } else if good && self.raft.is_initialized().await.is_err() {
                // It ends without a word where it had stopped before.
                let status = Status::unavailable("consensus has stopped here");
                answers.feed(refused(&status)).await?;
            }
            answers.close().await
        };
        over.run_until_cancelled(answering).await.unwrap_or(Ok(()))
    }

    /// Who sends, and the request, where the sender means this member and may speak here.
    fn admitted(
        &self,
        origin: &PeerInfo,
        message: v1::PeerAppendRequest,
    ) -> Result<(NodeId, Request), Status> {
        let header = message.header.as_ref();
        self.guard.check(Some(origin), header)?;
        let sender = header.ok_or_else(|| codec::missing("header"))?.from;
        Ok((sender, codec::append(message)?))
    }
}

async fn first(requests: &mut Requests) -> io::Result<Option<v1::PeerAppendRequest>> {
    match tokio::time::timeout(FIRST_REQUEST, requests.next()).await {
        Ok(first) => first.transpose(),
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Requests until one is refused; why is told after the answers to those before it.
fn accepted(
    requests: Requests,
    refusal: Arc<Mutex<Option<Status>>>,
) -> impl Stream<Item = Request> + Send + 'static {
    stream::unfold(requests, move |mut requests| {
        let refusal = refusal.clone();
        async move {
            let message = match requests.next().await? {
                Ok(message) => message,
                Err(error) => {
                    tracing::debug!(%error, "a replication connection broke");
                    return None;
                }
            };
            match codec::append(message) {
                Ok(request) => Some((request, requests)),
                Err(status) => {
                    *lock(&refusal) = Some(status);
                    None
                }
            }
        }
    })
}

/// What is ready goes out together. Says whether more could have followed the last one.
async fn answer_all(
    replies: impl Stream<Item = Result<StreamAppendResult<C>, Fatal<C>>>,
    answers: &mut transport::Outgoings<Accepted, v1::PeerLogAnswer>,
) -> io::Result<bool> {
    let mut replies = std::pin::pin!(replies.fuse());
    let mut good = true;
    while let Some(reply) = replies.next().await {
        good = matches!(reply, Ok(Ok(_)));
        answers.feed(answer(reply)).await?;
        while let Some(Some(reply)) = replies.next().now_or_never() {
            good = matches!(reply, Ok(Ok(_)));
            answers.feed(answer(reply)).await?;
        }
        answers.flush().await?;
    }
    Ok(good)
}

fn answer(reply: Result<StreamAppendResult<C>, Fatal<C>>) -> v1::PeerLogAnswer {
    match reply {
        Ok(result) => v1::PeerLogAnswer {
            answer: Some(Answer::Reply(codec::put_append_reply::<TokioRuntime>(
                &result,
            ))),
        },
        Err(fatal) => refused(&stopped(&fatal)),
    }
}

fn refused(status: &Status) -> v1::PeerLogAnswer {
    v1::PeerLogAnswer {
        answer: Some(Answer::Refused(v1::PeerRefusal {
            code: status.code() as i32,
            reason: status.message().to_owned(),
        })),
    }
}
