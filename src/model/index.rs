//! Indexes: what is queued, who holds what, what ends when, how many bytes are kept. They follow
//! from the tables, stay outside the hash, and are rebuilt when a snapshot is installed.
//!
//! Queued tasks stand by requirement, kind and tenant. Those with the same requirement fit the same agents, and those of the
//! same kind and namespace obey the same rules, so a round that finds nobody for one of them passes over all of them at
//! once, however many there are; and whose turn it is among tenants is found by looking at each of them once, not at their
//! tasks.

use std::cmp::{Ordering, Reverse};
use std::sync::Arc;

use equivalent::{Comparable, Equivalent};
use imbl::{OrdMap, OrdSet};

use crate::blob::{Blob, BlobDigest};
use crate::class::Class;
use crate::id::{AgentId, Epoch, Incarnation, Namespace, TaskId};
use crate::label::Expression;
use crate::mix::Mix;
use crate::resource::{Demand, Need, Taken};
use crate::share::{Price, Tenant};
use crate::spec::{Kind, TaskSpec};
use crate::task::{Attempt, Phase, StateName, Task};
use crate::time::Timestamp;

/// What tasks of a queue ask of an agent: see [`Need`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Requirement {
    pub demand: Demand,
    pub require: Arc<[Expression]>,
}

impl Requirement {
    pub fn need(&self) -> Need<'_> {
        Need {
            require: &self.require,
            demand: self.demand,
        }
    }
}

impl From<Need<'_>> for Requirement {
    fn from(need: Need<'_>) -> Requirement {
        Requirement {
            require: need.require.into(),
            demand: need.demand,
        }
    }
}

/// What a queue is found by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct QueueKey {
    pub requirement: Requirement,
    pub kind: Kind,
    pub tenant: Tenant,
}

impl QueueKey {
    pub fn of(spec: &TaskSpec, tenant: Tenant) -> QueueKey {
        QueueKey {
            requirement: spec.need().into(),
            kind: spec.kind(),
            tenant,
        }
    }
}

/// The same without a requirement of its own: a key is allocated only for a new queue.
struct Probe<'a>(Need<'a>, Kind, &'a Tenant);

impl<'a> Probe<'a> {
    fn of(spec: &'a TaskSpec, tenant: &'a Tenant) -> Probe<'a> {
        Probe(spec.need(), spec.kind(), tenant)
    }
}

impl Equivalent<QueueKey> for Probe<'_> {
    fn equivalent(&self, key: &QueueKey) -> bool {
        self.compare(key).is_eq()
    }
}

impl Comparable<QueueKey> for Probe<'_> {
    fn compare(&self, key: &QueueKey) -> Ordering {
        let by_need = self.0.cmp(&key.requirement.need());
        by_need.then_with(|| (self.1, self.2).cmp(&(key.kind, &key.tenant)))
    }
}

/// What a tenant has in the cluster now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub queued: u64,
    /// Live attempts.
    pub live: u32,
    /// Those of them whose beginning is known, and the sums of their beginnings, their prices in thousandths, each beginning
    /// times its price, and what was charged for them.
    timed: u32,
    since: u128,
    prices: u128,
    priced_since: u128,
    reserved: u128,
}

impl Tally {
    fn add(&mut self, task: &Task, spec: &TaskSpec) {
        match (&task.phase, task.live()) {
            (Phase::Queued { .. }, _) => self.queued = self.queued.saturating_add(1),
            (_, Some(attempt)) => self.begin(attempt, spec.price()),
            (_, None) => {}
        }
    }

    fn remove(&mut self, task: &Task, spec: &TaskSpec) {
        match (&task.phase, task.live()) {
            (Phase::Queued { .. }, _) => self.queued = self.queued.saturating_sub(1),
            (_, Some(attempt)) => self.end(attempt, spec.price()),
            (_, None) => {}
        }
    }

    fn begin(&mut self, attempt: &Attempt, price: Price) {
        self.live = self.live.saturating_add(1);
        if attempt.since.0 > 0 {
            self.timed = self.timed.saturating_add(1);
            let (since, price) = (u128::from(attempt.since.0), u128::from(price.milli()));
            self.since = self.since.saturating_add(since);
            self.prices = self.prices.saturating_add(price);
            self.priced_since = self.priced_since.saturating_add(since * price);
            self.reserved = self.reserved.saturating_add(attempt.reserved.into());
        }
    }

