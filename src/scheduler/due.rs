//! What has run out of time: leases, deadlines, retention. The answers are commands; `apply`
//! checks them again, and an expiry is an entry like any other.

use std::collections::{BTreeMap, BTreeSet};

use model::{AgentId, AgentState, Incarnation, Millis, State, SystemCommand, Timestamp};

/// How long an attempt lives without a renewal. The agent ends it itself 3 s earlier.
pub const LEASE: Millis = Millis(15_000);
/// Records that one command forgets: bounds the time that an entry takes to apply.
const FORGET_MAX: usize = 1_000;
/// Deadlines that one call answers; the rest come with the next.
const DEADLINES_MAX: usize = 1_000;

/// The two clocks of a leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Clock {
    /// State time now.
    pub state: Timestamp,
    /// Monotonic time of this process.
    pub monotonic: Millis,
}

/// When each incarnation last renewed, by the leader's monotonic clock. An incarnation that did
/// not renew under this leader counts from `since`, so a new leader restarts all leases in full.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leases {
    pub since: Millis,
    pub renewed: BTreeMap<(AgentId, Incarnation), Millis>,
}

impl Leases {
    fn expired(&self, agent: &AgentId, incarnation: Incarnation, now: Millis) -> bool {
        let renewed = self.renewed.get(&(agent.clone(), incarnation)).copied();
        let from = renewed.unwrap_or(self.since).max(self.since);
        now.0 >= from.0.saturating_add(LEASE.0)
    }
}

/// What the leader has to propose now.
pub fn due(state: &State, leases: &Leases, clock: Clock) -> Vec<SystemCommand> {
    let mut commands = expired_leases(state, leases, clock.monotonic);
    let late = state
        .deadlines()
        .take_while(|(at, _)| *at <= clock.state)
        .take(DEADLINES_MAX);
    commands.extend(late.map(|(_, task)| SystemCommand::ExpireDeadline { task }));
    let old = state
        .ended()
        .take_while(|(at, _)| clock.state.since(*at) >= model::RETENTION);
    let tasks: Vec<_> = old.take(FORGET_MAX).map(|(_, task)| task).collect();
    if !tasks.is_empty() {
        commands.push(SystemCommand::Forget { tasks });
    }
    commands
}

fn expired_leases(state: &State, leases: &Leases, now: Millis) -> Vec<SystemCommand> {
    let mut watched: BTreeSet<(&AgentId, Incarnation)> = BTreeSet::new();
    for agent in state
        .agents()
        .filter(|agent| agent.state == AgentState::Ready)
    {
        watched.insert((&agent.profile.id, agent.profile.incarnation));
    }
    // An earlier incarnation's attempts live on its own lease.
    for holder in state.holders() {
        let live = state.held_by(holder).filter_map(model::Task::live);
        watched.extend(live.map(|attempt| (holder, attempt.incarnation)));
    }
    let expired = watched
        .into_iter()
        .filter(|(agent, inc)| leases.expired(agent, *inc, now));
    expired
        .map(|(agent, incarnation)| SystemCommand::ExpireLease {
            agent: agent.clone(),
            incarnation,
        })
        .collect()
}
