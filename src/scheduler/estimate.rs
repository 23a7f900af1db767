//! When tasks that wait are likely to start.
//!
//! The queue is played through on the slots as they are: what runs ends when such work usually does, each task whose turn
//! it is takes the first slot that comes free on an agent that fits it, and holds it for as long as such work usually takes
//! there, and a place in its namespace's quota. What comes later, fails or is cancelled is not foreseen; nor are resources
//! beyond slots, limits of back ends and caps, but of the one task that somebody asks about (`room`). Hot machines take what no idle one can.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use model::{
    Agent, AgentId, Attempt, Magnitude, Millis, Namespace, Requirement, State, TaskId, TaskSpec,
    Tenant, Timestamp, Work,
};

use crate::candidate::{Candidate, For};
use crate::filter;
use crate::fleet::{AgentView, Fleet};
use crate::health::{Asked, Machines};
use crate::order::{self, Became, Turns};
use crate::plan::LINES_MAX;
use crate::rules::{RuleSet, Rules};

/// What a play may cost.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Tasks to which a start is given.
    pub tasks: usize,
    /// Attempts, agents and slots that are looked at: each about half a microsecond.
    pub looks: usize,
}

/// Of one who asks.
const ASKED: Budget = Budget {
    tasks: 20_000,
    looks: 400_000,
};
/// How long a task still waits, most likely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    pub millis: Millis,
    /// A guess: of some work before it nobody knows how long it takes, or it waits for more than a slot.
    pub is_rough: bool,
}

/// When those start that go first, as far as the budget goes, and how many looks that took.
pub fn waits(
    state: &State,
    fleet: &Fleet,
    now: Timestamp,
    budget: Budget,
) -> (Vec<(TaskId, Wait)>, usize) {
    let mut found = Vec::new();
    let looks = play(state, fleet, now, budget, |task, wait| {
        found.push((task, wait));
        true
    });
    (found, looks)
}

/// One that waits now; `None`: it is too far back, or no agent fits it.
pub fn wait_of(state: &State, fleet: &Fleet, now: Timestamp, task: TaskId) -> Option<Wait> {
    let mut found = None;
    play(state, fleet, now, ASKED, |id, wait| {
        if id == task {
            found = Some(wait);
        }
        id != task
    });
    let found = found?;
    let room = Play::new(state, fleet, now, ASKED.looks).room(task)?;
    Some(Wait {
        millis: found.millis.max(room),
        is_rough: found.is_rough || room > found.millis,
    })
}

/// Until `tell` says that it is enough; answers how many looks it took.
fn play(
    state: &State,
    fleet: &Fleet,
    now: Timestamp,
    budget: Budget,
    mut tell: impl FnMut(TaskId, Wait) -> bool,
) -> usize {
    let queues = state.queues_behind(None);
    // Of more lines nothing can be said.
    let queues: Vec<_> = queues.take(LINES_MAX + 1).collect();
    let mut play = Play::new(state, fleet, now, budget.looks);
    if queues.len() > LINES_MAX || !play.fill_all() {
        return play.looks;
    }
    let lines = queues.into_iter().map(|(key, waiting)| {
        let line = order::line(state, (&key.tenant, waiting), now, order::RIPE_MAX);
        (key, line)
    });
    let mut order = Turns::new(state, now, lines.collect(), &BTreeSet::new());
    let mut told = 0;
    while told < budget.tasks
        && play.looks < play.most
        && let Some(turn) = order.next()
    {
        let found = play.next(turn.task);
        let became = match found {
            Found::Start(_) | Found::Later(_) => Became::Gone,
            Found::Nowhere => Became::Stuck,
            Found::Elsewhere => Became::Passed,
            Found::TooLong => break,
        };
        order.go_on(turn, became);
        // Those that wait for a place alone leave the others as many to be told of as there were.
        told += usize::from(matches!(found, Found::Start(_)));
        if let Found::Start(wait) | Found::Later(wait) = found
            && !tell(turn.task, wait)
        {
            break;
        }
    }
    play.looks
}

