//! A queued task gets an agent. The plan may be stale by now, so everything is checked again, and
//! the epoch is the index of this entry.

use std::borrow::Cow;
use std::sync::Arc;

use mutant::Mutant;

use crate::agent::{Agent, AgentState};
use crate::apply::{Outcome, Step};
use crate::backend::Asking;
use crate::command::{Assignment, Placement, Reply};
use crate::event::Event;
use crate::id::{AgentId, Epoch, Fence};
use crate::limit;
use crate::mix::Mix;
use crate::rejected::Rejected;
use crate::resource::{self, Demand, Gpus, Taken};
use crate::spec::TaskSpec;
use crate::state::State;
use crate::task::{Attempt, Phase, Task};
use crate::time::Timestamp;
use crate::trace::Reason;

impl State {
    pub(super) fn assign(&mut self, assignment: Assignment, step: &mut Step<'_>) -> Outcome {
        let Assignment {
            task: id,
            placement,
        } = assignment;
        let task = self.tasks.get(&id).ok_or(Rejected::NoSuchTask(id))?;
        let mut task = task.clone();
        self.place(&mut task, placement, step)?;
        self.write_task(task);
        Ok(Reply::Done)
    }

    /// Gives a task its agent where that is possible; else the task is as it was. Writing it is the caller's.
    pub(super) fn place(
        &mut self,
        task: &mut Task,
        placement: Placement,
        step: &mut Step<'_>,
    ) -> Result<(), Rejected> {
        let spec = self.specs.shared(&task.id);
        let spec = spec.as_deref();
        let gpus = self.admit((task, spec), &placement, &[], step)?;
        self.begin((task, spec), placement, gpus, step);
        Ok(())
    }

    /// Whether it may have its place, were these attempts of the agent gone, and which of its GPUs it gets.
    pub(super) fn admit(
        &self,
        (task, spec): (&Task, Option<&TaskSpec>),
        placement: &Placement,
        leaving: &[Task],
        step: &Step<'_>,
    ) -> Result<Gpus, Rejected> {
        assignable(task, step)?;
        let agent = self.agents.get(&placement.agent);
        let agent = agent.ok_or_else(|| Rejected::NoSuchAgent(placement.agent.clone()))?;
        self.accepts(agent, spec, (placement, leaving), step.now)
    }

    /// Gives a task its place. Writing it is the caller's.
    pub(super) fn begin(
        &mut self,
        (task, spec): (&mut Task, Option<&TaskSpec>),
        placement: Placement,
        gpus: Gpus,
        step: &mut Step<'_>,
    ) {
        let Placement {
            agent,
            incarnation,
            trace,
            estimate,
        } = placement;
        let epoch = match mutant::is(Mutant::EpochNotTheIndex) {
            true => u64::from(task.attempts) + 1,
            false => step.index,
        };
        let charged = spec.map(|spec| (task.tenant(spec), spec.price()));
        let reserved = charged.map_or(0, |(tenant, price)| {
            self.reserve(tenant, (task.class, task.id), price, step.now)
        });
        let attempt = Arc::new(Attempt {
            agent: agent.clone(),
            incarnation,
            epoch: Epoch(epoch),
            since: match reserved {
                0 => Timestamp::default(),
                _ => step.now,
            },
            reserved,
            gpus,
            estimate,
            preempted_by: None,
        });
        task.attempts = task.attempts.saturating_add(1);
        task.last_index = step.index;
        task.latest = Some(Arc::clone(&attempt));
        task.trace = Some(trace);
        task.phase = Phase::Assigned {
            attempt,
            cancel: None,
        };
        step.events.push(Event::TaskAssigned {
            fence: Fence {
                task: task.id,
                generation: self.meta.generation,
                epoch: Epoch(epoch),
            },
            agent,
            incarnation,
        });
    }

    /// How much of its models an agent's attempts ask, but for these.
    fn asking_without(&self, agent: &Agent, leaving: &[Task]) -> Asking {
        let mut asking = self.asking(agent);
        let leave = leaving.iter().filter_map(|task| self.specs.get(&task.id));
        for inference in leave.filter_map(|spec| spec.inference.as_ref()) {
            if let Some(count) = asking.get_mut(&inference.model) {
                *count = count.saturating_sub(1);
            }
        }
        asking
    }

