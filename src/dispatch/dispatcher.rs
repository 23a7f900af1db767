//! The reactor: one small handler for each input. Sessions are in `agents`, the way to the log in
//! `batch`, reports in `verdicts`.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::{
    AgentId, BlobDigest, Command, Disposition, End, Event, Fence, Incarnation, Outcome, Principal,
    State, Verdict,
};
use mutant::Mutant;
use scheduler::{AgentView, Clock, Fleet, Reserved};

use crate::agents::{Agents, Session};
use crate::ahead;
use crate::batch::Batch;
use crate::drain;
use crate::io::{Cause, Hindrance, Input, Message, Output, Refusal, SessionId};
use crate::preempted;
use crate::verdicts::acknowledged;

/// The leader's soft state, and what a follower keeps ready for the day it leads.
#[derive(Debug, Default)]
pub struct Dispatcher {
    pub(crate) leading: bool,
    pub(crate) agents: Agents,
    pub(crate) batch: Batch,
    /// The last entry whose events were handled. The state may be ahead of it.
    heard: u64,
    /// What this controller does not have of what tasks need.
    lacks: Arc<BTreeSet<BlobDigest>>,
    /// Why nothing new is taken or begun now.
    shortage: Option<String>,
}

impl Dispatcher {
    pub fn new() -> Dispatcher {
        Dispatcher::default()
    }

    pub fn is_leading(&self) -> bool {
        self.leading
    }

    /// The agents as the scheduler should see them now.
    pub fn fleet(&self, state: &State, clock: Clock) -> Fleet {
        let mut fleet = Fleet {
            lacks: Arc::clone(&self.lacks),
            rotations: self.batch.rotations(),
            shortage: self.shortage.clone(),
            ..Fleet::default()
        };
        for (id, agent) in self.agents.iter() {
            let reserved = match mutant::is(Mutant::CapacityUnchecked) {
                true => Reserved::default(),
                false => self.batch.reserved(id),
            };
            let view = AgentView {
                sample: self.agents.sample(state, agent, clock.monotonic),
                service: agent.service(state, id),
                reserved,
            };
            fleet.agents.insert(id.clone(), view);
        }
        // Those that were not met here yet, with what was learned of them before.
        for agent in state.agents() {
            let id = &agent.profile.id;
            if !fleet.agents.contains_key(id) {
                let view = AgentView {
                    service: state.service(id),
                    ..AgentView::default()
                };
                fleet.agents.insert(id.clone(), view);
            }
        }
        fleet
    }

