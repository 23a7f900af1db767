//! Books of what all entries together did, kept from what they ask for and from events alone.
//!
//! They do not look into the state's own counting: how many tasks of a namespace wait and run, who stands in line, and who
//! has been served at all, is counted here once more. What the state is asked is only which submit a task was made of, and
//! that is looked up in the entry. Whose turn it is follows from what each has used; here only what holds whatever
//! that is: the class before all, age among the tasks of one user, and that a namespace that has used nothing goes before
//! one that has used something. A plan is held to what the leader had applied when it made it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::{
    AgentId, Class, Command, Event, Expression, Fence, Namespace, Op, Requirement, SetNamespace,
    State, StateName, StateVersion, Submit, SystemCommand, TaskId, TaskSpec,
};

use crate::by_hand::ByHand;
use crate::labels;

/// Those that wait longest, with which one that goes is compared.
const COMPARED: usize = 8;

/// A namespace has used something for sure after so many attempts, that ran for so many milliseconds all together: some of
/// what ran may not be charged, and what is charged becomes less.
const USED_ATTEMPTS: usize = 3;
const USED_MILLIS: u64 = 2_000;

/// What a task was made of, as the state that the entry made has it.
pub struct Asked {
    pub user: String,
    pub request: Option<String>,
    pub spec: Arc<TaskSpec>,
}

/// Who wanted to assign what, and what they had applied then.
#[derive(Default)]
pub struct Plans {
    count: u64,
    of: BTreeMap<TaskId, Plan>,
    first_of: BTreeMap<Namespace, u64>,
    /// Tasks that had just come when this one got the place of others: nothing ends for them yet.
    young: BTreeMap<TaskId, BTreeSet<TaskId>>,
}

/// All the plans for one task: the first and the last by their numbers, and the least that one of them was made on.
#[derive(Clone, Copy)]
struct Plan {
    first: u64,
    last: u64,
    as_of: u64,
}

impl Plans {
    pub fn note(&mut self, ops: &[Op], state: &State) {
        let now = ops.iter().find_map(|op| match op {
            Op::System(SystemCommand::Observe(observed)) => Some(observed.now),
            Op::System(_) | Op::Client { .. } => None,
        });
        for op in ops {
            if let (Op::System(SystemCommand::Preempt(preemption)), Some(now)) = (op, now) {
                let young = state.tasks_newest_first(None);
                let young = young.filter(|it| now.since(it.waits_since) < scheduler::PATIENCE);
                let young = young.map(|it| it.id).collect();
                self.young.insert(preemption.assignment.task, young);
            }
            let (task, namespace) = match op {
                Op::System(command) if let Some(assignment) = command.assignment() => {
                    let spec = state.spec(assignment.task);
                    (
                        Some(assignment.task),
                        spec.map(|spec| spec.namespace.clone()),
                    )
                }
                Op::Client {
                    command: Command::SubmitTask(submit),
                    placement: Some(_),
                    ..
                } => (None, Some(submit.spec.namespace.clone())),
                Op::Client { .. } | Op::System(_) => continue,
            };
            self.count += 1;
            let (number, as_of) = (self.count, state.last_applied());
            if let Some(task) = task {
                let plan = self.of.entry(task).or_insert(Plan {
                    first: number,
                    last: number,
                    as_of,
                });
                (plan.last, plan.as_of) = (number, plan.as_of.min(as_of));
            }
            if let Some(namespace) = namespace {
                self.first_of.entry(namespace).or_insert(number);
            }
        }
    }
}

/// An entry, and what is known beside it.
pub struct Entry<'e> {
    pub index: u64,
    /// Nothing where it was a blank one, a change of membership, or not seen.
    pub ops: &'e [Op],
    pub events: &'e [Event],
    pub submits: &'e BTreeMap<TaskId, Asked>,
    pub plans: &'e Plans,
    pub ran: &'e BTreeMap<Fence, u64>,
}