    /// What they take of it beyond slots, but for these.
    fn gone_without(&self, agent: &AgentId, leaving: &[Task]) -> Option<Cow<'_, Taken>> {
        let mut gone = self.gone(agent)?;
        for task in leaving {
            if let (Some(spec), Some(attempt)) = (self.specs.get(&task.id), task.live()) {
                gone.to_mut().remove(&spec.demand(), &attempt.gpus);
            }
        }
        Some(gone)
    }

    /// How many of each sort it holds, but for these.
    fn mix_without(&self, agent: &AgentId, leaving: &[Task]) -> Option<Cow<'_, Mix>> {
        let mut mix = self.mix(agent).map(Cow::Borrowed)?;
        for spec in leaving.iter().filter_map(|task| self.specs.get(&task.id)) {
            mix.to_mut().remove(&spec.sort());
        }
        Some(mix)
    }

    /// Whether it may have the task, and which of its GPUs the attempt gets.
    fn accepts(
        &self,
        agent: &Agent,
        spec: Option<&TaskSpec>,
        (placement, leaving): (&Placement, &[Task]),
        now: Timestamp,
    ) -> Result<Gpus, Rejected> {
        let stale = |why: &str| Rejected::Stale(format!("agent {} {why}", placement.agent));
        if agent.state != AgentState::Ready {
            return Err(stale("is lost"));
        }
        if let Err(reason) = agent.is_open()
            && !mutant::is(Mutant::CordonIgnored)
        {
            return Err(stale(&format!("takes no new work: {reason}")));
        }
        if agent.profile.incarnation != placement.incarnation {
            return Err(stale("has another incarnation"));
        }
        let capacity = agent.profile.slots.saturating_add(limit::PREFETCH_MAX);
        let left = u32::try_from(leaving.len()).unwrap_or(u32::MAX);
        let taken = self.slots_taken(&placement.agent).saturating_sub(left);
        if taken >= capacity && !mutant::is(Mutant::CapacityUnchecked) {
            return Err(stale("is full"));
        }
        if !spec.is_some_and(|spec| agent.profile.satisfies(&spec.require))
            && !mutant::is(Mutant::LabelsUnchecked)
        {
            return Err(stale("does not satisfy what the task requires"));
        }
        if spec.is_some_and(|spec| self.running_left(&spec.namespace) == Some(0))
            && !mutant::is(Mutant::RunningQuotaUnchecked)
        {
            return Err(Rejected::Stale(
                "the quota of its namespace is used up".into(),
            ));
        }
        let understood = spec.map_or(Ok(()), |spec| agent.profile.understands(spec));
        understood.map_err(|reason| stale(&format!("can't run it: {reason}")))?;
        if let Some(spec) = spec
            && !mutant::is(Mutant::RulesUnchecked)
        {
            let mix = self.mix_without(&placement.agent, leaving);
            let admitted = self.rules_admit(agent, spec, now, mix.as_deref());
            admitted.map_err(|reason| stale(&format!("may not have it: {reason}")))?;
        }
        let full = |reason: Reason| stale(&format!("has no room for it: {reason}"));
        if let Some(inference) = spec.and_then(|spec| spec.inference.as_ref()) {
            let asking = self.asking_without(agent, leaving);
            let room = self.asks_room(agent, &inference.model, &asking);
            room.map_err(full)?;
        }
        let gone = match mutant::is(Mutant::ResourcesUnchecked) {
            true => None,
            false => self.gone_without(&placement.agent, leaving),
        };
        let demand = spec.map_or_else(Demand::default, TaskSpec::demand);
        resource::room(agent.profile.supply.as_ref(), gone.as_deref(), &demand).map_err(full)
    }
}

/// Whether a task may be assigned now. One entry assigns a task at most once: its epoch would not
/// be its own otherwise.
fn assignable(task: &Task, step: &Step<'_>) -> Result<(), Rejected> {
    let Phase::Queued { not_before, .. } = &task.phase else {
        return Err(Rejected::Stale(format!(
            "task {} is {}",
            task.id,
            task.state().as_str()
        )));
    };
    if not_before.is_some_and(|at| at > step.now) {
        return Err(Rejected::Stale(format!(
            "task {} waits for its retry",
            task.id
        )));
    }
    if task
        .latest
        .as_ref()
        .is_some_and(|attempt| attempt.epoch.0 >= step.index)
    {
        return Err(Rejected::Stale(format!(
            "task {} was assigned in this entry",
            task.id
        )));
    }
    Ok(())
}
