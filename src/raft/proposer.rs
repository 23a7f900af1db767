//! Proposals: stamped and handed to openraft one after the other, in the order in which they came.
//!
//! One task does it, so that stamps never go back and the log has the callers' order. It does not wait for
//! the outcome; the caller does, on the channel that openraft answers. A caller that gives up leaves the
//! write to finish behind it, and learns that the outcome is unknown.
//!
//! Each entry is bound to the term for which it was stamped: should leadership move in between, openraft
//! refuses it instead of appending it with another leader's time.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use model::{Op, Rejected, Reply, Timestamp};
use openraft::async_runtime::Oneshot;
use openraft::errors::{ClientWriteError, ForwardReason, ForwardToLeader};
use openraft::impls::OneshotResponder;
use openraft::raft::ClientWriteResult;
use openraft::{AsyncRuntime, Raft};
use tokio::sync::{mpsc, oneshot};

use crate::clock::{Clocks, Reading, StateClock};
use crate::consensus::{CommittedLeaderId, Types, term_of};
use crate::error::{Error, Leader};
use crate::fatal::FatalSignal;
use crate::leadership::{Leadership, leader_of};
use crate::machine::{Machine, Published};
use crate::member::controller;
use crate::payload::Payload;
use crate::sync::lock;
use crate::watched::Follower;

/// Proposals that wait to be stamped. More than this means that the disk does not keep up.
const WAITING: usize = 16_384;

/// An entry may not be larger, encoded: it travels in one message.
const ENTRY_BYTES: usize = 32 << 20;

/// Reads the machine's clocks.
pub type ClockSource = Arc<dyn Fn() -> Clocks + Send + Sync>;

/// An entry that was committed and applied.
#[derive(Debug)]
pub struct Committed {
    pub index: u64,
    pub term: u64,
    /// One for each operation, in their order.
    pub replies: Vec<Result<Reply, Rejected>>,
}

type Outcome<R> = ClientWriteResult<Types<R>>;
type OutcomeReceiver<R> = <<R as AsyncRuntime>::Oneshot as Oneshot>::Receiver<Outcome<R>>;

struct Proposal<R: AsyncRuntime> {
    ops: Vec<Op>,
    wall: Timestamp,
    taken: oneshot::Sender<Result<OutcomeReceiver<R>, Error>>,
}

/// Gives out state time for the term that this member leads.
pub struct Stamper {
    source: ClockSource,
    published: Arc<Published>,
    clock: Mutex<Option<(u64, StateClock)>>,
}

impl Stamper {
    pub fn new(source: ClockSource, published: Arc<Published>) -> Self {
        Self {
            source,
            published,
            clock: Mutex::new(None),
        }
    }

    /// State time now. Only while this member is ready to lead `term`: then the last stamp of all
    /// earlier terms is applied.
    fn stamp(&self, term: u64) -> Timestamp {
        let clocks = (self.source)();
        let mut held = lock(&self.clock);
        match &mut *held {
            Some((of, clock)) if *of == term => clock.advance(clocks),
            _ => {
                let mut clock = StateClock::lead(self.published.view().state.time(), clocks);
                let stamp = clock.advance(clocks);
                *held = Some((term, clock));
                stamp
            }
        }
    }

    /// The machine's wall clock, for display.
    pub fn wall(&self) -> Timestamp {
        (self.source)().wall
    }

    /// What a leader would stamp now; on others the last stamp they applied.
    pub fn now(&self, leadership: Leadership) -> Reading {
        let monotonic = model::Millis((self.source)().monotonic_micros / 1_000);
        let state = match leadership.ready {
            true => self.stamp(leadership.term),
            false => self.published.view().state.time(),
        };
        Reading { state, monotonic }
    }
}

/// Where callers leave their proposals.
pub struct Proposer<R: AsyncRuntime> {
    queue: mpsc::Sender<Proposal<R>>,
    timeout: Duration,
}

impl<R: AsyncRuntime> Proposer<R> {
    pub fn spawn(
        raft: Raft<Types<R>, Machine<R>>,
        stamper: Arc<Stamper>,
        leadership: Follower<Leadership>,
        timeout: Duration,
        fatal: &FatalSignal,
    ) -> Self {
        let (queue, proposals) = mpsc::channel(WAITING);
        // Ends when the last handle drops the queue.
        let running = run::<R>(raft, stamper, leadership, proposals);
        drop(R::spawn(fatal.watch("the proposer", running)));
        Self { queue, timeout }
    }

