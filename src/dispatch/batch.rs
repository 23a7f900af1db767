//! The way to the log: what was asked for and what the leader decides, batched into entries.
//!
//! A few proposals are under way at once; what arrives meanwhile waits and travels together. So
//! one request alone pays one commit, and many share one.
//!
//! Within an entry what is due comes first, for a lease that has ended must end before anything is
//! decided on it; then the decisions on queued tasks, then requests and reports in turns, each in their order. A submit
//! is placed at once where the round reached the end of the queue and left room, so of older tasks that
//! could have run there it overtakes at most those whose own entry is still on its way. Last comes what the decisions went by.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use model::{
    AgentId, AgentProfile, Command, Fence, Held, Observed, Op, Placement, Principal, QueueKey,
    State, StateVersion, SystemCommand, TaskId,
};
use scheduler::{
    Asker, Clock, Fleet, OPS_PER_ENTRY, Placed, Planner, Reservations, Reserved, Rotations, Round,
    Told, round_max,
};

use crate::estimates::Estimates;
use crate::io::{Hindrance, Output, ProposalId, Refusal, SessionId, Ticket};
use crate::minutes::{Minutes, Start};
use crate::pending::{Origin, PENDING_MAX, PENDING_MAX_BYTES, Pending, Queue};

/// Proposals under way at once: while one is on its way to the disks the next is prepared.
const PIPELINE: usize = 3;
/// Bytes of requests and reports in one entry: a follower must take it within a heartbeat or two.
const BYTES_PER_ENTRY: usize = 1024 * 1024;

/// A proposal under way.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    pub origins: Vec<Origin>,
    placed_on: Vec<Placed>,
    assigning: Vec<TaskId>,
    /// It carries what was due: nothing new is due before it is answered.
    has_due: bool,
    /// Which of this term's rounds decided what is in it.
    told: Told,
}

impl Sent {
    /// Whether it held room that is now either taken or free again.
    pub fn reserved_room(&self) -> bool {
        !self.placed_on.is_empty()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// What the leader found to be due; nothing new is looked for before it is on its way.
    due: VecDeque<SystemCommand>,
    pending: Queue,
    under_way: BTreeMap<ProposalId, Sent>,
    last_proposal: u64,
    /// Placements under way.
    reserved: Reservations,
    /// Queued tasks whose assignment is under way.
    assigning: BTreeSet<TaskId>,
    registering: BTreeSet<AgentId>,
    /// Reports that wait or are under way, by the session that is to be answered: an agent sends
    /// them again until they are acknowledged.
    reporting: BTreeSet<(SessionId, Fence)>,
    refused: Vec<Ticket>,
    wants_plan: bool,
    wants_due: bool,
    /// Where the next round goes on, if the last one could not look at every queue.
    resume: Option<QueueKey>,
    /// Breaks ties between agents for tasks that have no id yet.
    seed: u64,
    /// Whose turn it is, under strategies that go by turns.
    rotations: Arc<Rotations>,
    /// What was written down of what decisions are made by.
    minutes: Minutes,
    /// What the last round went by is all written down.
    was_whole: bool,
    estimates: Estimates,
}

/// What comes in.
impl Batch {
    pub fn request(
        &mut self,
        ticket: Ticket,
        principal: Principal,
        (command, held): (Command, Option<Held>),
    ) {
        let bytes = command.size();
        if self.pending.is_full_for(bytes) {
            self.refused.push(ticket);
        } else {
            self.push((principal, command, held), Origin::Ticket(ticket), bytes);
        }
    }

    /// Once at a time for a session. One for which there is no room now is sent again by its agent.
    pub fn verdict(
        &mut self,
        session: SessionId,
        principal: Principal,
        (verdict, held): (model::Verdict, Option<Held>),
    ) {
        let fence = verdict.fence;
        let command = Command::FinishAttempt(verdict);
        let bytes = command.size();
        let fits = !self.pending.is_full_for_report(bytes);
        if fits && self.reporting.insert((session, fence)) {
            self.push(
                (principal, command, held),
                Origin::Verdict { session, fence },
                bytes,
            );
        }
    }

    /// Once at a time for an agent.
    pub fn register(&mut self, principal: Principal, profile: AgentProfile) {
        if self.registering.insert(profile.id.clone()) {
            let origin = Origin::Registration(profile.id.clone());
            let command = Command::RegisterAgent(profile);
            let bytes = command.size();
            self.push((principal, command, None), origin, bytes);
        }
    }

    fn push(
        &mut self,
        (principal, command, held): (Principal, Command, Option<Held>),
        origin: Origin,
        bytes: usize,
    ) {
        let op = Op::Client {
            principal,
            command,
            placement: None,
            held,
        };
        self.pending.push(Pending { op, origin, bytes });
    }

