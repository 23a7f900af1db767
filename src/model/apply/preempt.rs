//! A queued task gets the place of others that run, in one operation: it is assigned, and they yield, or nothing of both.
//!
//! The process of what yields may run on for as long as it takes to end it. So its task is queued again only once its agent
//! has reported the end (or was lost), as with a cancel; the agent begins the other task only then; and nobody else gets
//! before that what the first has and the second does not need.

use std::collections::BTreeSet;
use std::sync::Arc;

use mutant::Mutant;

use crate::apply::{Outcome, Step};
use crate::command::{Placement, Preemption, Reply, Victim};
use crate::event::Event;
use crate::id::{Fence, TaskId};
use crate::limit;
use crate::rejected::Rejected;
use crate::state::State;
use crate::task::{Attempt, Phase, Task};

impl State {
    pub(super) fn preempt(&mut self, preemption: Preemption, step: &mut Step<'_>) -> Outcome {
        let Preemption {
            victims,
            assignment,
        } = preemption;
        let id = assignment.task;
        let mut winner = self.tasks.get(&id).ok_or(Rejected::NoSuchTask(id))?.clone();
        let on = &assignment.placement.agent;
        let agent = self.agents.get(on);
        let agent = agent.ok_or_else(|| Rejected::NoSuchAgent(on.clone()))?;
        if agent.profile.awaits_ends().is_err() {
            let why = format!("agent {on} is too old to await the end of what is preempted");
            return Err(Rejected::Stale(why));
        }
        let told: BTreeSet<Victim> = victims.iter().copied().collect();
        if victims.is_empty() || told.len() < victims.len() || victims.len() > limit::VICTIMS_MAX {
            let why = format!(
                "1 to {} different attempts are preempted for a task",
                limit::VICTIMS_MAX
            );
            return Err(Rejected::Invalid(why));
        }
        let victims = victims.into_iter();
        let victims = victims.map(|it| self.victim(it, &winner, &assignment.placement));
        let victims: Vec<Task> = victims.collect::<Result<_, _>>()?;
        let spec = self.specs.shared(&id);
        let spec = spec.as_deref();
        let gpus = self.admit((&winner, spec), &assignment.placement, &victims, step)?;
        for victim in told {
            self.write_yielding(victim.task, id, step);
        }
        let generation = self.meta.generation;
        let preempted = victims.iter().filter_map(|task| {
            let attempt = task.live()?;
            Some(Event::Preempted {
                fence: Fence {
                    task: task.id,
                    generation,
                    epoch: attempt.epoch,
                },
                agent: attempt.agent.clone(),
                by: id,
            })
        });
        step.events.extend(preempted);
        self.begin((&mut winner, spec), assignment.placement, gpus, step);
        self.write_task(winner);
        Ok(Reply::Done)
    }

    fn write_yielding(&mut self, id: TaskId, by: TaskId, step: &Step<'_>) {
        let Some(mut task) = self.tasks.get(&id).cloned() else {
            return;
        };
        let Phase::Assigned { attempt, .. } = &mut task.phase else {
            return;
        };
        let yields = Arc::new(Attempt {
            preempted_by: Some(by),
            ..(**attempt).clone()
        });
        *attempt = Arc::clone(&yields);
        task.latest = Some(yields);
        task.last_index = step.index;
        self.write_task(task);
    }

    /// One that may be ended for this task.
    fn victim(
        &self,
        Victim { task: id, epoch }: Victim,
        winner: &Task,
        placement: &Placement,
    ) -> Result<Task, Rejected> {
        let stale = |why: &str| Rejected::Stale(format!("task {id} {why}"));
        let task = self.tasks.get(&id).ok_or(Rejected::NoSuchTask(id))?;
        let Phase::Assigned { attempt, cancel } = &task.phase else {
            return Err(stale("holds nothing"));
        };
        let is_there =
            attempt.agent == placement.agent && attempt.incarnation == placement.incarnation;
        if attempt.epoch != epoch || !is_there {
            return Err(stale("is elsewhere by now"));
        }
        if attempt.preempted_by.is_some() || cancel.is_some() {
            return Err(stale("is being ended already"));
        }
        if self.yielding_to(&attempt.agent, id).next().is_some() {
            return Err(stale("waits for the place of another itself"));
        }
        if !self.specs.get(&id).is_some_and(|spec| spec.preemptible) {
            return Err(stale("may not be preempted"));
        }
        if task.class <= winner.class && !mutant::is(Mutant::PreemptsItsEqual) {
            return Err(stale("is of no lower class"));
        }
        Ok(task.clone())
    }
}