    pub async fn propose(&self, ops: Vec<Op>, wall: Timestamp) -> Result<Committed, Error> {
        let (taken, answer) = oneshot::channel();
        self.queue
            .try_send(Proposal { ops, wall, taken })
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => {
                    Error::busy(format!("{WAITING} proposals wait already; try again"))
                }
                mpsc::error::TrySendError::Closed(_) => Error::stopping(),
            })?;
        let outcome = R::timeout(self.timeout, async {
            let outcome = answer.await.map_err(|_| Error::stopping())??;
            let gone = |_| Error::Unknown("this controller stopped before the answer".to_owned());
            committed::<R>(outcome.await.map_err(gone)?)
        });
        match outcome.await {
            Ok(result) => result,
            Err(_) => Err(Error::Unknown(format!(
                "not committed within {:?}; it may still be",
                self.timeout
            ))),
        }
    }
}

async fn run<R: AsyncRuntime>(
    raft: Raft<Types<R>, Machine<R>>,
    stamper: Arc<Stamper>,
    mut leadership: Follower<Leadership>,
    mut proposals: mpsc::Receiver<Proposal<R>>,
) {
    while let Some(Proposal { ops, wall, taken }) = proposals.recv().await {
        if taken.is_closed() {
            continue;
        }
        let led = ready(&raft, &mut leadership).await;
        // That may have taken long. Whoever gave up meanwhile was told that the outcome is unknown, and
        // may have sent it again.
        if taken.is_closed() {
            continue;
        }
        let result = match led {
            Ok(term) => match stamper.published.view().state.admits_all(&ops) {
                Ok(()) => {
                    let payload = Payload::new(model::Entry {
                        stamp: stamper.stamp(term),
                        wall,
                        ops,
                    });
                    write(&raft, term, payload).await
                }
                // Members of an older release could not read it.
                Err(rejected) => Err(Error::Rejected(rejected.to_string())),
            },
            Err(error) => Err(error),
        };
        // The caller may have given up; the write goes on by itself.
        taken.send(result).ok();
    }
}

/// The term that this member leads, once it may act in it.
async fn ready<R: AsyncRuntime>(
    raft: &Raft<Types<R>, Machine<R>>,
    leadership: &mut Follower<Leadership>,
) -> Result<u64, Error> {
    let settled = leadership.wait_for(|now| now.ready || !now.is_me).await;
    match settled {
        Ok(now) if now.ready => Ok(now.term),
        Ok(now) => Err(Error::NotLeader {
            leader: leader_of(raft, now),
        }),
        Err(_) => Err(Error::stopping()),
    }
}

async fn write<R: AsyncRuntime>(
    raft: &Raft<Types<R>, Machine<R>>,
    term: u64,
    payload: Payload,
) -> Result<OutcomeReceiver<R>, Error> {
    let bytes = payload.encoded().len();
    if bytes > ENTRY_BYTES {
        let text = format!("an entry of {bytes} bytes is too large: at most {ENTRY_BYTES} fit");
        return Err(Error::Rejected(text));
    }
    let (responder, outcome) = OneshotResponder::new_pair();
    let request = raft
        .write(payload)
        .with_leader(CommittedLeaderId::new(term));
    match request.responder(responder).await {
        Ok(()) => Ok(outcome),
        Err(fatal) => Err(Error::Fatal(fatal.to_string())),
    }
}

fn committed<R: AsyncRuntime>(outcome: Outcome<R>) -> Result<Committed, Error> {
    match outcome {
        Ok(done) => Ok(Committed {
            index: done.log_id.index,
            term: term_of(&done.log_id),
            replies: done.data.replies,
        }),
        Err(error) => Err(refused(error)),
    }
}

/// What became of a write that openraft did not answer with success.
pub fn refused<R: AsyncRuntime>(error: ClientWriteError<Types<R>>) -> Error {
    match error {
        ClientWriteError::ForwardToLeader(forward) => forwarded(forward),
        ClientWriteError::LogEntryDiscarded(_) => {
            Error::Unknown("the leader changed while the entry was on its way".to_owned())
        }
        // Bound to a term that this member no longer leads: it was never appended.
        ClientWriteError::PreconditionFailed(_) => Error::NotLeader { leader: None },
        ClientWriteError::ChangeMembershipError(error) => Error::Rejected(error.to_string()),
    }
}

/// openraft would rather have the request elsewhere; nothing was appended.
pub fn forwarded<R: AsyncRuntime>(forward: ForwardToLeader<Types<R>>) -> Error {
    match forward.reason {
        ForwardReason::NotLeader => {
            let leader = forward.leader_id.zip(forward.leader_node);
            let leader = leader.map(|(id, node)| Leader {
                id: controller(id),
                addresses: node.addresses,
            });
            Error::NotLeader { leader }
        }
        ForwardReason::LeadershipTransfer => Error::no_leader("leadership is being handed over"),
        ForwardReason::LeaseExpired => Error::no_quorum("no quorum of controllers answers"),
    }
}
