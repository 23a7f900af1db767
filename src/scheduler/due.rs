//! What has run out of time: leases, deadlines, drains, rules. The answers are commands; `apply`
//! checks them again, and an expiry is an entry like any other.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    AgentId, AgentState, DrainStage, Incarnation, Millis, State, SystemCommand, Timestamp,
};
use mutant::Mutant;

/// How long an attempt lives without a renewal. The agent ends it itself 3 s earlier.
pub const LEASE: Millis = Millis(15_000);
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
    since: Millis,
    renewed: BTreeMap<AgentId, BTreeMap<Incarnation, Millis>>,
}

impl Leases {
    /// All of them begin anew.
    pub fn since(now: Millis) -> Leases {
        Leases {
            since: now,
            renewed: BTreeMap::new(),
        }
    }

    /// A renewal, or the start of a lease; one that comes late never shortens it.
    pub fn renew(&mut self, agent: &AgentId, incarnation: Incarnation, at: Millis) {
        let leases = self.renewed.entry(agent.clone()).or_default();
        let renewed = leases.entry(incarnation).or_default();
        *renewed = at.max(*renewed);
    }

    pub fn end(&mut self, agent: &AgentId, incarnation: Incarnation) {
        if let Some(leases) = self.renewed.get_mut(agent) {
            leases.remove(&incarnation);
        }
    }

    pub fn expired(&self, agent: &AgentId, incarnation: Incarnation, now: Millis) -> bool {
        let leases = self.renewed.get(agent);
        let renewed = leases.and_then(|leases| leases.get(&incarnation)).copied();
        let from = renewed.unwrap_or(self.since).max(self.since);
        let lease = match mutant::is(Mutant::LeaseCutShort) {
            true => LEASE.0 / 2,
            false => LEASE.0,
        };
        now.0 >= from.0.saturating_add(lease)
    }

    /// Drops incarnations that were replaced and hold nothing any more.
    pub fn forget_unwatched(&mut self, state: &State) {
        self.renewed.retain(|agent, leases| {
            leases.retain(|incarnation, _| is_watched(state, agent, *incarnation));
            !leases.is_empty()
        });
    }

    /// How many incarnations are remembered.
    pub fn len(&self) -> usize {
        self.renewed.values().map(BTreeMap::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn is_watched(state: &State, agent: &AgentId, incarnation: Incarnation) -> bool {
    let current = state
        .agent(agent)
        .is_some_and(|known| known.profile.incarnation == incarnation);
    current || state.held_under(agent, incarnation).next().is_some()
}

/// What the leader has to propose now.
pub fn due(state: &State, leases: &Leases, clock: Clock) -> Vec<SystemCommand> {
    let mut commands = expired_leases(state, leases, clock.monotonic);
    let late = state
        .deadlines()
        .take_while(|(at, _)| *at <= clock.state)
        .take(DEADLINES_MAX);
    commands.extend(late.map(|(_, task)| SystemCommand::ExpireDeadline { task }));
    commands.extend(expired_drains(state, clock.state));
    let over = state.rules().filter(|rule| !rule.holds_at(clock.state));
    commands.extend(over.map(|rule| SystemCommand::ExpireRule { rule: rule.id }));
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
    watched.extend(state.holders());
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

/// Also of an agent that holds nothing any more: it is too cheap to be told apart.
fn expired_drains(state: &State, now: Timestamp) -> impl Iterator<Item = SystemCommand> {
    let over = state.agents().filter(move |agent| {
        let drain = agent.drain();
        drain.is_some_and(|drain| drain.stage == DrainStage::Waiting && drain.until <= now)
    });
    over.map(|agent| SystemCommand::ExpireDrain {
        agent: agent.profile.id.clone(),
    })
}
