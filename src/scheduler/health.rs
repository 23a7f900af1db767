//! How the agents' machines are, by what they report: an input of the plan that is up to 5 s old.
//!
//! A machine's *health* is 0.4 × processors + 0.3 × memory + 0.3 × latency, in thousandths, lower is better; it is half of what
//! `adaptive` looks at. A machine whose processors are all but used up by what is not ours ([`HOT`]) is held back: of tasks
//! that an idle machine could run as well it gets a twentieth, slot for slot, of what the idle ones get, or one in ten minutes.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    Agent, AgentId, AgentProfile, AgentState, Load, Magnitude, Millis, Need, Presence, State,
    StateVersion, Task, TaskSpec, Timestamp, Work,
};

use crate::filter;
use crate::fleet::{AgentView, Fleet};
use crate::rules::{RuleSet, Rules};

/// So much of the processors taken by others makes a machine hot, in thousandths; with less than half of them it is idle.
const HOT: u32 = 950;
const IDLE: u32 = 500;
/// What a hot machine gets is what an idle one gets, by this.
const HELD_BACK: u64 = 20;
/// Who has waited for so long may go to a hot one that has got nothing for so long: idle machines may be full for days.
pub const PATIENCE: Millis = Millis(600_000);
/// A latency or a service time is looked at up to this, in thousandths of the usual: beyond it is simply slow.
const SLOW: i64 = 2_000;
/// Less than that is as good as nothing.
const LATENCY_UNIT_US: u64 = 1_000;
/// As long as usual, or nobody knows.
pub const USUAL: i64 = 1_000;

/// How a machine is, in thousandths; lower is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    pub cpu: i64,
    pub memory: i64,
    /// Of the fleet's median, which counts for 1 ms at least.
    pub latency: i64,
}

impl Health {
    fn of(load: Load, usual: Magnitude) -> Health {
        // Not measured yet: it is taken to be usual.
        let latency = match load.latency {
            Magnitude(0) => usual.value(),
            known => known.value(),
        };
        let usual = usual.value().max(LATENCY_UNIT_US);
        Health {
            cpu: load.cpu.thousandths().into(),
            memory: load.memory.thousandths().into(),
            latency: relative(latency, usual),
        }
    }

    /// All in one number.
    pub fn priority(self) -> i64 {
        (self.cpu * 400 + self.memory * 300 + self.latency * 300) / 1_000
    }
}

/// In thousandths of what is usual.
fn relative(value: u64, usual: u64) -> i64 {
    let thousandths = value.saturating_mul(1_000) / usual.max(1);
    i64::try_from(thousandths).map_or(SLOW, |it| it.min(SLOW))
}

/// The lower one in the middle; nothing of nothing.
fn median(mut values: Vec<Magnitude>) -> Option<Magnitude> {
    let middle = values.len().checked_sub(1)? / 2;
    let (_, median, _) = values.select_nth_unstable(middle);
    Some(*median)
}

/// An agent, and what the leader knows of it.
pub type Seen<'a> = (&'a Agent, &'a AgentView);

/// All machines together, as a round sees them.
#[derive(Debug)]
pub struct Machines<'a> {
    fleet: &'a Fleet,
    /// Those that can be sent work, by id.
    open: Vec<Seen<'a>>,
    /// Round trips of those that can be sent work.
    usual_latency: Magnitude,
    /// Where there is a hot one: those that are not, full or not.
    idle: Vec<&'a Agent>,
    hot: BTreeSet<&'a AgentId>,
}

impl<'a> Machines<'a> {
    pub fn of(state: &'a State, fleet: &'a Fleet) -> Machines<'a> {
        let open = state.agents().filter_map(|agent| {
            let view = fleet.agents.get(&agent.profile.id)?;
            let is_open = view.sample.presence == Presence::Open
                && agent.state == AgentState::Ready
                && agent.is_open().is_ok();
            is_open.then_some((agent, view))
        });
        let open: Vec<Seen<'_>> = open.collect();
        let mut latencies = Vec::new();
        let mut hot = BTreeSet::new();
        // A member of an older release could not read why they are refused.
        let may_say = state.state_version() >= StateVersion::OBSERVATIONS;
        for (agent, view) in &open {
            let load = view.sample.load;
            if load.latency > Magnitude::default() {
                latencies.push(load.latency);
            }
            if load.others.thousandths() >= HOT && may_say {
                hot.insert(&agent.profile.id);
            }
        }
        let idle = match hot.is_empty() {
            true => Vec::new(),
            false => {
                let idle = open.iter();
                let idle = idle.filter(|(_, it)| it.sample.load.others.thousandths() < IDLE);
                idle.map(|(agent, _)| *agent).collect()
            }
        };
        Machines {
            fleet,
            open,
            usual_latency: median(latencies).unwrap_or_default(),
            idle,
            hot,
        }
    }

    /// Of one that is not known, that of an idle machine.
    pub fn health(&self, agent: &AgentId) -> Health {
        let view = self.fleet.agents.get(agent);
        self.health_under(view.map_or_else(Load::default, |view| view.sample.load))
    }

    pub fn health_under(&self, load: Load) -> Health {
        Health::of(load, self.usual_latency)
    }

    pub fn is_hot(&self, agent: &AgentId) -> bool {
        self.hot.contains(agent)
    }

    /// Those whose processors are all but used up by others.
    pub fn hot(&self) -> &BTreeSet<&'a AgentId> {
        &self.hot
    }

    /// Those that can be sent work, by id.
    pub fn open(&self) -> &[Seen<'a>] {
        &self.open
    }

    /// How a hot one is held back; not at all where it is not hot.
    pub fn hold(&self, profile: &AgentProfile, restraint: &Restraint, now: Timestamp) -> Hold {
        match self.is_hot(&profile.id) {
            true => restraint.hold(&profile.id, profile.slots, now),
            false => Hold::Not,
        }
    }

    pub fn is_idle(&self, agent: &AgentId) -> bool {
        let found = |it: &&Agent| it.profile.id.cmp(agent);
        self.idle.binary_search_by(found).is_ok()
    }

    /// How long such tasks take where somebody knows: the median of the agents.
    pub fn usual_service(&self, work: &Work) -> Option<Magnitude> {
        let known = self.open.iter();
        let known = known.filter_map(|(_, view)| view.service.get(work).copied());
        median(known.collect())
    }

    /// The idle machines that could run such tasks, be it now or when they have room; none where no machine is hot, for it is
    /// of no matter then.
    fn idle_ones<'m>(&'m self, asked: &'m Asked<'_>) -> impl Iterator<Item = &'m Agent> {
        let idle = self.idle.iter().copied();
        idle.filter(|agent| asked.could_run_on(agent))
    }

    /// Whether there is one.
    pub fn is_for_idle_ones(&self, asked: &Asked<'_>) -> bool {
        self.idle_ones(asked).next().is_some()
    }

    /// Their slots.
    pub fn idle_slots(&self, asked: &Asked<'_>) -> u64 {
        let idle = self.idle_ones(asked);
        idle.map(|agent| u64::from(agent.profile.slots)).sum()
    }
}

