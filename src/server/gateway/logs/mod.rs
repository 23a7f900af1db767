//! Logs: what a task wrote, from any controller.
//!
//! The agent that runs, or ran, the latest attempt has the bytes; this controller asks for them
//! through its own session with that agent. What was short enough to be kept whole with the result
//! is answered from there at once. Where the agent is gone, the kept tail is all that is left, and
//! its chunks say so.
//!
//! Following goes on across attempts: when a task is queued again, the next attempt's output
//! comes after, under its own epoch and from offset 0. `output` reads one stream of one attempt.

mod lines;
mod output;

use std::pin::Pin;

use futures::Stream;
use model::{Attempt, Epoch, TaskId};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use wire::status::{Code, Failure};
use wire::v1;
use wire::v1::OutputStream;

use self::output::Output;
use super::found::{Found, has_ended};
use super::{Deadline, Gateway, failure};
use crate::hub::{Interest, Wants};
use crate::limit;

type Chunks = Pin<Box<dyn Stream<Item = Result<v1::LogChunk, Status>> + Send>>;

/// Why reading stops early.
enum Stop {
    /// The client went away.
    Left,
    Failed(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Stop {
        Stop::Failed(failure)
    }
}

/// What is wanted of which task.
#[derive(Clone)]
struct Logs {
    gateway: Gateway,
    id: TaskId,
    streams: &'static [OutputStream],
    follow: bool,
    chunks: mpsc::Sender<Result<v1::LogChunk, Status>>,
}

/// Where to begin in an attempt's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begin {
    Offset(u64),
    LastLines(u32),
}

impl Gateway {
    pub(super) async fn task_logs(
        &self,
        request: Request<v1::LogsRequest>,
    ) -> Result<Response<Chunks>, Failure> {
        self.reader(&request)?;
        let deadline = Deadline::of(request.metadata());
        let message = *request.get_ref();
        let streams = streams_of(&message)?;
        let from = begin_of(&message, streams)?;
        let id = TaskId(message.id);
        let (state, _) = self.read(deadline).await?;
        self.find(&state, id).await?;
        let (chunks, receiver) = mpsc::channel(limit::STREAM_ANSWERS);
        let logs = Logs {
            gateway: self.clone(),
            id,
            streams,
            follow: message.follow,
            chunks,
        };
        self.0.background.spawn(logs.run(from));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

fn streams_of(request: &v1::LogsRequest) -> Result<&'static [OutputStream], Failure> {
    match OutputStream::try_from(request.stream) {
        Ok(OutputStream::Unspecified) => Ok(&[OutputStream::Stdout, OutputStream::Stderr]),
        Ok(OutputStream::Stdout) => Ok(&[OutputStream::Stdout]),
        Ok(OutputStream::Stderr) => Ok(&[OutputStream::Stderr]),
        Err(_) => Err(Failure::new(Code::Invalid, "there is stdout and stderr")),
    }
}

fn begin_of(request: &v1::LogsRequest, streams: &[OutputStream]) -> Result<Begin, Failure> {
    match (request.tail, request.offset) {
        (Some(_), 1..) => Err(Failure::new(
            Code::Invalid,
            "an offset and a number of lines exclude each other",
        )),
        (None, 1..) if streams.len() > 1 => Err(Failure::new(
            Code::Invalid,
            "an offset needs a stream: stdout or stderr",
        )),
        (Some(lines), 0) => Ok(Begin::LastLines(lines)),
        (None, offset) => Ok(Begin::Offset(offset)),
    }
}

impl Logs {
    async fn run(self, from: Begin) {
        let client = self.chunks.clone();
        let stopped = tokio::select! {
            () = client.closed() => return,
            () = self.gateway.0.stopping.cancelled() => Err(failure::stopping().into()),
            done = self.attempts(from) => done,
        };
        if let Err(Stop::Failed(failure)) = stopped {
            // The client may have left meanwhile.
            let _left = client.send(Err(failure.into())).await;
        }
    }

    /// The latest attempt, and those after it where the client follows.
    async fn attempts(&self, mut from: Begin) -> Result<(), Stop> {
        let interest = self.interest();
        let mut read: Option<Epoch> = None;
        loop {
            let (next, ended) = {
                let state = self.gateway.0.cluster.view();
                let found = match self.gateway.find(&state, self.id).await {
                    Ok(found) => Some(found),
                    // Dropped meanwhile, or not applied here yet: the latter passes.
                    Err(failure) if failure.code == Code::NoSuchTask => None,
                    Err(failure) => return Err(failure.into()),
                };
                let task = found.as_ref().map(Found::task);
                let latest = task.and_then(|task| task.latest.clone());
                let next = latest.filter(|attempt| Some(attempt.epoch) != read);
                (next, has_ended(&state, self.id))
            };
            match next {
                Some(attempt) => {
                    self.attempt(&attempt, from).await?;
                    read = Some(attempt.epoch);
                    from = Begin::Offset(0);
                    if !self.follow {
                        return Ok(());
                    }
                }
                None if ended || !self.follow => return Ok(()),
                None => interest.rung().await,
            }
        }
    }

    /// All streams that are wanted, side by side.
    async fn attempt(&self, attempt: &Attempt, from: Begin) -> Result<(), Stop> {
        let read = |stream: &OutputStream| Output::new(self, attempt, *stream).read(from);
        futures::future::try_join_all(self.streams.iter().map(read)).await?;
        Ok(())
    }

    fn interest(&self) -> Interest {
        self.gateway.0.hub.watch(self.id, Wants::Change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(stream: OutputStream, tail: Option<u32>, offset: u64) -> Result<Begin, Failure> {
        let request = v1::LogsRequest {
            stream: stream.into(),
            tail,
            offset,
            ..Default::default()
        };
        begin_of(&request, streams_of(&request)?)
    }

    #[test]
    fn where_to_begin_has_one_meaning_or_is_refused() {
        assert_eq!(
            begin(OutputStream::Unspecified, None, 0).unwrap(),
            Begin::Offset(0)
        );
        assert_eq!(
            begin(OutputStream::Stderr, None, 7).unwrap(),
            Begin::Offset(7)
        );
        assert_eq!(
            begin(OutputStream::Unspecified, Some(3), 0).unwrap(),
            Begin::LastLines(3)
        );
        assert!(begin(OutputStream::Unspecified, None, 7).is_err());
        assert!(begin(OutputStream::Stdout, Some(3), 7).is_err());
    }
}