    fn end(&mut self, attempt: &Attempt, price: Price) {
        self.live = self.live.saturating_sub(1);
        if attempt.since.0 > 0 {
            self.timed = self.timed.saturating_sub(1);
            let (since, price) = (u128::from(attempt.since.0), u128::from(price.milli()));
            self.since = self.since.saturating_sub(since);
            self.prices = self.prices.saturating_sub(price);
            self.priced_since = self.priced_since.saturating_sub(since * price);
            self.reserved = self.reserved.saturating_sub(attempt.reserved.into());
        }
    }

    /// What they have taken until now, all together: one whose beginning is not known as much as the others on average.
    pub fn running(&self, now: Timestamp) -> u64 {
        let all = self.priced_age(now) / u128::from(Price::ONE.milli());
        let all = all.saturating_mul(self.live.into()) / u128::from(self.timed.max(1));
        u64::try_from(all).unwrap_or(u64::MAX)
    }

    /// What they claim beyond what was charged for them: one that outlasts it counts as if it had run for twice as long.
    pub fn overdue(&self, now: Timestamp) -> u64 {
        self.running(now)
            .saturating_mul(2)
            .saturating_sub(self.reserved())
    }

    /// What was charged for its live attempts.
    pub fn reserved(&self) -> u64 {
        u64::try_from(self.reserved).unwrap_or(u64::MAX)
    }

    /// For how long its live attempts have held their slots on average, in milliseconds.
    pub fn average_age(&self, now: Timestamp) -> u64 {
        let until = u128::from(self.timed).saturating_mul(now.0.into());
        let all = until.saturating_sub(self.since);
        u64::try_from(all / u128::from(self.timed.max(1))).unwrap_or(u64::MAX)
    }

    /// The same where one of twice the price counts twice.
    pub fn average_age_by_price(&self, now: Timestamp) -> u64 {
        u64::try_from(self.priced_age(now) / self.prices.max(1)).unwrap_or(u64::MAX)
    }

    /// The sum of the ages of those whose beginning is known, each times its price in thousandths.
    fn priced_age(&self, now: Timestamp) -> u128 {
        let until = self.prices.saturating_mul(now.0.into());
        until.saturating_sub(self.priced_since)
    }
}

/// The queued tasks of one requirement, kind and tenant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Free to go now: by class, then age.
    pub ready: OrdSet<(Class, TaskId)>,
    /// Not before this state time: the earliest first.
    pub delayed: OrdSet<(Timestamp, TaskId)>,
}

/// A live attempt that may be preempted: whose class is lowest comes first, then whose epoch is highest.
pub type Preemptible = (Reverse<Class>, Reverse<(Epoch, TaskId)>);

/// Everything that would otherwise need a scan of all records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Index {
    /// Queued tasks; no queue is empty. Those that ask for something beyond a slot stand behind all others.
    pub queues: OrdMap<QueueKey, Waiting>,
    /// Those who have tasks that wait or run, and their namespaces.
    pub tenants: OrdMap<Tenant, Tally>,
    pub namespaces: OrdMap<Namespace, Tally>,
    /// Tasks that were never assigned, and fail if they are not by then.
    pub deadlines: OrdSet<(Timestamp, TaskId)>,
    /// The tasks whose live attempt an agent holds, by its incarnation; none of them is empty.
    pub held: OrdMap<AgentId, OrdMap<Incarnation, OrdSet<TaskId>>>,
    /// What the live attempts of an agent take of it beyond slots; never of nothing.
    pub taken: OrdMap<AgentId, Taken>,
    /// What agents hold, by sort; none is empty.
    pub mixes: OrdMap<AgentId, Arc<Mix>>,
    /// The tasks whose live attempt yields to another one; none is empty.
    pub yielding: OrdMap<AgentId, OrdSet<TaskId>>,
    /// What may be preempted, by agent: nothing that is being ended already. None is empty.
    pub preemptible: OrdMap<AgentId, OrdSet<Preemptible>>,
    /// Finished tasks by the state time of their end.
    pub ended: OrdSet<(Timestamp, TaskId)>,
    /// Ended, but a person or a late result may still change them: by the same time.
    pub undecided: OrdSet<(Timestamp, TaskId)>,
    pub counts: OrdMap<StateName, u64>,
    /// Queued tasks by class, in the order of [`Class::ALL`].
    pub waiting: [u64; Class::ALL.len()],
    /// Bytes of all specs and results.
    pub kept_bytes: u64,
    /// The blobs whose last mention in the archive is in a segment; none of them is empty.
    pub mentioned: OrdMap<u64, OrdSet<BlobDigest>>,
    /// Bytes of all blobs, and of those that only the archive names.
    pub blob_bytes: u64,
    pub archived_blob_bytes: u64,
}

impl Index {
    pub fn add(&mut self, task: &Task, spec: &TaskSpec) {
        self.put(task, spec);
        if counts(task) {
            self.tally(&task.tenant(spec), |tally| tally.add(task, spec));
        }
    }

