//! What yields on an agent, and what that leaves for others.
//!
//! A process that has to end takes what it took until it has ended, and who gets its place begins only then. So the two never
//! use anything at the same time, and of what both take only the larger amount is gone; what the first had beyond that is
//! given to nobody before its end.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeMap;

use imbl::OrdSet;

use crate::class::Class;
use crate::id::{AgentId, Fence, TaskId};
use crate::index::Preemptible;
use crate::resource::{Demand, Taken};
use crate::state::State;

/// What attempts and the one that waits for their end take both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Overlap {
    slots: u32,
    cpu_milli: u64,
    memory_mib: u64,
}

impl State {
    /// Slots of an agent that are gone; its live attempts may be more.
    pub fn slots_taken(&self, agent: &AgentId) -> u32 {
        let overlap = self.overlap(agent).unwrap_or_default();
        self.busy(agent).saturating_sub(overlap.slots)
    }

    /// What is gone of an agent beyond slots; `None`: nothing.
    pub fn gone(&self, agent: &AgentId) -> Option<Cow<'_, Taken>> {
        let taken = self.taken(agent)?;
        Some(match self.overlap(agent) {
            None => Cow::Borrowed(taken),
            Some(overlap) => {
                let mut gone = taken.clone();
                gone.cpu_milli = gone.cpu_milli.saturating_sub(overlap.cpu_milli);
                gone.memory_mib = gone.memory_mib.saturating_sub(overlap.memory_mib);
                Cow::Owned(gone)
            }
        })
    }

    /// The attempts on an agent that have to end before this task begins there.
    pub fn yielding_to(&self, agent: &AgentId, task: TaskId) -> impl Iterator<Item = Fence> {
        let live = self.task(task).and_then(|task| task.live());
        let incarnation = live.map(|live| live.incarnation);
        let yielding = self.yielding(agent);
        yielding.filter_map(move |(id, by)| {
            let live = self.task(id)?.live()?;
            let is_for_it = by == task && Some(live.incarnation) == incarnation;
            is_for_it.then(|| self.live_fence(id)).flatten()
        })
    }

    /// What may be preempted on an agent, in the order in which it is: of the lowest class first, then what began last.
    pub fn preemptible_on(&self, agent: &AgentId) -> impl Iterator<Item = &Preemptible> {
        self.index.preemptible.get(agent).into_iter().flatten()
    }

    /// The lowest class of what may be preempted on each agent where there is something.
    pub fn preemptible(&self) -> impl Iterator<Item = (&AgentId, Class)> {
        let first = |set: &OrdSet<Preemptible>| set.get_min().map(|(Reverse(class), _)| *class);
        let all = self.index.preemptible.iter();
        all.filter_map(move |(agent, set)| Some((agent, first(set)?)))
    }

    /// Whether a task of a higher class is queued, be it for later.
    pub fn any_waits_above(&self, class: Class) -> bool {
        self.index.waiting[..class as usize]
            .iter()
            .any(|it| *it > 0)
    }

    /// Those that yield on an agent, each with the task to which it does.
    pub(crate) fn yielding(&self, agent: &AgentId) -> impl Iterator<Item = (TaskId, TaskId)> {
        let yielding = self.index.yielding.get(agent).into_iter().flatten();
        yielding.filter_map(|id| Some((*id, self.task(*id)?.live()?.preempted_by?)))
    }

    fn overlap(&self, agent: &AgentId) -> Option<Overlap> {
        self.index.yielding.get(agent)?;
        let mut groups: BTreeMap<TaskId, (u64, u64)> = BTreeMap::new();
        let held = |id| {
            let live = self.task(id).and_then(|task| task.live());
            live.filter(|live| live.agent == *agent)
                .map(|live| live.incarnation)
        };
        // What another incarnation holds this one does not know, and waits for nothing of it.
        let waited_for = self
            .yielding(agent)
            .filter(|(id, by)| held(*id) == held(*by));
        for (id, by) in waited_for {
            let demand = self.demand(id);
            let (cpu_milli, memory_mib) = groups.entry(by).or_default();
            *cpu_milli += u64::from(demand.cpu_milli);
            *memory_mib += demand.memory_mib;
        }
        let mut all = Overlap::default();
        for (winner, (cpu_milli, memory_mib)) in groups {
            let demand = self.demand(winner);
            all.slots += 1;
            all.cpu_milli += cpu_milli.min(demand.cpu_milli.into());
            all.memory_mib += memory_mib.min(demand.memory_mib);
        }
        Some(all)
    }

    fn demand(&self, task: TaskId) -> Demand {
        let spec = self.specs.get(&task);
        spec.map_or_else(Demand::default, |spec| spec.demand())
    }
}
