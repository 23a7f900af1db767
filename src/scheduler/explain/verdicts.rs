//! How each agent stands towards a task that waits.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{AgentId, Magnitude, Reason, State, Task, TaskSpec, Timestamp, Work};

use crate::candidate::{Candidate, Claim, For};
use crate::filter;
use crate::fleet::Fleet;
use crate::health::{Asked, Machines};
use crate::kept::Holder;
use crate::rules::Rules;

/// How one agent stands towards a waiting task now: its score, or why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentVerdict {
    pub agent: AgentId,
    pub standing: Result<model::Scored, Reason>,
}

/// An agent that could take a task.
struct Fitting {
    scored: model::Scored,
    has_free_slot: bool,
}

/// Each agent, by id. As long as one under which the task was not lost has room, those under which it was get it not; and as
/// long as one has a free slot, none is sent anything ahead.
pub fn verdicts(
    (state, now): (&State, Timestamp),
    (fleet, machines): (&Fleet, &Machines<'_>),
    (task, asked): (&Task, (&TaskSpec, &For<'_>, &Arc<Rules<'_>>)),
    (kept, claim): (&BTreeMap<AgentId, Holder>, Claim),
) -> Vec<AgentVerdict> {
    let (spec, of, rules) = asked;
    let work = spec.work();
    let usual = machines.usual_service(&work);
    let is_for_idle_ones = machines.is_for_idle_ones(&Asked::of((rules, of.rules), spec));
    let standings = state.agents().map(|agent| {
        let id = &agent.profile.id;
        let seen = Seen {
            machines,
            is_for_idle_ones,
            now,
            work: (&work, usual),
        };
        let kept_for = kept.get(id).copied();
        let standing = standing(state, (fleet, seen), asked, (agent, kept_for, claim));
        (agent.profile.id.clone(), standing)
    });
    let mut standings: Vec<_> = standings.collect();
    let was_lost = |agent: &AgentId| task.lost_agents.contains(agent);
    let fits = |(agent, it): &(AgentId, Result<Fitting, Reason>)| it.is_ok() && !was_lost(agent);
    if standings.iter().any(fits) {
        let lost = standings
            .iter_mut()
            .filter(|(agent, it)| it.is_ok() && was_lost(agent));
        lost.for_each(|(_, it)| *it = Err(Reason::LostBefore));
    }
    let mut fitting = standings.iter().filter_map(|(_, it)| it.as_ref().ok());
    let is_free = fitting.any(|it| it.has_free_slot);
    let verdicts = standings.into_iter().map(|(agent, standing)| AgentVerdict {
        agent,
        standing: standing.and_then(|it| match is_free && !it.has_free_slot {
            true => Err(Reason::NoFreeSlot),
            false => Ok(it.scored),
        }),
    });
    verdicts.collect()
}

/// What an agent is compared by with the others.
struct Seen<'m> {
    machines: &'m Machines<'m>,
    now: Timestamp,
    /// Idle machines could run the task, so that hot ones are held back.
    is_for_idle_ones: bool,
    /// What it is, and how long such work usually takes.
    work: (&'m Work, Option<Magnitude>),
}

fn standing(
    state: &State,
    (fleet, seen): (&Fleet, Seen<'_>),
    (spec, of, rules): (&TaskSpec, &For<'_>, &Arc<Rules<'_>>),
    (agent, kept_for, claim): (&model::Agent, Option<Holder>, Claim),
) -> Result<Fitting, Reason> {
    let id = &agent.profile.id;
    let view = fleet.agents.get(id).cloned().unwrap_or_default();
    let room = filter::room(state, agent, &view);
    // What can't change by waiting comes first: it is the better answer.
    filter::fits(agent, &spec.require)?;
    agent.profile.understands(spec)?;
    model::could(agent.profile.supply.as_ref(), &spec.demand())?;
    rules.admit(of.rules, rules.naming(&agent.profile))?;
    filter::accepts_work(agent, &view, room)?;
    let known = (seen.machines, &*fleet.rotations, seen.now);
    let mut candidate = Candidate::new((agent, room), (state, &view), known, rules);
    candidate.note_work(seen.work.0, seen.work.1);
    candidate.fits(state, spec.need())?;
    candidate.obeys(of.rules)?;
    candidate.kept_for = kept_for;
    candidate.is_open_to(claim)?;
    if seen.is_for_idle_ones && !candidate.hold.admits(of.is_overdue) {
        return Err(Reason::Busy);
    }
    let turn = fleet.rotations.until(of.strategy, id);
    Ok(Fitting {
        scored: candidate.measure(of, turn).scored(of.formula, id),
        has_free_slot: candidate.has_free_slot(),
    })
}
