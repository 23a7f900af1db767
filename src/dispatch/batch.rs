//! The way to the log: what was asked for and what the leader decides, batched into entries.
//!
//! A few proposals are under way at once; what arrives meanwhile waits and travels together. So
//! one request alone pays one commit, and many share one.
//!
//! Within an entry the decisions on queued tasks come first, then the requests in their order. A
//! submit is placed at once where the round reached the end of the queue and left room, so it
//! never overtakes an older task that could have run there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use model::{
    AgentId, AgentProfile, Command, Op, Placement, Principal, State, SystemCommand, TaskId,
};
use scheduler::{Clock, Fleet, Planner};

use crate::io::{Hindrance, Output, ProposalId, Refusal, SessionId, Ticket};

/// Proposals under way at once: while one is on its way to the disks the next is prepared.
const PIPELINE: usize = 3;
/// Operations in one entry; a bound on the time that it takes to apply.
const OPS_PER_ENTRY: usize = 512;
/// Decisions on queued tasks in one entry.
const ASSIGNS_PER_ENTRY: usize = 256;
/// Bytes of specs and results in one entry: a follower must take it within a heartbeat or two.
const BYTES_PER_ENTRY: usize = 1024 * 1024;
/// Requests that wait for a place in an entry. Beyond it they are refused at once, which is kinder
/// than a queue that nobody can see.
const PENDING_MAX: usize = 16_384;

/// Who waits for an operation's reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    Ticket(Ticket),
    Verdict {
        session: SessionId,
        fence: model::Fence,
    },
    Registration(AgentId),
    Leader,
}

#[derive(Debug)]
struct Pending {
    op: Op,
    origin: Origin,
    bytes: usize,
}

/// A proposal under way.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    pub origins: Vec<Origin>,
    placed_on: Vec<AgentId>,
    assigning: Vec<TaskId>,
    /// It carries what was due: nothing new is due before it is answered.
    has_due: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Batch {
    pending: VecDeque<Pending>,
    under_way: BTreeMap<ProposalId, Sent>,
    last_proposal: u64,
    /// Placements under way, by agent.
    reserved: BTreeMap<AgentId, u32>,
    /// Queued tasks whose assignment is under way.
    assigning: BTreeSet<TaskId>,
    registering: BTreeSet<AgentId>,
    refused: Vec<Ticket>,
    wants_plan: bool,
    wants_due: bool,
    /// Breaks ties between agents for tasks that have no id yet.
    seed: u64,
}

impl Batch {
    pub fn request(&mut self, ticket: Ticket, principal: Principal, command: Command) {
        if self.pending.len() >= PENDING_MAX {
            self.refused.push(ticket);
            return;
        }
        let bytes = match &command {
            Command::SubmitTask(submit) => submit.spec.size(),
            Command::FinishAttempt(_) | Command::CancelTask { .. } | Command::RegisterAgent(_) => {
                256
            }
        };
        self.push(
            Op::Client {
                principal,
                command,
                placement: None,
            },
            Origin::Ticket(ticket),
            bytes,
        );
    }

    pub fn verdict(&mut self, session: SessionId, principal: Principal, verdict: model::Verdict) {
        let bytes = 256 + verdict.outcome.stdout.len() + verdict.outcome.stderr.len();
        let origin = Origin::Verdict {
            session,
            fence: verdict.fence,
        };
        let command = Command::FinishAttempt(verdict);
        self.push(
            Op::Client {
                principal,
                command,
                placement: None,
            },
            origin,
            bytes,
        );
    }

    /// Once at a time for an agent.
    pub fn register(&mut self, principal: Principal, profile: AgentProfile) {
        if self.registering.insert(profile.id.clone()) {
            let origin = Origin::Registration(profile.id.clone());
            let command = Command::RegisterAgent(profile);
            self.push(
                Op::Client {
                    principal,
                    command,
                    placement: None,
                },
                origin,
                1_024,
            );
        }
    }

    pub fn system(&mut self, command: SystemCommand) {
        self.push(Op::System(command), Origin::Leader, 256);
    }

    fn push(&mut self, op: Op, origin: Origin, bytes: usize) {
        self.pending.push_back(Pending { op, origin, bytes });
    }

    pub fn want_plan(&mut self) {
        self.wants_plan = true;
    }

    pub fn want_due(&mut self) {
        self.wants_due = true;
        // A retry may have become ripe, a silent agent may have spoken.
        self.wants_plan = true;
    }

    /// Whether it is time to look for what is due.
    pub fn take_due(&mut self) -> bool {
        if self.under_way.values().any(|sent| sent.has_due) {
            return false;
        }
        std::mem::take(&mut self.wants_due)
    }

    pub fn wants_proposal(&self) -> bool {
        let something = self.wants_plan || !self.pending.is_empty() || !self.refused.is_empty();
        something && self.under_way.len() < PIPELINE
    }

    pub fn reserved(&self, agent: &AgentId) -> u32 {
        self.reserved.get(agent).copied().unwrap_or(0)
    }