#[derive(Default)]
pub struct Books {
    pub broken: Vec<(&'static str, String)>,
    /// How often there was something to look at.
    pub looked: BTreeMap<&'static str, u64>,
    last: Option<u64>,
    live: BTreeMap<TaskId, Fence>,
    epochs: BTreeMap<TaskId, u64>,
    ended: BTreeMap<TaskId, StateName>,
    closed: BTreeSet<AgentId>,
    shares: Shares,
}

/// What is known of quotas, lines and use. It needs all entries from the first on.
#[derive(Default)]
struct Shares {
    blind: bool,
    tasks: BTreeMap<TaskId, Known>,
    spaces: BTreeMap<Namespace, Space>,
    /// Tasks that were never assigned, and never could not be.
    waiting: BTreeSet<(Class, TaskId)>,
    /// From which entry on what is used is charged.
    charged_from: Option<u64>,
    by_hand: ByHand,
}

struct Known {
    namespace: Namespace,
    user: String,
    class: Class,
    /// Those that need less, or something else, may go before.
    need: Requirement,
    is_preemptible: bool,
    queued: u64,
}

#[derive(Default)]
struct Space {
    max_running: u32,
    max_queued: u32,
    running: BTreeSet<TaskId>,
    queued: BTreeSet<TaskId>,
    served: bool,
    /// What attempts ran that have ended, with the entries that ended them.
    used: Vec<(u64, u64)>,
}

impl Space {
    fn had_used(&self, by: u64) -> bool {
        let ended = || self.used.iter().filter(|(index, _)| *index <= by);
        ended().count() >= USED_ATTEMPTS && ended().map(|(_, ran)| ran).sum::<u64>() >= USED_MILLIS
    }
}

impl Books {
    pub fn enter(&mut self, entry: &Entry<'_>) {
        // The membership that a cluster begins with may be told or not.
        let follows = self
            .last
            .map_or(entry.index <= 1, |last| last + 1 == entry.index);
        if !follows {
            let kept = std::mem::take(self);
            (self.broken, self.looked) = (kept.broken, kept.looked);
            self.shares.blind = true;
        }
        self.last = Some(entry.index);
        // What it asked for was not seen.
        self.shares.blind |= entry.ops.is_empty() && !entry.events.is_empty();
        let made = |event: &&Event| matches!(event, Event::RuleSet { .. });
        let made = entry.events.iter().filter(made).count();
        self.shares.by_hand.read(made, entry.ops);
        let mut told: Vec<Option<&Op>> = entry.ops.iter().map(Some).collect();
        // Some were refused, and which of them is not told.
        let asked = entry.ops.iter().filter_map(settings_of).count();
        let set = |event: &&Event| matches!(event, Event::NamespaceSet { .. });
        let set = entry.events.iter().filter(set).count();
        self.shares.blind |= set > 0 && asked > set;
        if !self.shares.blind {
            self.shares.read(entry);
        }
        for event in entry.events {
            self.happened(event);
            if !self.shares.blind {
                self.share(event, &mut told, entry);
            }
        }
    }

    fn happened(&mut self, event: &Event) {
        let broken = &mut self.broken;
        match event {
            Event::TaskAssigned { fence, agent, .. } => {
                if let Some(live) = self.live.insert(fence.task, *fence) {
                    broken.push(("I3 one live epoch", format!("{live} and {fence}")));
                }
                let before = self.epochs.insert(fence.task, fence.epoch.0);
                if before.is_some_and(|before| before >= fence.epoch.0) {
                    broken.push(("I3 epochs rise", format!("{before:?}, then {fence}")));
                }
                if self.closed.contains(agent) {
                    broken.push(("I4 only fit agents", format!("{fence} on cordoned {agent}")));
                }
            }
            Event::AttemptEnded { fence, .. } => {
                self.live.remove(&fence.task);
            }
            Event::TaskEnded { task, state } => {
                let before = self.ended.insert(*task, *state);
                if before.is_some_and(|before| before != StateName::Unknown) {
                    let what = format!("{task} ended as {before:?}, then as {state:?}");
                    broken.push(("I2 one result", what));
                }
            }
            Event::AgentCordoned { agent } | Event::AgentDraining { agent } => {
                self.closed.insert(agent.clone());
            }
            Event::AgentUncordoned { agent } | Event::AgentRemoved { agent, .. } => {
                self.closed.remove(agent);
            }
            _ => {}
        }
    }

