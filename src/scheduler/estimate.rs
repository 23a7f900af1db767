//! When tasks that wait are likely to start.
//!
//! The queue is played through on the slots as they are: what runs ends when such work usually does, each task whose turn
//! it is takes the first slot that comes free on an agent that fits it, and holds it for as long as such work usually takes
//! there. What comes later, fails or is cancelled is not foreseen; nor are resources beyond slots, limits of back ends, caps
//! and quotas, but that nothing of a namespace whose quota is used up is played. Hot machines take what no idle one can.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use model::{Agent, Magnitude, Millis, QueueKey, State, TaskId, TaskSpec, Tenant, Timestamp, Work};

use crate::filter;
use crate::fleet::Fleet;
use crate::health::Machines;
use crate::order::{self, Became, Turns};
use crate::rules::{RuleSet, Rules};

/// Turns that are played for one who asks, and slots that are looked at for them: some tens of milliseconds.
pub const TURNS_MAX: usize = 20_000;
const SLOTS_MAX_LOOKED_AT: usize = 400_000;

/// How long a task still waits, most likely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    pub millis: Millis,
    /// A guess: of some work before it nobody knows how long it takes, or it waits for more than a slot.
    pub is_rough: bool,
}

/// Those that go first, with when they start; at most so many turns are played.
pub fn waits<'a>(
    state: &'a State,
    fleet: &'a Fleet,
    now: Timestamp,
    turns: usize,
) -> impl Iterator<Item = (TaskId, Wait)> + use<'a> {
    let lines = state
        .queues_behind(None)
        .filter(|(key, _)| state.running_left(&key.tenant.namespace) != Some(0));
    let lines = lines.map(|(key, waiting)| {
        let line = order::line(state, (&key.tenant, waiting), now, usize::MAX);
        (&key.tenant, line)
    });
    let mut order = Turns::new(state, now, lines.collect(), &BTreeSet::new());
    let mut play = Play::new(state, fleet, now);
    let mut played = 0;
    std::iter::from_fn(move || {
        loop {
            let turn = order.next().filter(|_| played < turns)?;
            played += 1;
            let wait = play.next(turn.task)?;
            let became = match wait {
                Some(_) => Became::Gone,
                None => Became::Stuck,
            };
            order.go_on(turn, became);
            if let Some(wait) = wait {
                return Some((turn.task, wait));
            }
        }
    })
}

/// One that waits now; `None`: it is too far back, no agent fits it, or its namespace may not have more.
pub fn wait_of(state: &State, fleet: &Fleet, now: Timestamp, task: TaskId) -> Option<Wait> {
    let mut waits = waits(state, fleet, now, TURNS_MAX);
    waits.find(|(id, _)| *id == task).map(|(_, wait)| wait)
}

/// The slots, as they come free.
struct Play<'a> {
    state: &'a State,
    fleet: &'a Fleet,
    now: Timestamp,
    rules: Rules<'a>,
    machines: Machines<'a>,
    agents: Vec<&'a Agent>,
    /// When a slot comes free, from now, and on which agent; with whether that is a guess.
    slots: BinaryHeap<Reverse<(u64, usize, bool)>>,
    looked_at: usize,
    /// Whether each agent fits the tasks of a queue.
    fitting: BTreeMap<QueueKey, Vec<bool>>,
    usual: BTreeMap<Work, Option<Magnitude>>,
    typical: BTreeMap<Tenant, u64>,
}

