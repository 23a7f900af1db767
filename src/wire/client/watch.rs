//! Watching a task across failovers: the stream is opened again wherever it broke, and since a new one
//! begins with the present state, nothing is missed but steps in between.

use tokio::time::{Instant, sleep};
use tonic::Streaming;

use super::backoff::Backoff;
use super::calls::has_ended;
use super::error::{Error, of_status};
use super::{Client, Terms};
use crate::status::{Code, Reaction};
use crate::v1;

/// See [`Client::watch`].
pub struct Watch {
    client: Client,
    id: u64,
    stream: Option<Streaming<v1::TaskReply>>,
    last: Option<v1::Task>,
    over: bool,
}

impl Watch {
    pub(super) fn new(client: Client, id: u64) -> Self {
        Self {
            client,
            id,
            stream: None,
            last: None,
            over: false,
        }
    }

    /// The next state that differs from the one before. `None` after the task has ended. After an error
    /// it may be asked again.
    pub async fn next(&mut self) -> Option<Result<v1::TaskReply, Error>> {
        let mut backoff = Backoff::default();
        let begun = Instant::now();
        while !self.over {
            let stream = match self.stream.take() {
                Some(stream) => stream,
                None => match self.client.watch_once(self.id).await {
                    Ok(stream) => stream,
                    Err(error) => return Some(Err(error)),
                },
            };
            let stream = self.stream.insert(stream);
            let broken = match stream.message().await {
                Ok(Some(reply)) if self.is_news(&reply) => return Some(Ok(reply)),
                Ok(Some(_)) => continue,
                // A controller that stops ends its streams. Where it is not over, another goes on.
                Ok(None) => None,
                Err(status) => Some(broken(&status)),
            };
            self.stream = None;
            let patient = begun.elapsed() <= self.client.settings().patience;
            match broken {
                Some(error) if !may_go_on(&error) => return Some(Err(error)),
                // It breaks again and again without any news.
                Some(error) if !patient && backoff.is_long() => return Some(Err(error)),
                Some(_) | None => sleep(backoff.next()).await,
            }
        }
        None
    }

    fn is_news(&mut self, reply: &v1::TaskReply) -> bool {
        self.over = has_ended(reply);
        let news = self.last != reply.task;
        self.last.clone_from(&reply.task);
        news
    }
}

/// Nothing was changed by watching.
pub(super) fn broken(status: &tonic::Status) -> Error {
    let mut failure = of_status(status, "the controller").failure().clone();
    if failure.code == Code::OutcomeUnknown {
        failure = failure.with_hint(Terms::READ.hint());
    }
    Error::known(failure)
}

pub(super) fn may_go_on(error: &Error) -> bool {
    match error.code().reaction() {
        Reaction::Unavailable | Reaction::Unknown => true,
        Reaction::Rejected | Reaction::Fatal => false,
    }
}
