//! One open session, as the rest of the controller sees it: who is there, when it was heard last,
//! and a queue of frames that never waits. An agent that does not read its frames loses its session.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use model::{AgentId, Fence};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use wire::v1;
use wire::v1::controller_frame::Body;

use super::frames::Outgoing;
use super::tail::{Tail, Tails};

/// What an agent said of itself last.
#[derive(Debug)]
struct Heard {
    at: Instant,
    status: Option<v1::DeviceStatus>,
}

/// An agent's session with this controller.
#[derive(Debug)]
pub struct Session {
    pub id: dispatch::SessionId,
    pub agent: AgentId,
    frames: mpsc::Sender<Outgoing>,
    tails: Tails,
    /// Attempts whose output is on its way to the other controllers.
    reporting: Mutex<BTreeSet<Fence>>,
    heard: Mutex<Heard>,
    /// The highest frame of the agent that was handled.
    handled: AtomicU64,
    closing: CancellationToken,
    reason: OnceLock<String>,
}

impl Session {
    pub(super) fn new(
        id: dispatch::SessionId,
        agent: AgentId,
        frames: mpsc::Sender<Outgoing>,
    ) -> Session {
        Session {
            id,
            agent,
            frames,
            tails: Tails::default(),
            reporting: Mutex::default(),
            heard: Mutex::new(Heard {
                at: Instant::now(),
                status: None,
            }),
            handled: AtomicU64::new(0),
            closing: CancellationToken::new(),
            reason: OnceLock::new(),
        }
    }

    /// Queues a frame; closes the session where the queue is full.
    pub fn send(&self, frame: Outgoing) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.frames.try_send(frame) {
            self.close("it does not read its frames");
        }
    }

    /// Ends the session; the agent may open another one.
    pub fn close(&self, reason: &str) {
        // The first reason is the true one.
        let _said_before = self.reason.set(reason.to_owned());
        self.closing.cancel();
    }

    pub(super) fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    /// Why it was closed by us; nothing while it is open.
    pub fn reason(&self) -> Option<&str> {
        self.reason.get().map(String::as_str)
    }

    /// How long ago the agent said anything, and its last status.
    pub fn heard(&self) -> (Duration, Option<v1::DeviceStatus>) {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        (heard.at.elapsed(), heard.status.clone())
    }

    pub(super) fn hear(&self, seq: u64) {
        self.handled.store(seq, Ordering::Relaxed);
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).at = Instant::now();
    }

    pub(super) fn keep_status(&self, status: v1::DeviceStatus) {
        self.heard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .status = Some(status);
    }

    pub(super) fn handled(&self) -> u64 {
        self.handled.load(Ordering::Relaxed)
    }

    pub(super) fn tails(&self) -> &Tails {
        &self.tails
    }

    /// A report's turn, until it is dropped; none while the same report has one.
    pub(super) fn reporting(self: &Arc<Session>, fence: Fence) -> Option<Turn> {
        let mut reporting = self.lock_reporting();
        reporting.insert(fence).then(|| Turn {
            session: Arc::clone(self),
            fence,
        })
    }

    fn lock_reporting(&self) -> MutexGuard<'_, BTreeSet<Fence>> {
        self.reporting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the agent for output. Nothing where the session has ended or serves too many.
    pub fn tail(self: &Arc<Session>, wanted: &Wanted) -> Option<Tail> {
        let (id, tail) = self.tails.open(self)?;
        self.send(Outgoing::own(Body::Tail(v1::Tail {
            id,
            fence: Some(wanted.fence.into()),
            stream: wanted.stream.into(),
            offset: wanted.offset,
            follow: wanted.follow,
        })));
        Some(tail)
    }

    /// Tells the agent where all controllers are.
    pub fn welcome(&self, welcome: v1::Welcome) {
        self.send(Outgoing::own(Body::Welcome(welcome)));
    }

    pub(super) fn untail(&self, id: u64) {
        self.send(Outgoing::own(Body::Untail(v1::Untail { id })));
    }
}

/// A report on its way.
#[derive(Debug)]
pub(super) struct Turn {
    session: Arc<Session>,
    fence: Fence,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.session.lock_reporting().remove(&self.fence);
    }
}

/// Which output is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    pub fence: Fence,
    pub stream: v1::OutputStream,
    pub offset: u64,
    pub follow: bool,
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn session() -> (Arc<Session>, mpsc::Receiver<Outgoing>) {
        let (frames, receiver) = mpsc::channel(2);
        let agent = AgentId::new("a1").unwrap();
        (
            Arc::new(Session::new(dispatch::SessionId(1), agent, frames)),
            receiver,
        )
    }

    #[test]
    fn an_agent_that_does_not_read_loses_its_session() {
        let (session, _frames) = session();
        for _ in 0..2 {
            session.untail(1);
            assert_eq!(session.reason(), None);
        }
        session.untail(1);
        assert_eq!(session.reason(), Some("it does not read its frames"));
        session.close("another reason");
        assert_eq!(session.reason(), Some("it does not read its frames"));
    }
}
