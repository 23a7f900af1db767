//! The loop around a controller's dispatcher, as the server has it: a burst of what happened, one look at the
//! state, and what the dispatcher says is done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dispatch::{
    Clock, Dispatcher, Failure, Hindrance, Input, Output, ProposalId, Refusal, SessionId, Ticket,
};
use model::{Archived, Command, Disposition, Fence, Millis, Principal, Reply, State};
use openraft_rt_sim::SimRuntime;
use raft::parts::openraft::async_runtime::AsyncRuntime;
use raft::{AppliedBatch, Committed, Error, EventStream};
use tokio::sync::{mpsc, oneshot};

use crate::conn::Down;
use crate::controller::Boot;
use crate::trace::lock;
use crate::world::World;

/// The server's tick.
const TICK: Duration = Duration::from_millis(100);

/// A reply, and the entry that gave it.
#[derive(Debug, Clone)]
pub struct Accepted {
    pub reply: Reply,
    pub index: u64,
}

pub type Answer = Result<Accepted, Refusal>;

/// What may be said to the loop.
pub enum Signal {
    Applied(Arc<AppliedBatch>),
    Leadership,
    Proposed(ProposalId, Result<Committed, Error>),
    Tick,
    Input(Input),
    Request {
        principal: Principal,
        command: Command,
        answer: oneshot::Sender<Answer>,
    },
}

impl Signal {
    /// The order in which the server looks at what is ready.
    fn turn(&self) -> u8 {
        match self {
            Signal::Applied(_) => 0,
            Signal::Leadership => 1,
            Signal::Proposed(..) => 2,
            Signal::Input(_) | Signal::Request { .. } => 3,
            Signal::Tick => 4,
        }
    }
}

/// A lease that wants a quorum behind it.
#[derive(Debug, Clone, Copy)]
pub struct Renewal {
    pub session: SessionId,
    pub nonce: u64,
    pub received: Millis,
}

/// Passes on what the log decides, who leads, and the time.
pub async fn feed(boot: Arc<Boot>, mut events: EventStream) {
    let (inputs, mut leadership) = (boot.inputs.clone(), boot.core.leadership.clone());
    let changes = inputs.clone();
    drop(SimRuntime::spawn(async move {
        changes.send(Signal::Leadership).ok();
        while leadership.changed().await.is_ok() && changes.send(Signal::Leadership).is_ok() {}
    }));
    let (ticks, alive) = (inputs.clone(), boot.clone());
    drop(SimRuntime::spawn(async move {
        while alive.is_alive() && ticks.send(Signal::Tick).is_ok() {
            SimRuntime::sleep(TICK).await;
        }
    }));
    while let Some(batch) = events.recv().await {
        if inputs.send(Signal::Applied(batch)).is_err() {
            return;
        }
    }
}

/// One round of the quorum for all renewals that wait, as the server has it.
pub async fn confirm_leases(boot: Arc<Boot>, mut asked: mpsc::UnboundedReceiver<Renewal>) {
    while let Some(first) = asked.recv().await {
        let mut batch = vec![first];
        while let Ok(next) = asked.try_recv() {
            batch.push(next);
        }
        if !boot.is_alive() {
            return;
        }
        if boot.core.confirm().await.is_err() {
            continue;
        }
        for renewal in batch {
            let confirmed = Input::LeaseConfirmed {
                session: renewal.session,
                nonce: renewal.nonce,
                received: renewal.received,
            };
            boot.inputs.send(Signal::Input(confirmed)).ok();
        }
    }
}

struct Running {
    world: Arc<World>,
    boot: Arc<Boot>,
    dispatcher: Dispatcher,
    leads: Option<u64>,
    tickets: BTreeMap<Ticket, oneshot::Sender<Answer>>,
    last_ticket: u64,
    out: Vec<Output>,
}

/// Until the process is gone.
pub async fn run(world: Arc<World>, boot: Arc<Boot>, mut signals: mpsc::UnboundedReceiver<Signal>) {
    let mut running = Running {
        world,
        boot: boot.clone(),
        dispatcher: Dispatcher::new(),
        leads: None,
        tickets: BTreeMap::new(),
        last_ticket: 0,
        out: Vec::new(),
    };
    while let Some(first) = signals.recv().await {
        let mut burst = vec![first];
        while let Ok(next) = signals.try_recv() {
            burst.push(next);
        }
        if !boot.is_alive() {
            return;
        }
        burst.sort_by_key(Signal::turn);
        running.take(burst);
    }
}

impl Running {
    fn take(&mut self, burst: Vec<Signal>) {
        let state = self.boot.core.view().state.clone();
        let now = self.boot.core.now();
        let clock = Clock {
            state: now.state,
            monotonic: now.monotonic,
        };
        for signal in burst {
            self.signal(&state, clock, signal);
        }
        self.dispatcher.flush(&state, clock, &mut self.out);
        self.execute(&state, None);
        self.world.judge.looked(self.boot.id, &state);
    }