    pub fn due(&mut self, commands: Vec<SystemCommand>) {
        self.due.extend(commands);
    }

    /// Turns that were taken may not have come to the log: all begin anew.
    pub fn begin_turns_anew(&mut self) {
        self.rotations = Arc::default();
        self.minutes.begin_anew();
    }

    pub fn want_plan(&mut self) {
        self.wants_plan = true;
    }

    pub fn want_due(&mut self) {
        self.wants_due = true;
        // A retry may have become ripe, a silent agent may have spoken.
        self.wants_plan = true;
    }

    /// Whether it is time to look for what is due: not before the last answer is in the state.
    pub fn take_due(&mut self) -> bool {
        let open = !self.due.is_empty() || self.under_way.values().any(|sent| sent.has_due);
        !open && std::mem::take(&mut self.wants_due)
    }

    /// Answers the requests that were too many, without waiting for a place in the pipeline.
    pub fn refuse(&mut self, out: &mut Vec<Output>) {
        for ticket in self.refused.drain(..) {
            let why = format!(
                "as much as the leader takes is waiting already ({PENDING_MAX} requests or {} MiB)",
                PENDING_MAX_BYTES / (1024 * 1024)
            );
            out.push(Output::Answer {
                ticket,
                result: Err(Refusal::Unavailable {
                    hindrance: Hindrance::Busy,
                    why,
                }),
            });
        }
    }
}

/// What goes out.
impl Batch {
    pub fn wants_proposal(&self) -> bool {
        let something = self.wants_plan || !self.pending.is_empty() || !self.due.is_empty();
        something && self.under_way.len() < PIPELINE
    }

    /// Whether the next entry could assign anything. If not, nobody needs to look at the agents.
    pub fn places_something(&self, state: &State) -> bool {
        (self.wants_plan && !state.queue_is_empty()) || self.pending.has_submits()
    }

    pub fn rotations(&self) -> Arc<Rotations> {
        Arc::clone(&self.rotations)
    }

    pub fn reserved(&self, agent: &AgentId) -> Reserved {
        self.reserved.of(agent)
    }

    /// Builds one entry's operations, if there are any. Without a fleet nothing is placed.
    pub fn propose(
        &mut self,
        state: &State,
        fleet: Option<&Fleet>,
        clock: Clock,
        out: &mut Vec<Output>,
    ) {
        let mut sent = Sent::default();
        let mut ops = Vec::new();
        let mut start = Start {
            now: clock.state,
            seed: self.seed,
            is_whole: self.resume.is_none(),
        };
        self.take_due_commands(&mut ops, &mut sent);
        self.wants_plan = false;
        let mut planner = fleet.map(|fleet| Planner::new(state, fleet, clock.state));
        let reached_the_end = planner
            .as_mut()
            .is_some_and(|planner| self.plan_queue(state, planner, clock, (&mut ops, &mut sent)));
        if let Some(fleet) = fleet {
            // What starts now has taken the estimate that it had.
            self.estimates.look(state, fleet, clock);
        }
        let placing = planner.as_mut().filter(|_| reached_the_end);
        self.take_pending(placing, &mut ops, &mut sent);
        if let (Some(planner), Some(fleet)) = (planner, fleet)
            && sent.reserved_room()
        {
            start.is_whole &= !planner.passed_lacking();
            self.rotations = planner.into_rotations();
            if state.state_version() >= StateVersion::OBSERVATIONS {
                let observed = self.observed(state, fleet, start);
                sent.told = Told::from(&observed);
                sent.origins.push(Origin::Leader);
                ops.push(Op::System(SystemCommand::Observe(observed)));
            }
        }
        if ops.is_empty() {
            return;
        }
        self.reserve(&sent);
        self.last_proposal += 1;
        let proposal = ProposalId(self.last_proposal);
        self.under_way.insert(proposal, sent);
        out.push(Output::Propose { proposal, ops });
    }

    /// What the round that was just decided went by.
    fn observed(&mut self, state: &State, fleet: &Fleet, start: Start) -> Observed {
        let under_way = self.under_way.values().filter(|sent| sent.reserved_room());
        let under_way = under_way.map(|sent| &sent.told);
        let observed = self.minutes.observed((state, fleet), start, under_way);
        // Nobody can tell from the log whose turn it was: once rounds are whole again, turns begin anew.
        let was_whole = std::mem::replace(&mut self.was_whole, start.is_whole);
        if start.is_whole && !was_whole {
            self.begin_turns_anew();
        }
        observed
    }

    fn take_due_commands(&mut self, ops: &mut Vec<Op>, sent: &mut Sent) {
        let count = self.due.len().min(OPS_PER_ENTRY);
        sent.has_due = count > 0;
        for command in self.due.drain(..count) {
            sent.origins.push(Origin::Leader);
            ops.push(Op::System(command));
        }
    }

