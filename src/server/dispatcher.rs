//! The loop around the dispatcher: it gathers what happened, lets the dispatcher decide, and does
//! what it says.
//!
//! ```text
//!   applied events ──┐                       ┌──► proposals ──► raft ──┐
//!   requests ────────┼─► burst ─► dispatch ──┼──► frames to agents     │
//!   sessions, ticks ─┤                       └──► answers to requests  │
//!   proposed ────────┴─────────────────────────────────────────────────┘
//! ```
//!
//! Everything that is ready is taken at once, and the state is looked at *after* that, so it
//! holds at least what the events told. A burst is then planned once and shares proposals.
//! The loop never waits for those who wait for it: frames and answers are handed over without
//! blocking, and proposals are polled here, in their order.
//!
//! On a follower that nobody waits at, events are heard at each tick: to wake a thread for every entry
//! costs more than all that is done there.
//!
//! What to decide is crate `dispatch`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use dispatch::{Clock, Dispatcher, Hindrance, Input, Output, ProposalId, Refusal, Ticket};
use failpoint::Point;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use model::{
    Archived, Command, Disposition, Event, Fence, Held, Principal, Reply, State, Timestamp,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::hub::Hub;
use crate::limit;
use crate::metrics::Metrics;
use crate::quorum;
use crate::sessions::{Outgoing, Registry, Session};

/// A reply, and the entry that gave it.
#[derive(Debug)]
pub struct Accepted {
    pub reply: Reply,
    pub index: u64,
    pub term: u64,
}

/// What a request is answered.
pub type Answer = Result<Accepted, Refusal>;

/// What may be said to the loop.
#[derive(Debug)]
pub enum Signal {
    Input(Input),
    Request {
        principal: Principal,
        command: Command,
        held: Option<Held>,
        answer: oneshot::Sender<Answer>,
    },
    /// What does the leader know of its agents? Nothing is answered where this one does not lead.
    Fleet(oneshot::Sender<scheduler::Fleet>),
}

/// The way to say it.
#[derive(Debug, Clone)]
pub struct Inputs(mpsc::Sender<Signal>);

impl Inputs {
    pub fn channel() -> (Inputs, mpsc::Receiver<Signal>) {
        let (sender, receiver) = mpsc::channel(limit::INPUTS);
        (Inputs(sender), receiver)
    }

    pub async fn send(&self, signal: Signal) {
        // The loop leaves only when the controller stops; nobody is left to be told then.
        let _stopping = self.0.send(signal).await;
    }

    /// Proposes a command. Where the loop stops meanwhile the outcome is unknown.
    pub async fn request(
        &self,
        principal: Principal,
        (command, held): (Command, Option<Held>),
    ) -> Answer {
        let (answer, receiver) = oneshot::channel();
        self.send(Signal::Request {
            principal,
            command,
            held,
            answer,
        })
        .await;
        receiver.await.unwrap_or(Err(Refusal::Unknown))
    }

    pub async fn fleet(&self) -> Option<scheduler::Fleet> {
        let (answer, receiver) = oneshot::channel();
        self.send(Signal::Fleet(answer)).await;
        receiver.await.ok()
    }

    pub fn waiting(&self) -> usize {
        self.0.max_capacity() - self.0.capacity()
    }
}

type Proposed = (ProposalId, Instant, Result<raft::Committed, raft::Error>);

/// What came up at once.
#[derive(Default)]
struct Burst {
    applied: Vec<Arc<raft::AppliedBatch>>,
    proposed: Vec<Proposed>,
    signals: Vec<Signal>,
    leadership: bool,
    tick: bool,
}

/// The loop's own.
pub struct Loop {
    pub cluster: raft::Cluster,
    pub events: raft::EventStream,
    pub signals: mpsc::Receiver<Signal>,
    pub hub: Arc<Hub>,
    pub sessions: Arc<Registry>,
    pub metrics: Arc<Metrics>,
}

struct Running {
    cluster: raft::Cluster,
    hub: Arc<Hub>,
    sessions: Arc<Registry>,
    metrics: Arc<Metrics>,
    dispatcher: Dispatcher,
    leadership: watch::Receiver<raft::Leadership>,
    /// The term in which this controller leads, as the dispatcher was told.
    leads: Option<u64>,
    tickets: HashMap<Ticket, oneshot::Sender<Answer>>,
    last_ticket: u64,
    proposals: FuturesUnordered<BoxFuture<'static, Proposed>>,
    out: Vec<Output>,
}

impl Loop {
    /// Until `stopping`, or until Raft has stopped.
    pub async fn run(self, stopping: CancellationToken) {
        let Loop {
            cluster,
            mut events,
            mut signals,
            hub,
            sessions,
            metrics,
        } = self;
        let leadership = cluster.leadership();
        let mut running = Running {
            cluster,
            hub,
            sessions,
            metrics,
            dispatcher: Dispatcher::new(),
            leadership,
            leads: None,
            tickets: HashMap::new(),
            last_ticket: 0,
            proposals: FuturesUnordered::new(),
            out: Vec::new(),
        };
        running.follow_leadership();
        let mut tick = tokio::time::interval(limit::TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut behind = false;
        loop {
            let mut burst = Burst::default();
            let eager = behind || running.leads.is_some() || running.hub.waiting() > 0;
            tokio::select! {
                biased;
                () = stopping.cancelled() => return,
                // First, because a proposal makes progress only when it is polled.
                Some(done) = running.proposals.next(), if !running.proposals.is_empty() => {
                    burst.proposed.push(done);
                }
                batch = events.recv(), if eager => match batch {
                    Some(batch) => burst.applied.push(batch),
                    None => return,
                },
                () = running.hub.awaited(), if !eager => {}
                changed = running.leadership.changed() => match changed {
                    Ok(()) => burst.leadership = true,
                    Err(_) => return,
                },
                _ = tick.tick() => burst.tick = true,
                signal = signals.recv() => match signal {
                    Some(signal) => burst.signals.push(signal),
                    None => return,
                },
            }
            while burst.applied.len() < limit::BURST
                && let Ok(batch) = events.try_recv()
            {
                burst.applied.push(batch);
            }
            behind = burst.applied.len() == limit::BURST;
            // After the events: what those show as taken must not be reserved as well.
            while let Some(Some(done)) = running.proposals.next().now_or_never() {
                burst.proposed.push(done);
            }
            while burst.signals.len() < limit::BURST
                && let Ok(signal) = signals.try_recv()
            {
                burst.signals.push(signal);
            }
            // However much the others have to say, these two are heard in every burst.
            burst.leadership |= running.leadership.has_changed().unwrap_or(false);
            burst.tick |= tick.tick().now_or_never().is_some();
            running.take(burst);
        }
    }
}

impl Running {
    fn take(&mut self, burst: Burst) {
        for batch in &burst.applied {
            match batch.kind {
                raft::BatchKind::Entry => self.hub.applied(&batch.events),
                raft::BatchKind::Snapshot => self.hub.recheck(&self.cluster.view()),
            }
        }
        let state = self.cluster.view();
        let clock = self.clock();
        for batch in burst.applied {
            let raft::AppliedBatch { index, events, .. } = Arc::unwrap_or_clone(batch);
            self.count_waits(&state, &events);
            self.handle(&state, clock, Input::Applied { index, events });
        }
        if burst.leadership {
            self.follow_leadership();
        }
        for (proposal, began, result) in burst.proposed {
            self.metrics.proposed(began.elapsed(), result.is_ok());
            self.proposed(&state, clock, proposal, result);
        }
        for signal in burst.signals {
            self.signal(&state, clock, signal);
        }
        if burst.tick {
            self.handle(&state, clock, Input::Tick);
        }
        self.dispatcher.flush(&state, clock, &mut self.out);
        self.execute(&state, None);
    }

    /// What waited for its first assignment: on the leader, so that each counts once in all.
    fn count_waits(&self, state: &State, events: &[Event]) {
        if !self.dispatcher.is_leading() {
            return;
        }
        let assigned = events.iter().filter_map(|event| match event {
            Event::TaskAssigned { fence, .. } => state.task(fence.task),
            _ => None,
        });
        for task in assigned.filter(|task| task.attempts == 1) {
            if let Some(attempt) = &task.latest
                && task.waits_since.0 > 0
            {
                let waited = attempt.since.since(task.waits_since);
                self.metrics.left_the_queue(task.class, waited);
            }
        }
    }

    fn signal(&mut self, state: &State, clock: Clock, signal: Signal) {
        match signal {
            Signal::Input(input) => self.handle(state, clock, input),
            Signal::Request {
                principal,
                command,
                held,
                answer,
            } => {
                self.last_ticket += 1;
                let ticket = Ticket(self.last_ticket);
                self.tickets.insert(ticket, answer);
                self.handle(
                    state,
                    clock,
                    Input::Request {
                        ticket,
                        principal,
                        command,
                        held,
                    },
                );
            }
            Signal::Fleet(answer) => {
                if self.dispatcher.is_leading() {
                    // Whoever asked may have gone.
                    let _gone = answer.send(self.dispatcher.fleet(state, clock));
                }
            }
        }
    }

    fn handle(&mut self, state: &State, clock: Clock, input: Input) {
        self.dispatcher.handle(state, clock, input, &mut self.out);
        self.execute(state, None);
    }

    fn proposed(
        &mut self,
        state: &State,
        clock: Clock,
        proposal: ProposalId,
        result: Result<raft::Committed, raft::Error>,
    ) {
        let (position, result) = match result {
            Ok(committed) => (
                Some((committed.index, committed.term)),
                Ok(committed.replies),
            ),
            Err(error) => {
                debug!(%error, "proposal did not commit");
                (None, Err(failure_of(&error)))
            }
        };
        let input = Input::Proposed { proposal, result };
        self.dispatcher.handle(state, clock, input, &mut self.out);
        self.execute(state, position);
    }

    /// Does what the dispatcher said. Answers stand at `position`, or where the state is.
    fn execute(&mut self, state: &State, position: Option<(u64, u64)>) {
        let mut out = std::mem::take(&mut self.out);
        for output in out.drain(..) {
            match output {
                Output::Propose { proposal, ops } => self.propose(proposal, ops),
                Output::Answer { ticket, result } => {
                    let at = position.unwrap_or((state.last_applied(), state.last_term()));
                    self.answer(ticket, result, at);
                }
                Output::Send { session, message } => self.send(session, message),
                Output::Close { session, reason } => {
                    if let Some(session) = self.sessions.get(session) {
                        session.close(&reason);
                    }
                }
            }
        }
        // Its room is used again.
        self.out = out;
    }

    fn propose(&mut self, proposal: ProposalId, ops: Vec<model::Op>) {
        self.metrics.dispatched(ops.len());
        let ends_lease = |op: &model::Op| {
            matches!(
                op,
                model::Op::System(model::SystemCommand::ExpireLease { .. })
            )
        };
        let ends_lease = ops.iter().any(ends_lease);
        if ends_lease {
            failpoint::at(Point::LeaseExpiryBefore);
        }
        let began = Instant::now();
        let committed = quorum::propose(&self.cluster, ops, wall_now());
        let committed = committed.map(move |result| {
            if ends_lease {
                failpoint::at(Point::LeaseExpiryAfter);
            }
            (proposal, began, result)
        });
        self.proposals.push(committed.boxed());
    }

    fn answer(&mut self, ticket: Ticket, result: Result<Reply, Refusal>, at: (u64, u64)) {
        let Some(answer) = self.tickets.remove(&ticket) else {
            return;
        };
        let (index, term) = at;
        // Whoever asked may have gone; the entry stands all the same.
        let _gone = answer.send(result.map(|reply| Accepted { reply, index, term }));
    }

    fn send(&self, session: dispatch::SessionId, message: dispatch::Message) {
        let term = self.leads.unwrap_or_else(|| self.leadership.borrow().term);
        let Some(session) = self.sessions.get(session) else {
            return;
        };
        match message {
            dispatch::Message::VerdictAck {
                fence,
                disposition: Disposition::UnknownTask,
            } if self.cluster.view().archived(fence.task) == Archived::Left => {
                tokio::spawn(acknowledge_archived(
                    self.cluster.clone(),
                    session,
                    fence,
                    term,
                ));
            }
            message => session.send(Outgoing::Dispatched { term, message }),
        }
    }

    fn follow_leadership(&mut self) {
        let (leads, term, leader) = {
            let now = self.leadership.borrow_and_update();
            (
                (now.is_me && now.ready).then_some(now.term),
                now.term,
                now.leader,
            )
        };
        if leads == self.leads {
            return;
        }
        self.leads = leads;
        match leads {
            Some(term) => info!(term, "leads"),
            None => info!(term, ?leader, "no longer leads"),
        }
        let input = leads.map_or(Input::Follow, |term| Input::Lead { term });
        let state = self.cluster.view();
        let clock = self.clock();
        self.handle(&state, clock, input);
    }

    fn clock(&self) -> Clock {
        let now = self.cluster.now();
        Clock {
            state: now.state,
            monotonic: now.monotonic,
        }
    }
}

/// Tells an agent what became of a report of a task that left memory: the archive knows under which epoch
/// that one was settled. Where it can't be asked nothing is told, and the agent reports again.
async fn acknowledge_archived(
    cluster: raft::Cluster,
    session: Arc<Session>,
    fence: Fence,
    term: u64,
) {
    let state = cluster.view();
    let disposition = match cluster.archived_task(&state, fence.task).await {
        Ok(Some(record)) => record.disposition(fence),
        Ok(None) => Disposition::UnknownTask,
        Err(error) => {
            debug!(%fence, %error, "can't look up a report's task");
            return;
        }
    };
    let message = dispatch::Message::VerdictAck { fence, disposition };
    session.send(Outgoing::Dispatched { term, message });
}

fn failure_of(error: &raft::Error) -> dispatch::Failure {
    match error {
        raft::Error::NotLeader { .. } => dispatch::Failure::NotLeader,
        raft::Error::Unavailable { hindrance, why } => dispatch::Failure::Unavailable {
            hindrance: hindrance_of(*hindrance),
            why: why.clone(),
        },
        // An entry that is too large: the next one may carry less.
        raft::Error::Rejected(why) => dispatch::Failure::Unavailable {
            hindrance: Hindrance::Busy,
            why: why.clone(),
        },
        raft::Error::Unknown(_) | raft::Error::Fatal(_) => dispatch::Failure::Unknown,
    }
}

/// Raft's word for it in the dispatcher's: neither crate knows the other.
pub fn hindrance_of(hindrance: raft::Hindrance) -> Hindrance {
    match hindrance {
        raft::Hindrance::NoLeader => Hindrance::NoLeader,
        raft::Hindrance::NoQuorum => Hindrance::NoQuorum,
        raft::Hindrance::Busy => Hindrance::Busy,
        raft::Hindrance::Stopping => Hindrance::Stopping,
    }
}

/// For display only; a clock before 1970 shows as 1970.
pub fn wall_now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