/// An attempt that an agent holds, and when it ends, from now.
struct End<'a> {
    at: u64,
    is_rough: bool,
    spec: Arc<TaskSpec>,
    attempt: &'a Attempt,
}

/// Places in a namespace's quota: those that are free, and when the others come free.
struct Places {
    free: u32,
    ends: BinaryHeap<Reverse<(u64, bool)>>,
}

impl Places {
    /// The first; `None`: none of those that have one is known to end.
    fn take(&mut self) -> Option<(u64, bool)> {
        if let Some(left) = self.free.checked_sub(1) {
            self.free = left;
            return Some((0, false));
        }
        self.ends.pop().map(|Reverse(place)| place)
    }
}

/// What an agent holds, and when the slots come free that it takes.
struct Busy<'a> {
    ends: Vec<End<'a>>,
    slots: Vec<(u64, bool)>,
}

/// Where a task's turn has led.
#[derive(Debug, Clone, Copy)]
enum Found {
    Start(Wait),
    /// The same, but it waits for a place in its quota, and takes no slot before.
    Later(Wait),
    /// No agent fits it, nor those behind it in its line.
    Nowhere,
    /// It waits for something else than a slot.
    Elsewhere,
    TooLong,
}

/// The slots, as they come free.
struct Play<'a> {
    state: &'a State,
    fleet: &'a Fleet,
    now: Timestamp,
    rules: Arc<Rules<'a>>,
    machines: Machines<'a>,
    /// When a slot comes free, from now, and on which agent; with whether that is a guess.
    slots: BinaryHeap<Reverse<(u64, usize, bool)>>,
    /// When a place in a namespace's quota does, of those that have one.
    places: BTreeMap<Namespace, Places>,
    looks: usize,
    most: usize,
    /// Whether each agent fits tasks that require the same, and obey the same rules.
    fitting: BTreeMap<(Requirement, RuleSet, bool), Arc<[bool]>>,
    usual: BTreeMap<Work, Option<Magnitude>>,
    typical: BTreeMap<Tenant, u64>,
}