    /// Decides on queued tasks; true where those that are left can't use the room that is left.
    fn plan_queue(
        &mut self,
        state: &State,
        planner: &mut Planner<'_>,
        clock: Clock,
        (ops, sent): (&mut Vec<Op>, &mut Sent),
    ) -> bool {
        let mut plan = planner.round(Round {
            now: clock.state,
            taken: &self.assigning,
            max: round_max(ops.len()),
            after: self.resume.as_ref(),
        });
        let reached_the_end = !plan.cut;
        self.wants_plan = plan.cut;
        self.resume = plan.resume.take();
        for command in plan.into_commands() {
            sent.origins.push(Origin::Leader);
            sent.placed_on.extend(Placed::by(state, &command));
            let task = command.assignment().map(|it| it.task);
            sent.assigning.extend(task);
            let estimate = task.and_then(|it| self.estimates.take(it));
            ops.push(Op::System(command.with_estimate(estimate)));
        }
        reached_the_end
    }

    /// In the queue's order; placed where there is a planner.
    fn take_pending(
        &mut self,
        mut planner: Option<&mut Planner<'_>>,
        ops: &mut Vec<Op>,
        sent: &mut Sent,
    ) {
        let mut bytes = 0;
        while let Some(next) = self.pending.next_bytes() {
            let full = ops.len() >= OPS_PER_ENTRY || bytes + next > BYTES_PER_ENTRY;
            if full && !ops.is_empty() {
                return;
            }
            let Some(Pending {
                mut op,
                origin,
                bytes: size,
            }) = self.pending.pop()
            else {
                return;
            };
            bytes += size;
            if let Some(placed) = planner
                .as_deref_mut()
                .and_then(|planner| self.place(planner, &op))
                && let Op::Client {
                    placement,
                    command: Command::SubmitTask(submit),
                    ..
                } = &mut op
            {
                sent.placed_on.push(Placed::of(&placed.agent, &submit.spec));
                *placement = Some(placed);
            }
            sent.origins.push(origin);
            ops.push(op);
        }
    }

    fn place(&mut self, planner: &mut Planner<'_>, op: &Op) -> Option<Placement> {
        let Op::Client {
            command: Command::SubmitTask(submit),
            principal,
            ..
        } = op
        else {
            return None;
        };
        self.seed = self.seed.wrapping_add(1);
        let asker = Asker::of_submit(principal, self.seed);
        planner.place(&submit.spec, asker)
    }

    fn reserve(&mut self, sent: &Sent) {
        for placed in &sent.placed_on {
            self.reserved.add(placed);
        }
        self.assigning.extend(&sent.assigning);
    }
}

/// What comes back, and what ends with a term.
impl Batch {
    /// A proposal was answered: what it reserved is now in the state, or not to be.
    pub fn answered(&mut self, proposal: ProposalId) -> Option<Sent> {
        let sent = self.under_way.remove(&proposal)?;
        for placed in &sent.placed_on {
            self.reserved.remove(placed);
        }
        for task in &sent.assigning {
            self.assigning.remove(task);
        }
        for origin in &sent.origins {
            match origin {
                Origin::Registration(agent) => drop(self.registering.remove(agent)),
                Origin::Verdict { session, fence } => {
                    self.reporting.remove(&(*session, *fence));
                }
                Origin::Ticket(_) | Origin::Leader => {}
            }
        }
        Some(sent)
    }

    /// A new term of ours: what is under way from an earlier one reserves nothing any more, though
    /// its answers are still to be passed on.
    pub fn reset(&mut self) {
        self.reserved.clear();
        self.assigning.clear();
        for sent in self.under_way.values_mut() {
            sent.placed_on.clear();
            sent.assigning.clear();
            sent.has_due = false;
        }
        self.resume = None;
        self.rotations = Arc::default();
        self.minutes = Minutes::default();
        self.was_whole = true;
        self.estimates = Estimates::default();
        self.wants_plan = true;
        self.wants_due = true;
    }

    /// The term is over: what was not proposed will not be.
    pub fn abandon(&mut self, out: &mut Vec<Output>) {
        let mut tickets: Vec<Ticket> = self.refused.drain(..).collect();
        while let Some(pending) = self.pending.pop() {
            match pending.origin {
                Origin::Ticket(ticket) => tickets.push(ticket),
                Origin::Verdict { .. } | Origin::Registration(_) | Origin::Leader => {}
            }
        }
        for ticket in tickets {
            out.push(Output::Answer {
                ticket,
                result: Err(Refusal::NotLeader),
            });
        }
        self.due.clear();
        self.registering.clear();
        self.reporting.clear();
    }
}