impl<'a> Play<'a> {
    fn new(state: &'a State, fleet: &'a Fleet, now: Timestamp) -> Play<'a> {
        let machines = Machines::of(state, fleet);
        let mut play = Play {
            state,
            fleet,
            now,
            rules: Rules::of(state, now),
            agents: machines.open().to_vec(),
            machines,
            slots: BinaryHeap::new(),
            looked_at: 0,
            fitting: BTreeMap::new(),
            usual: BTreeMap::new(),
            typical: BTreeMap::new(),
        };
        for number in 0..play.agents.len() {
            play.fill(number);
        }
        play
    }

    /// What runs on an agent, and its free slots. What was sent ahead follows the first that ends.
    fn fill(&mut self, number: usize) {
        let (state, profile) = (self.state, &self.agents[number].profile);
        let mut ends = BinaryHeap::new();
        let mut ahead = Vec::new();
        for task in state.held_by(&profile.id) {
            let (Some(spec), Some(attempt)) = (state.spec(task.id), task.live()) else {
                continue;
            };
            let (takes, is_rough) = self.takes(number, &spec, &task.tenant(&spec));
            let since = Some(attempt.since).filter(|since| since.0 > 0);
            let ran = since.map_or(0, |since| self.now.since(since).0);
            if ends.len() < profile.slots as usize {
                // One that takes longer than is usual goes on for as long again.
                let left = if ran < takes { takes - ran } else { ran };
                ends.push(Reverse((left, is_rough)));
            } else {
                ahead.push((takes, is_rough));
            }
        }
        for (takes, is_rough) in ahead {
            if let Some(Reverse((end, before))) = ends.pop() {
                ends.push(Reverse((end + takes, before || is_rough)));
            }
        }
        let free = (profile.slots as usize).saturating_sub(ends.len());
        let busy = ends
            .into_iter()
            .map(|Reverse((end, rough))| (end, number, rough));
        let free = std::iter::repeat_n((0, number, false), free);
        self.slots.extend(busy.chain(free).map(Reverse));
    }

    /// How long a task takes on an agent, in milliseconds, and whether that is a guess.
    fn takes(&mut self, number: usize, spec: &TaskSpec, tenant: &Tenant) -> (u64, bool) {
        let work = spec.work();
        let view = self.fleet.agents.get(&self.agents[number].profile.id);
        let own = view.and_then(|view| view.service.get(&work).copied());
        let known = own.or_else(|| {
            let machines = &self.machines;
            let usual = self.usual.entry(work);
            *usual.or_insert_with_key(|work| machines.usual_service(work))
        });
        match known {
            Some(known) => (known.value().max(1), false),
            None => {
                let (state, now) = (self.state, self.now);
                let typical = self.typical.entry(tenant.clone());
                let typical = typical.or_insert_with(|| state.usage(tenant, now).typical.max(1));
                (*typical, true)
            }
        }
    }

    /// Gives a task the first slot that it fits; `Some(None)` where there is none for it, `None` where this has become too long.
    fn next(&mut self, id: TaskId) -> Option<Option<Wait>> {
        let (Some(task), Some(spec)) = (self.state.task(id), self.state.spec(id)) else {
            return Some(None);
        };
        let tenant = task.tenant(&spec);
        let key = QueueKey::of(&spec, tenant.clone());
        if !self.fitting.contains_key(&key) {
            let concerning = self.rules.concerning(&spec.namespace, spec.kind());
            let idle = self
                .machines
                .idle_slots((&self.rules, concerning), spec.need());
            let fits = self.agents.iter().map(|agent| {
                let is_held_back = idle > 0 && self.machines.is_hot(&agent.profile.id);
                !is_held_back && self.fits(agent, &spec, concerning)
            });
            let fits = fits.collect();
            self.fitting.insert(key.clone(), fits);
        }
        let fits = self.fitting.get(&key)?;
        if !fits.contains(&true) {
            return Some(None);
        }
        let mut passed = Vec::new();
        let found = loop {
            self.looked_at += 1;
            match self.slots.pop() {
                Some(Reverse(slot)) if fits[slot.1] => break Some(slot),
                Some(other) => passed.push(other),
                None => break None,
            }
        };
        self.slots.extend(passed);
        if self.looked_at > SLOTS_MAX_LOOKED_AT {
            return None;
        }
        let Some((start, number, before)) = found else {
            return Some(None);
        };
        let (takes, is_rough) = self.takes(number, &spec, &tenant);
        let end = start.saturating_add(takes);
        self.slots.push(Reverse((end, number, before || is_rough)));
        Some(Some(Wait {
            millis: Millis(start),
            is_rough: before || !spec.demand().is_nothing(),
        }))
    }

    fn fits(&self, agent: &Agent, spec: &TaskSpec, concerning: RuleSet) -> bool {
        let profile = &agent.profile;
        filter::fits(agent, &spec.require).is_ok()
            && profile.understands(spec).is_ok()
            && model::could(profile.supply.as_ref(), &spec.demand()).is_ok()
            && self
                .rules
                .admit(concerning, self.rules.naming(profile))
                .is_ok()
    }
}
