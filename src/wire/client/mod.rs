//! What a program uses that talks to a cluster.
//!
//! A [`Client`] knows several controllers. A request goes to the one that answered last or was named as
//! the leader; when that one cannot serve it, it goes to the leader that the answer names, else to the
//! next one, and after a whole round it waits a little (more each time, with jitter, so that a thousand
//! clients do not come back at once). This goes on until an answer that repeating would not change, or
//! until the deadline.
//!
//! ```text
//!            ┌── answered ────────────────────────────────► Ok
//!            ├── rejected, or the server is broken ───────► Err
//!   send ────┼── not done (not leader, no quorum, no way) ─► next controller ─► send
//!            └── perhaps done (broken in the middle) ──┬──► may be repeated: next controller ─► send
//!                                                      └──► may not: Err, outcome unknown
//! ```
//!
//! What may be repeated is said by each call, see `calls`: reads may, a submit may if it has a request
//! id. A request that never left this machine may always be sent again. Nothing is dialled before the
//! first call. Left out: printing, exit codes, and files.

mod backoff;
mod blobs;
mod calls;
mod course;
mod error;
mod joining;
mod met;
mod peers;
mod watch;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_rustls::rustls::ClientConfig;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::status::{self, Code, Failure};
use crate::transport::Timers;
use course::Course;
use peers::Peers;

pub use error::{Error, Outcome};
pub use joining::enrol;
pub use watch::Watch;

/// How a client behaves. The defaults are for a person who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long a request is tried in all, on top of the time that the controller is asked to hold it.
    /// Default 10 s: several elections.
    pub patience: Duration,
    /// How long one controller may take before another is asked. Default 4 s: a stopped process accepts
    /// connections and never answers.
    pub attempt: Duration,
    pub timers: Timers,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            patience: Duration::from_secs(10),
            attempt: Duration::from_secs(4),
            timers: Timers::default(),
        }
    }
}

/// What a request does to the cluster, and so whether it may be sent again when nobody knows what
/// became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A read.
    None,
    /// Doing it twice is doing it once.
    Repeatable,
    /// Twice would be twice.
    Once,
}

/// How one request is to be treated.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    pub effect: Effect,
    /// How long the controller is asked to hold the request before it answers.
    pub hold: Duration,
    /// For errors to name.
    pub request_id: Option<&'a str>,
}

impl Terms<'_> {
    pub const READ: Terms<'static> = Terms {
        effect: Effect::None,
        hold: Duration::ZERO,
        request_id: None,
    };
    pub const REPEATABLE: Terms<'static> = Terms {
        effect: Effect::Repeatable,
        hold: Duration::ZERO,
        request_id: None,
    };
    pub const ONCE: Terms<'static> = Terms {
        effect: Effect::Once,
        hold: Duration::ZERO,
        request_id: None,
    };
}

/// Talks to one cluster. Cheap to clone; clones share connections and what was learned of the leader.
#[derive(Clone)]
pub struct Client {
    peers: Arc<Mutex<Peers>>,
    settings: Settings,
}

impl Client {
    /// Nothing is dialled yet.
    pub fn connect(
        addresses: &[String],
        tls: Arc<ClientConfig>,
        settings: Settings,
    ) -> Result<Self, Error> {
        let peers = Peers::new(addresses, tls, settings.timers).map_err(Error::known)?;
        Ok(Self {
            peers: Arc::new(Mutex::new(peers)),
            settings,
        })
    }

    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// Sends `message` until there is an answer, as the module describes. `send` makes one call on one
    /// channel with the request that it is given, which carries the time limit of the attempt.
    pub async fn call<Message, Reply, Attempt, Answer>(
        &self,
        terms: Terms<'_>,
        message: &Message,
        send: Attempt,
    ) -> Result<Reply, Error>
    where
        Message: Clone,
        Attempt: Fn(Channel, Request<Message>) -> Answer,
        Answer: Future<Output = Result<Response<Reply>, Status>>,
    {
        let mut course = Course::new(terms, self.settings, self.peers().preferred());
        loop {
            let limit = course.attempt_limit();
            let channel = self.peers().channel(course.address());
            let mut request = Request::new(message.clone());
            request.set_timeout(limit);
            let ended = match timeout(limit, send(channel, request)).await {
                Ok(Ok(response)) => {
                    let leader = status::leader(response.metadata());
                    self.peers()
                        .prefer(leader.as_deref().unwrap_or(course.address()));
                    return Ok(response.into_inner());
                }
                Ok(Err(status)) => error::of_status(&status, course.address()),
                Err(_) => error::of_silence(limit, course.address()),
            };
            let pause = course.after(ended, &mut self.peers())?;
            if !pause.is_zero() {
                sleep(pause).await;
            }
        }
    }

    /// Never held across a request.
    fn peers(&self) -> MutexGuard<'_, Peers> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn no_addresses() -> Failure {
    Failure::new(Code::Invalid, "no address of a controller is known")
        .with_hint("name at least one, as HOST:PORT")
}
