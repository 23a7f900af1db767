//! The only writer. An entry's operations are applied one after another; each either changes the
//! state and answers, or is refused and changes nothing. Split by what is asked for:
//!
//! - [`submit`]: a new task, its request id, and its assignment in the same entry;
//! - [`assign`]: a queued task gets an agent and an epoch;
//! - [`preempt`]: a queued task gets the place of others;
//! - [`finish`]: an agent's report, behind the fence; retries;
//! - [`cancel`], [`agents`], [`expire`]: cancels, registrations, leases, deadlines;
//! - [`blobs`]: who refers to what stands beside the log;
//! - [`cordon`], [`backend`], [`namespace`], [`policy`], [`rule`] (and [`contradiction`]): what people decide on an agent, its back ends, who shares, how agents are chosen, and which;
//! - [`observe`]: what the leader saw of the agents;
//! - [`archive`]: what leaves memory, and what the archive drops.
//! - [`join_token`]: who may join, and who did.
//!
//! Refusals are values. No input, however odd, panics.

mod agents;
mod archive;
mod assign;
mod backend;
pub(crate) mod blobs;
mod cancel;
mod contradiction;
mod cordon;
mod expire;
mod finish;
mod join_token;
mod namespace;
mod observe;
mod policy;
mod preempt;
mod rule;
pub(crate) mod submit;

use std::collections::BTreeSet;

use crate::access;
use crate::command::{Command, Op, Placement, Reply, SystemCommand};
use crate::entry::Stamped;
use crate::event::{Applied, Event};
use crate::id::Generation;
use crate::limit;
use crate::principal::Principal;
use crate::rejected::Rejected;
use crate::state::State;
use crate::time::Timestamp;
use crate::version::StateVersion;

type Outcome = Result<Reply, Rejected>;

/// Where in the log an operation is applied, and what it says happened.
pub(crate) struct Step<'a> {
    pub index: u64,
    /// Index of the last membership entry.
    pub membership: u64,
    /// State time.
    pub now: Timestamp,
    /// Wall time, for display.
    pub wall: Timestamp,
    pub events: &'a mut Vec<Event>,
}

impl State {
    /// Applies an entry at its index. An entry at or below the last applied index changes
    /// nothing: Raft never does that, and it must not count twice if a bug did.
    pub fn apply(&mut self, stamped: Stamped) -> Applied {
        let Stamped {
            index,
            term,
            membership,
            entry,
        } = stamped;
        let mut applied = Applied::default();
        if index <= self.meta.last_applied {
            let stale = Err(Rejected::Stale(format!("index {index} is applied already")));
            applied.replies = vec![stale; entry.ops.len()];
            return applied;
        }
        // State time never goes back. How far a leader may move it is that leader's clock's to say.
        self.meta.time = entry.stamp.max(self.meta.time);
        self.meta.last_applied = index;
        self.meta.last_term = self.meta.last_term.max(term);
        for (position, op) in entry.ops.into_iter().enumerate() {
            let mut step = Step {
                index,
                membership,
                now: self.meta.time,
                wall: entry.wall,
                events: &mut applied.events,
            };
            let outcome = if position < limit::OPS_MAX {
                self.apply_op(op, &mut step)
            } else {
                Err(Rejected::over("entry", limit::OPS_MAX, "operations"))
            };
            applied.replies.push(outcome);
        }
        self.archive(entry.wall, &mut applied);
        self.settle_blobs(&mut applied);
        self.keep_hash();
        applied
    }

    fn apply_op(&mut self, op: Op, step: &mut Step<'_>) -> Outcome {
        self.admits_op(&op)?;
        match op {
            Op::Client {
                principal,
                command,
                placement,
                held,
            } => {
                access::allows(&principal, &command)?;
                command.validate()?;
                blobs::is_held(&command, held, step)?;
                self.apply_command(&principal, command, placement, step)
            }
            Op::System(command) => self.apply_system(command, step),
        }
    }

