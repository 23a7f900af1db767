//! What one agent holds, and whether it may hold more.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{AgentProfile, Demand, Incarnation, PREFETCH_MAX, TaskId, TaskSpec};

use crate::checkers::violation::Kind;

#[derive(Debug)]
pub struct Machine {
    pub profile: AgentProfile,
    pub is_lost: bool,
    pub is_closed: bool,
    pub held: BTreeMap<TaskId, Option<Arc<TaskSpec>>>,
    /// What has to end, and for which task: it takes what it has until it has ended.
    yielding: BTreeMap<TaskId, (Option<Arc<TaskSpec>>, TaskId)>,
}

impl Machine {
    pub fn new(profile: &AgentProfile) -> Machine {
        Machine {
            profile: profile.clone(),
            is_lost: false,
            is_closed: false,
            held: BTreeMap::new(),
            yielding: BTreeMap::new(),
        }
    }

    /// Whether it held it. What yielded to that one yields to the other then.
    pub fn yields(&mut self, task: TaskId, by: TaskId) -> bool {
        let Some(spec) = self.held.remove(&task) else {
            return false;
        };
        for (_, to) in self.yielding.values_mut() {
            if *to == task {
                *to = by;
            }
        }
        self.yielding.insert(task, (spec, by));
        true
    }

    pub fn free(&mut self, task: TaskId) {
        self.held.remove(&task);
        self.yielding.remove(&task);
    }

    /// What has to end has beyond who gets its place, all together; what that one has itself counts anyway.
    fn left_over(&self, id: TaskId, of: fn(&Demand) -> u64) -> u64 {
        let mut groups: BTreeMap<TaskId, u64> = BTreeMap::new();
        for (spec, by) in self.yielding.values() {
            let amount = spec.as_ref().map_or(0, |spec| of(&spec.demand()));
            *groups.entry(*by).or_default() += amount;
        }
        let over = groups.into_iter().filter(|(by, _)| *by != id);
        let over = over.map(|(by, amount)| {
            let its = self.held.get(&by).and_then(Option::as_ref);
            amount.saturating_sub(its.map_or(0, |spec| of(&spec.demand())))
        });
        over.sum()
    }

    /// Of what it has it gives no more than all; of GPUs as many as are asked for as a whole, and their memory together.
    fn has_given(&self, id: TaskId, demand: &Demand) -> Option<String> {
        let supply = self.profile.supply.as_ref()?;
        let held = || self.held.values().flatten().map(|spec| spec.demand());
        let sum = |of: fn(&Demand) -> u64| held().map(|it| of(&it)).sum::<u64>();
        let share = |it: &Demand| if it.gpus == 0 { it.vram_mib } else { 0 };
        let all: [(&str, u64, u64, u64); 4] = [
            (
                "thousandths of a processor",
                sum(|it| it.cpu_milli.into()) + self.left_over(id, |it| it.cpu_milli.into()),
                demand.cpu_milli.into(),
                supply.cpu_milli.into(),
            ),
            (
                "MiB of memory",
                sum(|it| it.memory_mib) + self.left_over(id, |it| it.memory_mib),
                demand.memory_mib,
                supply.memory_mib,
            ),
            (
                "GPUs",
                sum(|it| it.gpus.into()),
                demand.gpus.into(),
                supply.gpus.len() as u64,
            ),
            (
                "MiB of its GPUs' memory",
                held().map(|it| share(&it)).sum(),
                share(demand),
                supply.gpus.iter().sum(),
            ),
        ];
        let mut over = all
            .into_iter()
            .filter(|(_, given, more, all)| *more > 0 && given + more > *all);
        over.next().map(|(what, given, more, all)| {
            format!("which had given {given} {what} of {all}, and was asked for {more}")
        })
    }

    pub fn may_take(
        &self,
        id: TaskId,
        spec: Option<&TaskSpec>,
        incarnation: Incarnation,
    ) -> Vec<(Kind, String)> {
        let agent = &self.profile.id;
        let mut wrong = Vec::new();
        let mut note =
            |kind, why: String| wrong.push((kind, format!("{id} was assigned to {agent}, {why}")));
        if self.is_lost {
            note(Kind::OnLost, "whose lease had run out".to_owned());
        }
        if self.is_closed {
            note(Kind::OnCordoned, "which takes no new work".to_owned());
        }
        if self.profile.incarnation != incarnation {
            let is = self.profile.incarnation;
            note(
                Kind::OtherIncarnation,
                format!("incarnation {incarnation}, while {is} is registered"),
            );
        }
        let capacity = u64::from(self.profile.slots) + u64::from(PREFETCH_MAX);
        let held = self.held.len() as u64;
        if held >= capacity {
            note(
                Kind::OverCapacity,
                format!("which held {held} of {capacity} already"),
            );
        }
        if let Some(given) = spec.and_then(|spec| self.has_given(id, &spec.demand())) {
            note(Kind::OverCapacity, given);
        }
        let require = spec.map_or(&[][..], |spec| &spec.require);
        if let Some(lacks) = require.iter().find(|it| !it.matches(&self.profile)) {
            note(Kind::OnUnfit, format!("which does not satisfy `{lacks}`"));
        }
        if let Some(Err(reason)) = spec.map(|spec| self.profile.understands(spec)) {
            note(Kind::OnUnfit, format!("which can't run it: {reason}"));
        }
        wrong
    }
}