    pub fn remove(&mut self, task: &Task, spec: &TaskSpec) {
        self.take_out(task, spec);
        if counts(task) {
            self.tally(&task.tenant(spec), |tally| tally.remove(task, spec));
        }
    }

    /// A task changes, and its spec stays.
    pub fn replace(&mut self, old: &Task, new: &Task, spec: &TaskSpec) {
        self.take_out(old, spec);
        self.put(new, spec);
        if counts(old) || counts(new) {
            self.tally(&new.tenant(spec), |tally| {
                tally.remove(old, spec);
                tally.add(new, spec);
            });
        }
    }

    fn put(&mut self, task: &Task, spec: &TaskSpec) {
        change(&mut self.counts, &task.state(), |count| *count += 1);
        match &task.phase {
            Phase::Queued { not_before, .. } => {
                self.enqueue(task, *not_before, spec);
                if let Some(deadline) = open_deadline(task) {
                    self.deadlines.insert((deadline, task.id));
                }
            }
            Phase::Assigned { attempt, cancel } => {
                change(&mut self.held, &attempt.agent, |incarnations| {
                    change(incarnations, &attempt.incarnation, |held| {
                        held.insert(task.id)
                    })
                });
                self.take(attempt, spec);
                if attempt.preempted_by.is_some() {
                    add_to(&mut self.yielding, &attempt.agent, task.id);
                } else if spec.preemptible && cancel.is_none() {
                    let place = place_among_preemptible(task, attempt);
                    add_to(&mut self.preemptible, &attempt.agent, place);
                }
            }
            Phase::Succeeded | Phase::Failed { .. } | Phase::Cancelled(_) => {
                self.ended.insert((task.ended.unwrap_or_default(), task.id));
            }
            Phase::Unknown { .. } | Phase::DeadLetter { .. } => {
                let ended = task.ended.unwrap_or_default();
                self.undecided.insert((ended, task.id));
            }
        }
    }