    fn apply_command(
        &mut self,
        principal: &Principal,
        command: Command,
        placement: Option<Placement>,
        step: &mut Step<'_>,
    ) -> Outcome {
        match command {
            Command::SubmitTask(submit) => self.submit(principal, submit, placement, step),
            Command::CancelTask { task, reason } => self.cancel(principal, task, reason, step),
            Command::RegisterAgent(profile) => self.register_agent(&profile, step),
            Command::FinishAttempt(verdict) => self.finish_attempt(principal, verdict, step),
            Command::CordonAgent { agent, reason } => {
                self.cordon_agent(principal, &agent, &reason, step)
            }
            Command::UncordonAgent { agent } => self.uncordon_agent(&agent, step),
            Command::DrainAgent(drain) => self.drain_agent(principal, &drain, step),
            Command::RemoveAgent { agent } => self.remove_agent(&agent, step),
            Command::CreateJoinToken(token) => self.create_join_token(principal, &token, step),
            Command::RevokeJoinToken { token } => self.revoke_join_token(&token, step),
            Command::Enrol(enrolment) => self.enrol(&enrolment, step),
            Command::SetBackend(asked) => self.set_backend(&asked, step),
            Command::SetNamespace(asked) => self.set_namespace(&asked, step),
            Command::SetPolicy(asked) => self.set_policy(principal, &asked, step),
            Command::AddRule(asked) => self.add_rule(principal, asked, step),
            Command::RemoveRule { rule } => self.remove_rule(rule, step),
        }
    }

    fn apply_system(&mut self, command: SystemCommand, step: &mut Step<'_>) -> Outcome {
        match command {
            SystemCommand::Found {
                cluster_id,
                generation,
            } => self.found(cluster_id, generation, step),
            SystemCommand::Observe(observed) => self.observe(observed),
            SystemCommand::Assign(assignment) => self.assign(assignment, step),
            SystemCommand::Preempt(preemption) => self.preempt(preemption, step),
            SystemCommand::ExpireLease { agent, incarnation } => {
                self.expire_lease(&agent, incarnation, step)
            }
            SystemCommand::ExpireDeadline { task } => self.expire_deadline(task, step),
            SystemCommand::ExpireDrain { agent } => self.expire_drain(&agent, step),
            SystemCommand::ExpireRule { rule } => self.expire_rule(rule, step),
            SystemCommand::Retain(retention) => self.retain(retention, step),
            SystemCommand::RaiseVersion { to } => self.raise_version(to),
        }
    }

    /// Upwards only. Not measured by what this release understands: whoever applies entries asks that before.
    fn raise_version(&mut self, to: StateVersion) -> Outcome {
        let now = self.meta.state_version;
        if to <= now {
            let why = format!("the state is at version {now} already");
            return Err(Rejected::Stale(why));
        }
        self.meta.state_version = to;
        Ok(Reply::Done)
    }

    /// The first entry of a cluster, or of a new generation of it. Attempts of an older
    /// generation can't report any more, so they are lost.
    fn found(
        &mut self,
        cluster_id: String,
        generation: Generation,
        step: &mut Step<'_>,
    ) -> Outcome {
        if generation <= self.meta.generation {
            return Err(Rejected::Stale(format!(
                "the cluster is at generation {}",
                self.meta.generation.0
            )));
        }
        self.meta.cluster_id = cluster_id;
        let registered = self
            .agents
            .iter()
            .map(|(id, a)| (id, a.profile.incarnation));
        // Replaced incarnations may hold attempts, too.
        let all: BTreeSet<_> = registered
            .chain(self.holders())
            .map(|(id, incarnation)| (id.clone(), incarnation))
            .collect();
        for (agent, incarnation) in all {
            self.lose_agent(&agent, incarnation, step);
        }
        self.meta.generation = generation;
        Ok(Reply::Done)
    }
}