    pub fn handle(&mut self, state: &State, clock: Clock, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Lead { term: _ } => self.lead(state, clock, out),
            Input::Follow => self.follow(out),
            Input::Request {
                ticket,
                principal,
                command,
                held,
            } => match self.takes(state, &principal, &command) {
                Ok(()) => self.batch.request(ticket, principal, (command, held)),
                Err(refusal) => out.push(Output::Answer {
                    ticket,
                    result: Err(refusal),
                }),
            },
            Input::SessionOpened {
                session,
                profile,
                principal,
            } => {
                let opened = Session::new(profile, principal);
                self.open(state, clock, (session, opened), out);
            }
            Input::Backends { session, backends } => {
                self.agents.set_backends(session, backends);
                if self.leading {
                    self.register(state, session);
                }
            }
            Input::Known { session, attempts } => {
                self.reconcile(state, clock, (session, &attempts), out);
            }
            Input::SessionClosed { session } => self.agents.close(session),
            Input::Status {
                session,
                load,
                intake,
            } => self.agents.heard(session, (load, intake), clock.monotonic),
            Input::LeaseConfirmed {
                session,
                nonce,
                received,
            } => {
                self.renew(state, clock, (session, nonce, received), out);
            }
            Input::Verdict {
                session,
                verdict,
                held,
            } => {
                if mutant::is(Mutant::VerdictAckedEarly) {
                    out.push(acknowledged(session, verdict.fence, Disposition::Accepted));
                }
                self.verdict(session, verdict, held);
            }
            Input::Lacks(lacks) => {
                self.lacks = lacks;
                self.batch.want_plan();
            }
            Input::Shortage(shortage) => {
                self.shortage = shortage;
                self.batch.want_plan();
            }
            Input::Applied { index, events } => {
                self.applied(state, &events, clock, out);
                self.heard = self.heard.max(index);
            }
            Input::Proposed { proposal, result } => self.proposed(proposal, result, out),
            Input::Tick => self.tick(state, clock, out),
        }
    }

    fn tick(&mut self, state: &State, clock: Clock, out: &mut Vec<Output>) {
        self.batch.want_due();
        if self.leading {
            ahead::recall(&mut self.agents, state, clock.state, out);
        }
    }

    /// Whether a request may go to the log.
    fn takes(
        &self,
        state: &State,
        principal: &Principal,
        command: &Command,
    ) -> Result<(), Refusal> {
        if !self.leading {
            return Err(Refusal::NotLeader);
        }
        // Alone: in an entry it could not even be read everywhere.
        state.admits(command).map_err(Refusal::Rejected)?;
        match &self.shortage {
            // A submit that was accepted before is told so: a refusal would mean that it was not.
            Some(why) if command.brings_new() && !state.knows_request(principal, command) => {
                Err(Refusal::Unavailable {
                    hindrance: Hindrance::NoRoom,
                    why: why.clone(),
                })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Proposes what is due, what can be placed, and what was asked for. Call it after each burst.
    pub fn flush(&mut self, state: &State, clock: Clock, out: &mut Vec<Output>) {
        if !self.leading {
            return;
        }
        self.batch.refuse(out);
        // A registration that was not heard of yet has started no lease: it would seem to have run out.
        if self.heard >= state.last_applied() && self.batch.take_due() {
            let due = scheduler::due(state, self.agents.leases(state), clock);
            self.batch.due(due);
            self.register_unknown(state);
        }
        if self.batch.wants_proposal() {
            // What would begin now takes the room in which what runs is to end.
            let places = self.shortage.is_none() && self.batch.places_something(state);
            let fleet = places.then(|| self.fleet(state, clock));
            self.batch.propose(state, fleet.as_ref(), clock, out);
        }
    }

    /// Every lease starts anew, in full; every agent is asked what it knows. It may have led in an
    /// earlier term until now, and missed that it did not in between.
    fn lead(&mut self, state: &State, clock: Clock, out: &mut Vec<Output>) {
        self.batch.abandon(out);
        self.batch.reset();
        self.leading = true;
        // What was applied before is in the leases that begin now.
        self.heard = self.heard.max(state.last_applied());
        self.agents.restart_leases(clock.monotonic);
        let held = state
            .holders()
            .flat_map(|(agent, incarnation)| state.held_under(agent, incarnation));
        let live = held.filter_map(|task| state.live_fence(task.id)).collect();
        self.agents.retain_began(&live);
        self.announce(true, out);
    }

    fn follow(&mut self, out: &mut Vec<Output>) {
        if !self.leading {
            return;
        }
        self.leading = false;
        self.batch.abandon(out);
        self.agents.forget_reconciliations();
        self.announce(false, out);
    }

    fn announce(&self, leading: bool, out: &mut Vec<Output>) {
        for session in self.agents.sessions() {
            out.push(Output::Send {
                session,
                message: Message::Leader(leading),
            });
        }
    }

    fn open(
        &mut self,
        state: &State,
        clock: Clock,
        (id, session): (SessionId, Session),
        out: &mut Vec<Output>,
    ) {
        if let Some(older) = self.agents.open(id, session, clock.monotonic) {
            let reason = "another session of this agent was opened".to_owned();
            out.push(Output::Close {
                session: older,
                reason,
            });
        }
        out.push(Output::Send {
            session: id,
            message: Message::Leader(self.leading),
        });
        if self.leading {
            self.register(state, id);
        }
    }

    fn register(&mut self, state: &State, id: SessionId) {
        let Some(session) = self.agents.session(id) else {
            return;
        };
        let known = state.agent(&session.profile.id);
        let ready = known.is_some_and(|agent| agent.state == model::AgentState::Ready);
        if !(ready && state.knows_as(&session.profile)) {
            let profile = state.recordable(&session.profile);
            self.batch.register(session.principal.clone(), profile);
        }
    }

    /// Sessions whose agent is not (or no longer) registered as it is.
    fn register_unknown(&mut self, state: &State) {
        for session in self.agents.sessions() {
            self.register(state, session);
        }
    }

    /// Brings the agent and the log to one view: what is assigned to it and not known there is
    /// sent (again), unless it is about to be given to another; what it knows and is not live has to
    /// end.
    fn reconcile(
        &mut self,
        state: &State,
        clock: Clock,
        (id, known): (SessionId, &[Fence]),
        out: &mut Vec<Output>,
    ) {
        if !self.leading {
            return;
        }
        let Some(session) = self.agents.reconcile(id) else {
            return;
        };
        let (agent, incarnation) = (session.profile.id.clone(), session.profile.incarnation);
        let over = self.agents.lease_is_over(id, clock.monotonic);
        // Before anything that is to be asked there.
        self.send_settings(state, &agent, out);
        let known: BTreeSet<Fence> = known.iter().copied().collect();
        for fence in &known {
            if state.live_fence(fence.task) != Some(*fence) {
                let reason = "this attempt is not the live one".to_owned();
                out.push(Output::cancel(id, *fence, Cause::Stale, reason));
            }
        }
        let held = state.held_by(&agent).filter(|task| {
            let live = task.live();
            live.is_some_and(|live| live.incarnation == incarnation)
                || mutant::is(Mutant::IncarnationIgnored)
        });
        let live: Vec<Fence> = held.filter_map(|task| state.live_fence(task.id)).collect();
        for fence in live {
            if !known.contains(&fence) && !over && !mutant::is(Mutant::AssignNotRepeated) {
                self.send_assign(state, fence, &agent, incarnation, out);
            }
            self.send_cancel_if_asked(state, fence, id, out);
            preempted::send(&self.agents, state, fence, out);
        }
        drain::send(&self.agents, state, &agent, out);
        self.batch.want_plan();
    }

    fn send_cancel_if_asked(
        &self,
        state: &State,
        fence: Fence,
        session: SessionId,
        out: &mut Vec<Output>,
    ) {
        let phase = state.task(fence.task).map(|task| &task.phase);
        if let Some(model::Phase::Assigned {
            cancel: Some(cancel),
            ..
        }) = phase
        {
            let reason = cancel.to_string();
            out.push(Output::cancel(session, fence, Cause::Cancelled, reason));
        }
    }

    /// A lease that has run out is over, whether or not the log says so yet: its end may be on the way
    /// there, and what it held goes to another agent at once then.
    fn renew(
        &mut self,
        state: &State,
        clock: Clock,
        (id, nonce, received): (SessionId, u64, model::Millis),
        out: &mut Vec<Output>,
    ) {
        if !self.leading {
            return;
        }
        let Some(session) = self.agents.session(id) else {
            return;
        };
        let agent = state.agent(&session.profile.id);
        let same = agent.filter(|agent| agent.profile.incarnation == session.profile.incarnation);
        match same.map(|agent| agent.state) {
            Some(model::AgentState::Ready)
                if self.agents.lease_is_over(id, clock.monotonic)
                    && !mutant::is(Mutant::ExpiredLeaseRenewed) => {}
            Some(model::AgentState::Ready) => {
                self.agents.renewed(id, received);
                out.push(Output::Send {
                    session: id,
                    message: Message::RenewAck { nonce },
                });
            }
            // Its registration is on the way; without an answer it would idle until it asks again.
            Some(model::AgentState::Lost) | None => {
                self.agents.keep_renewal(id, (nonce, received));
            }
        }
    }

    /// Acts on what the log decided.
    fn applied(&mut self, state: &State, events: &[Event], clock: Clock, out: &mut Vec<Output>) {
        for event in events {
            match event {
                Event::TaskAssigned {
                    fence,
                    agent,
                    incarnation,
                } => {
                    self.agents.began(agent, *fence, clock.monotonic);
                    self.send_assign(state, *fence, agent, *incarnation, out);
                }
                Event::CancelRequested { fence, reason, .. } => {
                    self.send_cancel(state, *fence, reason, out);
                }
                Event::Preempted { fence, .. } => {
                    if self.leading {
                        preempted::send(&self.agents, state, *fence, out);
                    }
                    // One agent is asked for one place in a round.
                    self.batch.want_plan();
                }
                Event::AttemptEnded { fence, agent } => {
                    self.agents.ended(agent, *fence, clock.monotonic);
                    self.agents.learn(state, agent, *fence);
                    self.batch.want_plan();
                }
                Event::AgentLost { agent, incarnation } => {
                    self.lose(agent, *incarnation, out);
                }
                Event::AgentRegistered { agent } => self.registered(state, agent, clock, out),
                Event::TaskQueued { .. } | Event::TaskRequeued { .. } => self.batch.want_plan(),
                Event::AgentUncordoned { .. }
                | Event::NamespaceSet { .. }
                | Event::PolicySet { .. }
                | Event::RuleSet { .. }
                | Event::RuleRemoved { .. }
                | Event::RuleExpired { .. } => self.batch.want_plan(),
                Event::BackendSet { agent } => {
                    self.batch.want_plan();
                    self.send_settings(state, agent, out);
                }
                Event::AgentDraining { agent } | Event::DrainExpired { agent } if self.leading => {
                    drain::send(&self.agents, state, agent, out);
                }
                Event::AgentRemoved { agent, incarnation } => {
                    self.agents.forget(agent, *incarnation);
                }
                Event::AgentDraining { .. }
                | Event::DrainExpired { .. }
                | Event::AgentCordoned { .. }
                | Event::TaskEnded { .. }
                | Event::SegmentDropped { .. } => {}
            }
        }
    }

    /// What holds of its back ends: all that was set, for what is not there is as it always was.
    fn send_settings(&self, state: &State, id: &AgentId, out: &mut Vec<Output>) {
        let session = self.agents.current(id);
        let session = session.filter(|session| self.agents.is_reconciled(*session));
        let (Some(session), Some(agent)) = (session, state.agent(id)) else {
            return;
        };
        if self.leading && !agent.profile.backends.is_empty() {
            let settings = state.set_backends(agent);
            let message = Message::Backends(settings);
            out.push(Output::Send { session, message });
        }
    }

    /// Its first lease begins: it can't have renewed one before.
    fn registered(&mut self, state: &State, id: &AgentId, clock: Clock, out: &mut Vec<Output>) {
        self.batch.want_plan();
        let Some(agent) = state.agent(id) else { return };
        let incarnation = agent.profile.incarnation;
        self.agents.start_lease(id, incarnation, clock.monotonic);
        if let Some(session) = self.agents.session_of(id, incarnation)
            && let Some((nonce, received)) = self.agents.take_renewal(session)
        {
            self.renew(state, clock, (session, nonce, received), out);
        }
        // It may have a back end that it did not have when it said what it knows.
        self.send_settings(state, id, out);
    }

    fn send_assign(
        &mut self,
        state: &State,
        fence: Fence,
        agent: &AgentId,
        incarnation: Incarnation,
        out: &mut Vec<Output>,
    ) {
        // The state may be ahead: who has to end by now would be told so anyway, and who it waited for is another's.
        if !self.leading
            || state.live_fence(fence.task) != Some(fence)
            || preempted::yields(state, fence)
        {
            return;
        }
        let Some(session) = self.agents.ready_session(agent, incarnation) else {
            return;
        };
        let (Some(task), Some(spec)) = (state.task(fence.task), state.spec(fence.task)) else {
            return;
        };
        let told = self.agents.session(session);
        let live = task.live();
        let gpus = live.map(|live| live.gpus.clone()).unwrap_or_default();
        let after: Vec<Fence> = state.yielding_to(agent, fence.task).collect();
        let has_all = told.map_or(Ok(()), |told| {
            told.profile.understands(&spec)?;
            if !after.is_empty() {
                told.profile.awaits_ends()?;
            }
            told.profile.has(&spec.demand(), &gpus)
        });
        if let Err(reason) = has_all {
            // It came back as an older release than the one that it was assigned to, or with fewer GPUs, and would run a
            // part of it, or elsewhere than it was decided.
            let reason = reason.to_string();
            let outcome = Outcome::bare(End::Declined { reason });
            return self.verdict(session, Verdict { fence, outcome }, None);
        }
        let message = Message::Assign {
            fence,
            attempt: task.attempts,
            gpus,
            after,
            spec,
        };
        out.push(Output::Send { session, message });
    }

    /// Only to the incarnation that holds it: another one of the same agent knows nothing of it.
    fn send_cancel(&self, state: &State, fence: Fence, reason: &str, out: &mut Vec<Output>) {
        if !self.leading || state.live_fence(fence.task) != Some(fence) {
            return;
        }
        let live = state.task(fence.task).and_then(model::Task::live);
        let session = live.and_then(|live| self.agents.session_of(&live.agent, live.incarnation));
        if let Some(session) = session {
            let reason = reason.to_owned();
            out.push(Output::cancel(session, fence, Cause::Cancelled, reason));
        }
    }

    /// The session of a lost incarnation ends, so that the agent comes back and registers.
    fn lose(&mut self, agent: &AgentId, incarnation: Incarnation, out: &mut Vec<Output>) {
        self.agents.end_lease(agent, incarnation);
        self.batch.want_plan();
        if !self.leading {
            return;
        }
        if let Some(session) = self.agents.session_of(agent, incarnation) {
            self.agents.close(session);
            let reason = "the lease ran out; connect again".to_owned();
            out.push(Output::Close { session, reason });
        }
    }
}