impl<'a> Play<'a> {
    fn new(state: &'a State, fleet: &'a Fleet, now: Timestamp, most: usize) -> Play<'a> {
        Play {
            state,
            fleet,
            now,
            rules: Arc::new(Rules::of(state, now)),
            machines: Machines::of(state, fleet),
            slots: BinaryHeap::new(),
            places: BTreeMap::new(),
            looks: 0,
            most,
            fitting: BTreeMap::new(),
            usual: BTreeMap::new(),
            typical: BTreeMap::new(),
        }
    }

    /// False where that is too much to look at.
    fn fill_all(&mut self) -> bool {
        let limited = self.state.set_namespaces().filter_map(|(namespace, _)| {
            let free = self.state.running_left(namespace)?;
            let ends = BinaryHeap::new();
            Some((namespace.clone(), Places { free, ends }))
        });
        self.places = limited.collect();
        for number in 0..self.machines.open().len() {
            if self.looks > self.most {
                return false;
            }
            let (agent, view) = self.machines.open()[number];
            let Busy { ends, slots } = self.busy(agent, Some(view));
            self.fill(number, slots);
            self.note_ends(&ends);
        }
        self.places.is_empty() || self.note_ends_on_others()
    }

    /// What runs on agents that get nothing new has places, too.
    fn note_ends_on_others(&mut self) -> bool {
        let open: BTreeSet<&AgentId> = self
            .machines
            .open()
            .iter()
            .map(|(agent, _)| &agent.profile.id)
            .collect();
        let others = self
            .state
            .agents()
            .filter(|agent| !open.contains(&agent.profile.id));
        for agent in others.collect::<Vec<_>>() {
            if self.looks > self.most {
                return false;
            }
            let Busy { ends, .. } = self.busy(agent, None);
            self.note_ends(&ends);
        }
        true
    }

    fn fill(&mut self, number: usize, busy: Vec<(u64, bool)>) {
        let slots = self.machines.open()[number].0.profile.slots as usize;
        let free = std::iter::repeat_n((0, false), slots.saturating_sub(busy.len()));
        let slots = busy.into_iter().chain(free);
        let slots = slots.map(|(at, is_rough)| Reverse((at, number, is_rough)));
        self.slots.extend(slots);
    }

    fn note_ends(&mut self, ends: &[End<'_>]) {
        if self.places.is_empty() {
            return;
        }
        for end in ends {
            if let Some(places) = self.places.get_mut(&end.spec.namespace) {
                places.ends.push(Reverse((end.at, end.is_rough)));
            }
        }
    }

    /// What an agent holds. What was sent ahead follows the first that ends.
    fn busy(&mut self, agent: &Agent, view: Option<&AgentView>) -> Busy<'a> {
        let (state, profile) = (self.state, &agent.profile);
        let mut slots = BinaryHeap::new();
        let mut ends = Vec::new();
        let mut ahead = Vec::new();
        self.looks += 1;
        let held = state.held_by(&profile.id);
        let mut held: Vec<_> = held.filter_map(|task| Some((task.live()?, task))).collect();
        held.sort_by_key(|(attempt, task)| (attempt.epoch, task.id));
        for (attempt, task) in held {
            self.looks += 1;
            let Some(spec) = state.spec(task.id) else {
                continue;
            };
            let end = |at, is_rough, spec| End {
                at,
                is_rough,
                spec,
                attempt,
            };
            if attempt.preempted_by.is_some() {
                // It is being ended, and who gets its slot is there as well.
                ends.push(end(0, true, spec));
                continue;
            }
            let (takes, is_rough) = self.takes(view, &spec, &task.tenant(&spec));
            let since = Some(attempt.since).filter(|since| since.0 > 0);
            let ran = since.map_or(0, |since| self.now.since(since).0);
            if slots.len() < profile.slots as usize {
                // One that takes longer than is usual goes on for as long again.
                let left = if ran < takes { takes - ran } else { ran };
                slots.push(Reverse((left, is_rough)));
                ends.push(end(left, is_rough, spec));
            } else {
                ahead.push(end(takes, is_rough, spec));
            }
        }
        for mut end in ahead {
            if let Some(Reverse((before, is_rough))) = slots.pop() {
                end.at = end.at.saturating_add(before);
                end.is_rough |= is_rough;
                slots.push(Reverse((end.at, end.is_rough)));
            }
            ends.push(end);
        }
        let slots = slots.into_iter().map(|Reverse(slot)| slot).collect();
        Busy { ends, slots }
    }

    /// How long a task takes on an agent, in milliseconds, and whether that is a guess.
    fn takes(&mut self, view: Option<&AgentView>, spec: &TaskSpec, tenant: &Tenant) -> (u64, bool) {
        let work = spec.work();
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

    /// Gives a task the first slot that it fits.
    fn next(&mut self, id: TaskId) -> Found {
        self.looks += 1;
        let (Some(task), Some(spec)) = (self.state.task(id), self.state.spec(id)) else {
            return Found::Elsewhere;
        };
        if self.fleet.lacked_by(&spec).is_some() {
            return Found::Elsewhere;
        }
        let tenant = task.tenant(&spec);
        let fits = self.fitting(&spec);
        if !fits.contains(&true) {
            return Found::Nowhere;
        }
        let mut passed = Vec::new();
        let found = loop {
            self.looks += 1;
            match self.slots.pop() {
                Some(Reverse(slot)) if fits[slot.1] => break Some(slot),
                Some(_) if self.looks > self.most => return Found::TooLong,
                Some(other) => passed.push(other),
                None => break None,
            }
        };
        self.slots.extend(passed);
        let Some((start, number, before)) = found else {
            return Found::Nowhere;
        };
        let (_, view) = self.machines.open()[number];
        let (takes, is_rough) = self.takes(Some(view), &spec, &tenant);
        let place = match self.places.get_mut(&spec.namespace).map(Places::take) {
            None => (0, false),
            Some(Some(place)) => place,
            Some(None) => {
                self.slots.push(Reverse((start, number, before)));
                return Found::Nowhere;
            }
        };
        // Others have the slot until there is a place, and who has one then nobody knows.
        let (from, is_guess) = match place.0 > start {
            true => (place.0, true),
            false => (start, before || place.1),
        };
        let end = (from.saturating_add(takes), is_guess || is_rough);
        self.slots.push(Reverse(match from > start {
            true => (start, number, before),
            false => (end.0, number, end.1),
        }));
        if let Some(places) = self.places.get_mut(&spec.namespace) {
            places.ends.push(Reverse(end));
        }
        // It may wait for more than a slot.
        let is_limited = !spec.demand().is_nothing() || spec.inference.is_some();
        let wait = Wait {
            millis: Millis(from),
            is_rough: is_guess || is_limited,
        };
        match from > start {
            true => Found::Later(wait),
            false => Found::Start(wait),
        }
    }

    /// When an agent has all that a task asks for beyond a slot, should no other take it before; `None`: not once all has
    /// ended that runs.
    fn room(&mut self, id: TaskId) -> Option<Millis> {
        let state = self.state;
        let (task, spec) = (state.task(id)?, state.spec(id)?);
        let of = For::of(state, &self.rules, &spec, &task.user);
        let is_for_slots = spec.demand().is_nothing() && spec.inference.is_none();
        if is_for_slots && !self.rules.have_cap(of.rules) {
            return Some(Millis(0));
        }
        let fits = self.fitting(&spec);
        let mut first: Option<u64> = None;
        for number in (0..fits.len()).filter(|number| fits[*number]) {
            if self.looks > self.most {
                return None;
            }
            let found = self.room_on(number, &spec, of.rules);
            first = first.into_iter().chain(found).min();
        }
        first.map(Millis)
    }

    fn room_on(&mut self, number: usize, spec: &TaskSpec, rules: RuleSet) -> Option<u64> {
        let (state, (agent, view)) = (self.state, self.machines.open()[number]);
        let known = (&self.machines, &*self.fleet.rotations, self.now);
        let room = filter::room(state, agent, view);
        let mut candidate = Candidate::new((agent, room), (state, view), known, &self.rules);
        let mut ends = self.busy(agent, Some(view)).ends;
        let held = ends.len();
        ends.retain(|end| end.attempt.preempted_by.is_none());
        if ends.len() < held {
            // What has to end is as good as gone, and what it has is there twice, or the other's already.
            candidate.holds_just(ends.iter().map(|end| (&*end.spec, end.attempt)));
        }
        ends.sort_by_key(|end| end.at);
        let mut ends = ends.into_iter();
        let mut at = 0;
        loop {
            let has_room = candidate.has_free_slot()
                && candidate.fits(state, spec.need()).is_ok()
                && candidate.obeys(rules).is_ok();
            if has_room {
                return Some(at);
            }
            let end = ends.next()?;
            candidate.give_back(&end.spec, end.attempt);
            at = end.at;
        }
    }

    fn fitting(&mut self, spec: &TaskSpec) -> Arc<[bool]> {
        let concerning = self.rules.concerning(&spec.namespace, spec.kind());
        let key = (
            Requirement::from(spec.need()),
            concerning,
            spec.blobs.is_empty(),
        );
        if let Some(known) = self.fitting.get(&key) {
            return Arc::clone(known);
        }
        self.looks += self.machines.open().len();
        let asked = Asked::of((&self.rules, concerning), spec);
        let is_for_idle_ones = self.machines.is_for_idle_ones(&asked);
        let fits = self.machines.open().iter().map(|(agent, _)| {
            let is_held_back = is_for_idle_ones && self.machines.is_hot(&agent.profile.id);
            !is_held_back && asked.could_run_on(agent)
        });
        let fits: Arc<[bool]> = fits.collect();
        self.fitting.insert(key, Arc::clone(&fits));
        fits
    }
}