    fn signal(&mut self, state: &State, clock: Clock, signal: Signal) {
        let mut position = None;
        let input = match signal {
            Signal::Applied(batch) => {
                let key = (self.boot.id, self.boot.number);
                self.world.judge.applied(key, &batch, state);
                let AppliedBatch { index, events, .. } = Arc::unwrap_or_clone(batch);
                Input::Applied { index, events }
            }
            Signal::Leadership => return self.follow_leadership(state, clock),
            Signal::Proposed(proposal, result) => {
                let result = match result {
                    Ok(committed) => {
                        position = Some(committed.index);
                        Ok(committed.replies)
                    }
                    Err(error) => Err(failure_of(&error)),
                };
                Input::Proposed { proposal, result }
            }
            Signal::Tick => Input::Tick,
            Signal::Input(input) => input,
            Signal::Request {
                principal,
                command,
                answer,
            } => {
                self.last_ticket += 1;
                let ticket = Ticket(self.last_ticket);
                self.tickets.insert(ticket, answer);
                Input::Request {
                    ticket,
                    principal,
                    command,
                    held: None,
                }
            }
        };
        self.dispatcher.handle(state, clock, input, &mut self.out);
        self.execute(state, position);
    }

    fn execute(&mut self, state: &State, position: Option<u64>) {
        for output in std::mem::take(&mut self.out) {
            match output {
                Output::Propose { proposal, ops } => {
                    self.world.judge.proposed(&ops, state);
                    let boot = self.boot.clone();
                    drop(SimRuntime::spawn(async move {
                        let result = boot.core.propose(ops, boot.core.wall()).await;
                        boot.inputs.send(Signal::Proposed(proposal, result)).ok();
                    }));
                }
                Output::Answer { ticket, result } => {
                    let index = position.unwrap_or(state.last_applied());
                    if let Some(answer) = self.tickets.remove(&ticket) {
                        // Whoever asked may have gone.
                        answer
                            .send(result.map(|reply| Accepted { reply, index }))
                            .ok();
                    }
                }
                Output::Send { session, message } => {
                    if let dispatch::Message::VerdictAck { fence, disposition } = message
                        && disposition == Disposition::Accepted
                    {
                        self.world.judge.acknowledged(fence, position);
                    }
                    self.send(state, session, message);
                }
                Output::Close { session, .. } => {
                    if let Some(conn) = lock(&self.boot.conns).get(&session) {
                        conn.broken.cancel();
                    }
                }
            }
        }
    }

    fn send(&self, state: &State, session: SessionId, message: dispatch::Message) {
        let message = match message {
            dispatch::Message::VerdictAck {
                fence,
                disposition: Disposition::UnknownTask,
            } if state.archived(fence.task) == Archived::Left => {
                match self.of_archived(state, fence) {
                    Some(disposition) => dispatch::Message::VerdictAck { fence, disposition },
                    None => return,
                }
            }
            message => message,
        };
        let term = self
            .leads
            .unwrap_or_else(|| self.boot.core.leadership.get().term);
        let conns = lock(&self.boot.conns);
        if let Some(conn) = conns.get(&session) {
            let down = Down {
                generation: state.generation(),
                term,
                as_of: state.last_applied(),
                message,
            };
            conn.down.send(down).ok();
        }
    }

    /// What became of a report whose task left memory.
    fn of_archived(&self, state: &State, fence: Fence) -> Option<Disposition> {
        let found = self.boot.storage.archive.task(state, fence.task).ok()?;
        Some(found.map_or(Disposition::UnknownTask, |record| record.disposition(fence)))
    }

    fn follow_leadership(&mut self, state: &State, clock: Clock) {
        let now = self.boot.core.leadership.get();
        let leads = (now.is_me && now.ready).then_some(now.term);
        if leads == self.leads {
            return;
        }
        self.leads = leads;
        let input = match leads {
            Some(term) => {
                self.world
                    .trace
                    .say(format_args!("c{} leads term {term}", self.boot.id));
                self.world.judge.leads(self.boot.id, term);
                Input::Lead { term }
            }
            None => Input::Follow,
        };
        self.dispatcher.handle(state, clock, input, &mut self.out);
        self.execute(state, None);
    }
}

fn failure_of(error: &Error) -> Failure {
    let hindrance = |hindrance: &raft::Hindrance| match hindrance {
        raft::Hindrance::NoLeader => Hindrance::NoLeader,
        raft::Hindrance::NoQuorum => Hindrance::NoQuorum,
        raft::Hindrance::Busy => Hindrance::Busy,
        raft::Hindrance::Stopping => Hindrance::Stopping,
    };
    match error {
        Error::NotLeader { .. } => Failure::NotLeader,
        Error::Unavailable { hindrance: of, why } => Failure::Unavailable {
            hindrance: hindrance(of),
            why: why.clone(),
        },
        Error::Rejected(why) => Failure::Unavailable {
            hindrance: Hindrance::Busy,
            why: why.clone(),
        },
        Error::Unknown(_) | Error::Fatal(_) => Failure::Unknown,
    }
}