    /// Builds one entry's operations, if there are any.
    pub fn propose(&mut self, state: &State, fleet: &Fleet, clock: Clock, out: &mut Vec<Output>) {
        for ticket in self.refused.drain(..) {
            let refusal = Refusal::Unavailable {
                hindrance: Hindrance::Busy,
                why: format!("{PENDING_MAX} requests are waiting already"),
            };
            out.push(Output::Answer {
                ticket,
                result: Err(refusal),
            });
        }
        let mut sent = Sent::default();
        let mut ops = Vec::new();
        let mut planner = Planner::new(state, fleet);
        let overtaking_allowed = self.plan_queue(&mut planner, clock, &mut ops, &mut sent);
        self.take_pending(&mut planner, overtaking_allowed, &mut ops, &mut sent);
        if ops.is_empty() {
            return;
        }
        self.reserve(&sent);
        self.last_proposal += 1;
        let proposal = ProposalId(self.last_proposal);
        self.under_way.insert(proposal, sent);
        out.push(Output::Propose { proposal, ops });
    }

    /// Decides on queued tasks; true where those that are left can't use the room that is left.
    fn plan_queue(
        &mut self,
        planner: &mut Planner<'_>,
        clock: Clock,
        ops: &mut Vec<Op>,
        sent: &mut Sent,
    ) -> bool {
        let plan = planner.round(clock.state, &self.assigning, ASSIGNS_PER_ENTRY);
        self.wants_plan = plan.cut;
        for assignment in plan.assignments {
            sent.origins.push(Origin::Leader);
            sent.placed_on.push(assignment.placement.agent.clone());
            sent.assigning.push(assignment.task);
            ops.push(Op::System(SystemCommand::Assign(assignment)));
        }
        !plan.cut
    }

    fn take_pending(
        &mut self,
        planner: &mut Planner<'_>,
        may_place: bool,
        ops: &mut Vec<Op>,
        sent: &mut Sent,
    ) {
        let mut bytes = 0;
        while let Some(next) = self.pending.front() {
            let full = ops.len() >= OPS_PER_ENTRY || bytes + next.bytes > BYTES_PER_ENTRY;
            if full && !ops.is_empty() {
                return;
            }
            let Some(Pending {
                mut op,
                origin,
                bytes: size,
            }) = self.pending.pop_front()
            else {
                return;
            };
            bytes += size;
            if may_place && let Some(placement) = self.place(planner, &op) {
                sent.placed_on.push(placement.agent.clone());
                if let Op::Client {
                    placement: place, ..
                } = &mut op
                {
                    *place = Some(placement);
                }
            }
            sent.has_due |= origin == Origin::Leader;
            sent.origins.push(origin);
            ops.push(op);
        }
    }

    fn place(&mut self, planner: &mut Planner<'_>, op: &Op) -> Option<Placement> {
        let Op::Client {
            command: Command::SubmitTask(submit),
            ..
        } = op
        else {
            return None;
        };
        self.seed = self.seed.wrapping_add(1);
        planner.place(&submit.spec, self.seed, &[])
    }

    fn reserve(&mut self, sent: &Sent) {
        for agent in &sent.placed_on {
            *self.reserved.entry(agent.clone()).or_insert(0) += 1;
        }
        self.assigning.extend(&sent.assigning);
    }

    /// A proposal was answered: what it reserved is now in the state, or not to be.
    pub fn answered(&mut self, proposal: ProposalId) -> Option<Sent> {
        let sent = self.under_way.remove(&proposal)?;
        for agent in &sent.placed_on {
            if let Some(reserved) = self.reserved.get_mut(agent) {
                *reserved = reserved.saturating_sub(1);
                if *reserved == 0 {
                    self.reserved.remove(agent);
                }
            }
        }
        for task in &sent.assigning {
            self.assigning.remove(task);
        }
        for origin in &sent.origins {
            if let Origin::Registration(agent) = origin {
                self.registering.remove(agent);
            }
        }
        Some(sent)
    }

    /// A new term of ours: what is under way from an earlier one reserves nothing any more, though
    /// its answers are still to be passed on.
    pub fn reset(&mut self) {
        self.pending.clear();
        self.reserved.clear();
        self.assigning.clear();
        self.registering.clear();
        for sent in self.under_way.values_mut() {
            sent.placed_on.clear();
            sent.assigning.clear();
            sent.has_due = false;
        }
        self.wants_plan = true;
        self.wants_due = true;
    }

    /// No longer the leader: what was not proposed will not be.
    pub fn abandon(&mut self, out: &mut Vec<Output>) {
        let waiting = self
            .pending
            .drain(..)
            .filter_map(|pending| match pending.origin {
                Origin::Ticket(ticket) => Some(ticket),
                Origin::Verdict { .. } | Origin::Registration(_) | Origin::Leader => None,
            });
        let tickets: Vec<Ticket> = waiting.chain(self.refused.drain(..)).collect();
        for ticket in tickets {
            out.push(Output::Answer {
                ticket,
                result: Err(Refusal::NotLeader),
            });
        }
        self.registering.clear();
    }
}