/// What tasks ask of a machine, as far as it does not change.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'t> {
    pub rules: (&'t Rules<'t>, RuleSet),
    pub need: Need<'t>,
    /// Every agent understands them.
    pub is_plain: bool,
}

impl<'t> Asked<'t> {
    pub fn of(rules: (&'t Rules<'t>, RuleSet), spec: &'t TaskSpec) -> Asked<'t> {
        Asked {
            rules,
            need: spec.need(),
            is_plain: spec.blobs.is_empty(),
        }
    }

    /// Whether it could run there, were all of the machine free.
    pub fn could_run_on(&self, agent: &Agent) -> bool {
        let (profile, (rules, concerning)) = (&agent.profile, self.rules);
        filter::fits(agent, self.need.require).is_ok()
            && model::could(profile.supply.as_ref(), &self.need.demand).is_ok()
            && (self.is_plain || profile.understands_blobs().is_ok())
            && rules.admit(concerning, rules.naming(profile)).is_ok()
    }
}

/// How a machine is held back, of what idle ones could run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    Not,
    /// From tasks that have not waited for long: see [`PATIENCE`].
    ButForOverdue,
    FromAll,
}

impl Hold {
    pub fn admits(self, is_overdue: bool) -> bool {
        match self {
            Hold::Not => true,
            Hold::ButForOverdue => is_overdue,
            Hold::FromAll => false,
        }
    }
}

/// Whether a task has waited for so long that it may go to a hot machine.
pub fn is_overdue(task: &Task, now: Timestamp) -> bool {
    task.waits_since.0 > 0 && now.since(task.waits_since) >= PATIENCE
}

/// How long work takes on an agent, in thousandths of what is usual.
pub fn pace(own: Option<&Magnitude>, usual: Option<Magnitude>) -> i64 {
    match (own, usual) {
        (Some(own), Some(usual)) => relative(own.value(), usual.value()),
        (None, _) | (_, None) => USUAL,
    }
}

/// A decision for each idle slot.
const UNIT: u64 = 1 << 24;

/// What idle machines got of what a hot one could have run, since that got something. Soft state of a leader, as turns are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restraint(BTreeMap<AgentId, Credit>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Credit {
    /// Slot for slot.
    idle: u64,
    /// When it got its last under this leader.
    took: Option<Timestamp>,
}

impl Restraint {
    /// Whether just these were hot when it was noted last.
    pub fn is_about(&self, hot: &BTreeSet<&AgentId>) -> bool {
        self.0.len() == hot.len() && self.0.keys().zip(hot).all(|(known, hot)| known == *hot)
    }

    pub fn note(&mut self, hot: &BTreeSet<&AgentId>) {
        self.0.retain(|agent, _| hot.contains(agent));
        for agent in hot {
            self.0.entry((*agent).clone()).or_default();
        }
    }

    /// Rounds that decide nothing leave nothing here, so one that is not known yet stands as one that has got nothing.
    fn hold(&self, agent: &AgentId, slots: u32, now: Timestamp) -> Hold {
        let due = HELD_BACK * UNIT / u64::from(slots.max(1));
        let Credit { idle, took } = self.0.get(agent).copied().unwrap_or_default();
        match took.is_none_or(|took| now.since(took) >= PATIENCE) {
            _ if idle >= due => Hold::Not,
            true => Hold::ButForOverdue,
            false => Hold::FromAll,
        }
    }

    /// A hot one got something that idle ones could have run.
    pub fn took(&mut self, agent: &AgentId, now: Timestamp) {
        if let Some(credit) = self.0.get_mut(agent) {
            *credit = Credit {
                idle: 0,
                took: Some(now),
            };
        }
    }

    /// An idle one got what this hot one could have run; so many slots of idle ones could have had it.
    pub fn idle_took(&mut self, hot: &AgentId, slots: u64) {
        if let Some(credit) = self.0.get_mut(hot) {
            credit.idle = credit.idle.saturating_add(UNIT / slots.max(1));
        }
    }
}