    fn take_out(&mut self, task: &Task, spec: &TaskSpec) {
        if let Some(count) = self.counts.get_mut(&task.state()) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.counts.remove(&task.state());
            }
        }
        match &task.phase {
            Phase::Queued { not_before, .. } => {
                self.dequeue(task, *not_before, spec);
                if let Some(deadline) = open_deadline(task) {
                    self.deadlines.remove(&(deadline, task.id));
                }
            }
            Phase::Assigned { attempt, .. } => {
                self.release(&attempt.agent, attempt.incarnation, task.id);
                self.give_back(attempt, spec);
                remove_from(&mut self.yielding, &attempt.agent, &task.id);
                let place = place_among_preemptible(task, attempt);
                remove_from(&mut self.preemptible, &attempt.agent, &place);
            }
            Phase::Succeeded | Phase::Failed { .. } | Phase::Cancelled(_) => {
                self.ended
                    .remove(&(task.ended.unwrap_or_default(), task.id));
            }
            Phase::Unknown { .. } | Phase::DeadLetter { .. } => {
                let ended = task.ended.unwrap_or_default();
                self.undecided.remove(&(ended, task.id));
            }
        }
    }

    /// Changes the tallies of a tenant and of its namespace; one of nothing is not kept.
    fn tally(&mut self, tenant: &Tenant, change: impl Fn(&mut Tally)) {
        tally(&mut self.tenants, tenant, &change);
        tally(&mut self.namespaces, &tenant.namespace, &change);
    }

    pub fn queue(&self, spec: &TaskSpec, tenant: &Tenant) -> Option<&Waiting> {
        self.queues.get(&Probe::of(spec, tenant))
    }

    pub fn add_blob(&mut self, digest: BlobDigest, blob: &Blob) {
        self.blob_bytes += blob.size;
        if blob.held == 0 {
            self.archived_blob_bytes += blob.size;
        }
        if let Some(segment) = blob.segment {
            add_to(&mut self.mentioned, &segment, digest);
        }
    }

    pub fn remove_blob(&mut self, digest: BlobDigest, blob: &Blob) {
        self.blob_bytes = self.blob_bytes.saturating_sub(blob.size);
        if blob.held == 0 {
            self.archived_blob_bytes = self.archived_blob_bytes.saturating_sub(blob.size);
        }
        let Some(segment) = blob.segment else { return };
        if let Some(mentioned) = self.mentioned.get_mut(&segment) {
            mentioned.remove(&digest);
            if mentioned.is_empty() {
                self.mentioned.remove(&segment);
            }
        }
    }

    fn enqueue(&mut self, task: &Task, not_before: Option<Timestamp>, spec: &TaskSpec) {
        let tenant = task.tenant(spec);
        self.waiting[task.class as usize] += 1;
        if !self.queues.contains_key(&Probe::of(spec, &tenant)) {
            let key = QueueKey::of(spec, tenant.clone());
            self.queues.insert(key, Waiting::default());
        }
        if let Some(waiting) = self.queues.get_mut(&Probe::of(spec, &tenant)) {
            match not_before {
                Some(at) => drop(waiting.delayed.insert((at, task.id))),
                None => drop(waiting.ready.insert((task.class, task.id))),
            }
        }
    }

    fn dequeue(&mut self, task: &Task, not_before: Option<Timestamp>, spec: &TaskSpec) {
        let tenant = task.tenant(spec);
        let waiting = &mut self.waiting[task.class as usize];
        *waiting = waiting.saturating_sub(1);
        let probe = Probe::of(spec, &tenant);
        let Some(waiting) = self.queues.get_mut(&probe) else {
            return;
        };
        match not_before {
            Some(at) => drop(waiting.delayed.remove(&(at, task.id))),
            None => drop(waiting.ready.remove(&(task.class, task.id))),
        }
        if waiting.ready.is_empty() && waiting.delayed.is_empty() {
            self.queues.remove(&probe);
        }
    }

    fn take(&mut self, attempt: &Attempt, spec: &TaskSpec) {
        change(&mut self.mixes, &attempt.agent, |mix| {
            Arc::make_mut(mix).add(spec.sort());
        });
        let demand = spec.demand();
        if !demand.is_nothing() {
            change(&mut self.taken, &attempt.agent, |taken| {
                taken.add(&demand, &attempt.gpus);
            });
        }
    }

    fn give_back(&mut self, attempt: &Attempt, spec: &TaskSpec) {
        if let Some(mix) = self.mixes.get_mut(&attempt.agent) {
            let mix = Arc::make_mut(mix);
            mix.remove(&spec.sort());
            if mix.is_empty() {
                self.mixes.remove(&attempt.agent);
            }
        }
        let demand = &spec.demand();
        if let Some(taken) = self.taken.get_mut(&attempt.agent) {
            taken.remove(demand, &attempt.gpus);
            if taken.is_nothing() {
                self.taken.remove(&attempt.agent);
            }
        }
    }

    fn release(&mut self, agent: &AgentId, incarnation: Incarnation, task: TaskId) {
        let Some(incarnations) = self.held.get_mut(agent) else {
            return;
        };
        if let Some(held) = incarnations.get_mut(&incarnation) {
            held.remove(&task);
            if held.is_empty() {
                incarnations.remove(&incarnation);
            }
        }
        if incarnations.is_empty() {
            self.held.remove(agent);
        }
    }
}

/// Whether it is in its tenant's tally.
fn counts(task: &Task) -> bool {
    task.live().is_some() || matches!(task.phase, Phase::Queued { .. })
}

fn place_among_preemptible(task: &Task, attempt: &Attempt) -> Preemptible {
    (Reverse(task.class), Reverse((attempt.epoch, task.id)))
}

/// Changes what stands under a key; what is not there yet begins as its default. An entry of the map would look for it twice.
fn change<K: Ord + Clone, V: Clone + Default, T>(
    map: &mut OrdMap<K, V>,
    key: &K,
    change: impl FnOnce(&mut V) -> T,
) -> T {
    if let Some(value) = map.get_mut(key) {
        return change(value);
    }
    let mut value = V::default();
    let told = change(&mut value);
    map.insert(key.clone(), value);
    told
}

fn add_to<K: Ord + Clone, T: Ord + Clone>(sets: &mut OrdMap<K, OrdSet<T>>, key: &K, item: T) {
    change(sets, key, |set| set.insert(item));
}

fn remove_from<T: Ord + Clone>(sets: &mut OrdMap<AgentId, OrdSet<T>>, agent: &AgentId, item: &T) {
    if let Some(set) = sets.get_mut(agent) {
        set.remove(item);
        if set.is_empty() {
            sets.remove(agent);
        }
    }
}

fn tally<K: Ord + Clone>(tallies: &mut OrdMap<K, Tally>, key: &K, by: impl Fn(&mut Tally)) {
    let is_left = change(tallies, key, |tally| {
        by(tally);
        *tally != Tally::default()
    });
    if !is_left {
        tallies.remove(key);
    }
}

/// A deadline is for the first assignment: one that was met does not come back with a retry.
fn open_deadline(task: &Task) -> Option<Timestamp> {
    task.deadline.filter(|_| task.attempts == 0)
}