    fn share(&mut self, event: &Event, told: &mut [Option<&Op>], entry: &Entry<'_>) {
        let index = entry.index;
        let found = match event {
            Event::TaskQueued { task } => self.shares.queued(*task, told, entry),
            Event::TaskRequeued { task } => {
                self.shares.again(*task);
                Vec::new()
            }
            Event::TaskAssigned { fence, agent, .. } => {
                self.shares.assigned(fence.task, agent, entry)
            }
            Event::Preempted { fence, by, .. } => {
                self.shares.by_hand.over(fence.task);
                vec![self.shares.preempted(fence.task, *by)]
            }
            Event::AttemptEnded { fence, .. } => {
                let ran = entry.ran.get(fence).copied();
                self.shares.over(*fence, index, ran);
                Vec::new()
            }
            Event::TaskEnded { task, .. } => {
                self.shares.left(*task);
                Vec::new()
            }
            Event::NamespaceSet { namespace } => {
                self.shares.set(namespace, told);
                Vec::new()
            }
            Event::RuleSet { rule } => {
                self.shares.by_hand.set(*rule, index);
                Vec::new()
            }
            Event::RuleRemoved { rule } | Event::RuleExpired { rule } => {
                self.shares.by_hand.remove(*rule, index);
                Vec::new()
            }
            _ => Vec::new(),
        };
        for look in found {
            let (rule, what) = match look {
                Look::Kept(rule) => (rule, None),
                Look::Broken(rule, what) => (rule, Some(what)),
            };
            *self.looked.entry(rule).or_default() += 1;
            if let Some(what) = what {
                self.broken.push((rule, format!("entry {index}: {what}")));
            }
        }
    }
}

const WAITS: &str = "I11 quota of tasks that wait";
const RUNS: &str = "I11 quota of attempts";
const ORDER: &str = "I12 class, and age of one user";
const BY_HAND: &str = "I4 rules by hand";
const LABELS: &str = "I4 labels that are required";
const PREEMPTS: &str = "I12 preemption across classes, of what allows it";
const SHARE: &str = "I12 who has used nothing goes first";

enum Look {
    Kept(&'static str),
    Broken(&'static str, String),
}

impl Shares {
    /// What an entry asks for that no event tells.
    fn read(&mut self, entry: &Entry<'_>) {
        for op in entry.ops {
            match op {
                Op::System(SystemCommand::RaiseVersion { to }) if *to >= StateVersion::SHARES => {
                    self.charged_from.get_or_insert(entry.index);
                }
                Op::System(command) if let Some(assignment) = command.assignment() => {
                    // If it is refused, others may go before the next plan.
                    let known = self.tasks.get(&assignment.task);
                    let assigned = entry.events.iter().any(|event| {
                        matches!(event, Event::TaskAssigned { fence, .. } if fence.task == assignment.task)
                    });
                    if let Some(known) = known.filter(|_| !assigned) {
                        self.waiting.remove(&(known.class, assignment.task));
                    }
                }
                Op::Client { .. } | Op::System(_) => {}
            }
        }
    }

    fn queued(&mut self, id: TaskId, told: &mut [Option<&Op>], entry: &Entry<'_>) -> Vec<Look> {
        let asked = entry.submits.get(&id);
        let found = told.iter_mut().find_map(|op| {
            let submit = submit_of((*op)?).filter(|submit| is_of(submit, asked))?;
            op.take();
            Some(submit)
        });
        let Some((user, submit, placed)) = found else {
            let what = format!("nobody submitted {id} there");
            return vec![Look::Broken("I1 a task is what was submitted", what)];
        };
        let (class, namespace) = (submit.spec.class(), submit.spec.namespace.clone());
        let space = self.spaces.entry(namespace.clone()).or_default();
        let look = look(WAITS, space.max_queued, &space.queued, || {
            format!("{id} of {namespace} is taken")
        });
        space.queued.insert(id);
        let known = Known {
            namespace,
            user: user.to_owned(),
            class,
            need: submit.spec.need().into(),
            is_preemptible: submit.spec.preemptible,
            queued: entry.index,
        };
        self.tasks.insert(id, known);
        // One whose placement was refused waits, and its turn had come.
        if !placed {
            self.waiting.insert((class, id));
        }
        look.into_iter().collect()
    }

    fn assigned(&mut self, id: TaskId, agent: &AgentId, entry: &Entry<'_>) -> Vec<Look> {
        let Some(known) = self.tasks.get(&id) else {
            return Vec::new();
        };
        self.waiting.remove(&(known.class, id));
        let mut looks = self.order(id, known, entry);
        looks.extend(required(id, agent, &known.need.require));
        let namespace = known.namespace.clone();
        looks.push(match self.by_hand.assigned(id, agent, &namespace) {
            None => Look::Kept(BY_HAND),
            Some(what) => Look::Broken(BY_HAND, what),
        });
        let space = self.spaces.entry(namespace.clone()).or_default();
        space.served = true;
        space.queued.remove(&id);
        looks.extend(look(RUNS, space.max_running, &space.running, || {
            format!("{id} of {namespace} is assigned")
        }));
        space.running.insert(id);
        looks
    }

    /// Whether one is passed over that was there when this was planned, and whose own turn had not come.
    fn order(&self, id: TaskId, known: &Known, entry: &Entry<'_>) -> Vec<Look> {
        let Some(plan) = entry.plans.of.get(&id) else {
            return Vec::new();
        };
        let young = entry.plans.young.get(&id);
        let was_there = |other: &TaskId| {
            let it = self.tasks.get(other)?;
            if it.need != known.need || young.is_some_and(|young| young.contains(other)) {
                return None;
            }
            let planned = entry.plans.of.get(other);
            let waited = it.queued <= plan.as_of && planned.is_none_or(|it| it.first > plan.last);
            let held_up = it.namespace != known.namespace
                && (self.spaces.get(&it.namespace)?.max_running > 0
                    || self
                        .by_hand
                        .tell_apart(&it.namespace, &known.namespace, plan.as_of));
            (waited && !held_up).then_some(it)
        };
        let higher = self
            .waiting
            .range(..(known.class, TaskId(0)))
            .filter(|(_, other)| self.asks_alike(other, known))
            .take(COMPARED);
        let older = self
            .waiting
            .range((known.class, TaskId(0))..(known.class, id))
            .filter(|(_, other)| self.asks_alike(other, known) && self.is_same(other, known))
            .take(COMPARED);
        let passed = higher
            .chain(older)
            .find(|(_, other)| was_there(other).is_some());
        let mut looks = vec![match passed {
            None => Look::Kept(ORDER),
            Some((class, other)) => {
                let what = format!("{id} ({}) goes while {other} ({class}) waits", known.class);
                Look::Broken(ORDER, what)
            }
        }];
        looks.extend(self.fresh(id, known, (entry.plans, *plan), was_there));
        looks
    }

    fn asks_alike(&self, other: &TaskId, known: &Known) -> bool {
        let other = self.tasks.get(other);
        other.is_some_and(|it| it.need == known.need)
    }

    fn is_same(&self, other: &TaskId, known: &Known) -> bool {
        let other = self.tasks.get(other);
        other.is_some_and(|it| it.namespace == known.namespace && it.user == known.user)
    }

    /// One of a namespace that has used something goes: none waits of one that has used nothing.
    fn fresh<'s>(
        &'s self,
        id: TaskId,
        known: &Known,
        (plans, plan): (&Plans, Plan),
        was_there: impl Fn(&TaskId) -> Option<&'s Known>,
    ) -> Option<Look> {
        let own = self.spaces.get(&known.namespace)?;
        // Who asks for much may have had an agent kept free for it.
        if !own.had_used(plan.as_of) || !known.need.demand.is_nothing() {
            return None;
        }
        let class = (known.class, TaskId(0))..=(known.class, TaskId(u64::MAX));
        let first = self.waiting.range(class).find(|(_, other)| {
            was_there(other).is_some_and(|it| {
                let first = plans.first_of.get(&it.namespace);
                let unused = self.spaces.get(&it.namespace).is_some_and(|it| !it.served);
                unused && first.is_none_or(|first| *first > plan.last)
            })
        });
        Some(match first {
            None => Look::Kept(SHARE),
            Some((_, other)) => {
                let of = self.tasks.get(other).map(|it| it.namespace.to_string());
                let what = format!(
                    "{id} of {} goes while {other} of {of:?} waits",
                    known.namespace
                );
                Look::Broken(SHARE, what)
            }
        })
    }

    fn preempted(&self, id: TaskId, by: TaskId) -> Look {
        let known = (self.tasks.get(&id), self.tasks.get(&by));
        match known {
            (Some(victim), Some(winner))
                if victim.is_preemptible && winner.class < victim.class =>
            {
                Look::Kept(PREEMPTS)
            }
            _ => Look::Broken(PREEMPTS, format!("{id} yields to {by}")),
        }
    }

    fn again(&mut self, id: TaskId) {
        if let Some(space) = self.space_of(id) {
            space.queued.insert(id);
        }
    }

    fn over(&mut self, fence: Fence, index: u64, ran: Option<u64>) {
        self.by_hand.over(fence.task);
        let charged = self.charged_from.is_some_and(|from| from < fence.epoch.0);
        if let Some(space) = self.space_of(fence.task) {
            space.running.remove(&fence.task);
            let ran = ran.filter(|_| charged);
            space.used.extend(ran.map(|ran| (index, ran)));
        }
    }

    fn left(&mut self, id: TaskId) {
        if let Some(known) = self.tasks.get(&id) {
            self.waiting.remove(&(known.class, id));
        }
        if let Some(space) = self.space_of(id) {
            space.running.remove(&id);
            space.queued.remove(&id);
        }
    }

    fn set(&mut self, namespace: &Namespace, told: &mut [Option<&Op>]) {
        let space = self.spaces.entry(namespace.clone()).or_default();
        let running = space.running.len();
        // One that is less than what runs is refused.
        let fits = |said: &&SetNamespace| {
            let most = said.max_running.map_or(0, |most| most as usize);
            said.namespace == *namespace && (most == 0 || most >= running)
        };
        let said = told.iter_mut().find_map(|op| {
            let said = settings_of((*op)?).filter(fits)?;
            op.take();
            Some(said)
        });
        if let Some(said) = said {
            space.max_running = said.max_running.unwrap_or(space.max_running);
            space.max_queued = said.max_queued.unwrap_or(space.max_queued);
        }
    }

    fn space_of(&mut self, id: TaskId) -> Option<&mut Space> {
        let known = self.tasks.get(&id)?;
        self.spaces.get_mut(&known.namespace)
    }
}

/// One more, where there may be so many.
fn look(
    rule: &'static str,
    most: u32,
    now: &BTreeSet<TaskId>,
    what: impl FnOnce() -> String,
) -> Option<Look> {
    (most > 0).then(|| match now.len() < most as usize {
        true => Look::Kept(rule),
        false => Look::Broken(rule, format!("{} beside {} of {most}", what(), now.len())),
    })
}

/// An agent is given what requires something of it.
fn required(id: TaskId, agent: &AgentId, require: &[Expression]) -> Option<Look> {
    let lacking = require.iter().find(|it| !labels::meets(agent, it));
    (!require.is_empty()).then(|| match lacking {
        None => Look::Kept(LABELS),
        Some(lacking) => Look::Broken(LABELS, format!("{id} on {agent}, which is not `{lacking}`")),
    })
}

type Submitted<'o> = (&'o str, &'o Submit, bool);

fn submit_of(op: &Op) -> Option<Submitted<'_>> {
    match op {
        Op::Client {
            principal,
            command: Command::SubmitTask(submit),
            placement,
            ..
        } => Some((&principal.name, submit, placement.is_some())),
        Op::Client { .. } | Op::System(_) => None,
    }
}

/// Where it is not known any more what a task was made of, any submit may be it.
fn is_of((user, submit, _): &Submitted<'_>, asked: Option<&Asked>) -> bool {
    let request = submit.request_id.as_ref().map(|id| id.0.as_str());
    asked.is_none_or(|asked| {
        asked.user == *user && asked.request.as_deref() == request && *asked.spec == submit.spec
    })
}

fn settings_of(op: &Op) -> Option<&SetNamespace> {
    match op {
        Op::Client {
            command: Command::SetNamespace(said),
            ..
        } => Some(said),
        Op::Client { .. } | Op::System(_) => None,
    }
}
