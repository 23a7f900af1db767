//! Filters: why an agent is no candidate for a task. Each refusal can be shown to a person.

use std::borrow::Cow;

use model::{Agent, AgentState, Asking, Expression, Presence, Reason, State, Taken};
use mutant::Mutant;

use crate::fleet::AgentView;

/// What an agent could take now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    pub slots: u32,
    /// Live attempts, and those that are decided but not applied.
    pub taken: u32,
    /// The most that it may hold.
    pub capacity: u32,
}

/// An agent's room by the log and by what was reserved since.
pub fn room(state: &State, agent: &Agent, view: &AgentView) -> Room {
    let slots = agent.profile.slots;
    Room {
        slots,
        taken: state
            .slots_taken(&agent.profile.id)
            .saturating_add(view.reserved.attempts),
        capacity: slots.saturating_add(view.sample.prefetch.min(model::PREFETCH_MAX)),
    }
}

/// Whether an agent can get any task at all.
pub fn accepts_work(agent: &Agent, view: &AgentView, room: Room) -> Result<(), Reason> {
    is_open(agent, view)?;
    match room.taken >= room.capacity {
        true => Err(Reason::NoFreeSlot),
        false => Ok(()),
    }
}

/// The same, had it room.
pub fn is_open(agent: &Agent, view: &AgentView) -> Result<(), Reason> {
    // Before all that passes by itself: this does not.
    agent.is_open()?;
    if agent.state == AgentState::Lost {
        return Err(Reason::Lost);
    }
    match view.sample.presence {
        Presence::Open => Ok(()),
        Presence::NotConnected => Err(Reason::NotConnected),
        Presence::Declining => Err(Reason::Declining),
        Presence::Suspect => Err(Reason::Suspect),
    }
}

/// What an agent's attempts take of it beyond slots, by the log and by what was reserved since.
pub fn taken(state: &State, agent: &Agent, view: &AgentView) -> Taken {
    if mutant::is(Mutant::ResourcesUnchecked) {
        return Taken::default();
    }
    let known = state.gone(&agent.profile.id);
    let mut taken = known.map(Cow::into_owned).unwrap_or_default();
    for demand in &view.reserved.demands {
        // What has no room will be refused, and takes nothing.
        if let Ok(gpus) = model::room(agent.profile.supply.as_ref(), Some(&taken), demand) {
            taken.add(demand, &gpus);
        }
    }
    taken
}

/// What an agent's attempts ask its models, by the log and by what was reserved since.
pub fn asking(state: &State, agent: &Agent, view: &AgentView) -> Asking {
    let mut asking = state.asking(agent);
    for (model, count) in &view.reserved.asking {
        let known = asking.entry(model.clone()).or_insert(0);
        *known = known.saturating_add(*count);
    }
    asking
}

/// Whether the models that a task requires can be asked there once more.
pub fn asks_room(
    state: &State,
    agent: &Agent,
    asking: &Asking,
    require: &[Expression],
) -> Result<(), Reason> {
    require.iter().try_for_each(|expression| match expression {
        Expression::Offers(model) => state.asks_room(agent, model, asking),
        Expression::Equals(..)
        | Expression::Differs(..)
        | Expression::In(..)
        | Expression::Exists(_) => Ok(()),
    })
}

/// Whether an agent fits a task with this requirement.
pub fn fits(agent: &Agent, require: &[Expression]) -> Result<(), Reason> {
    let unmet = require
        .iter()
        .find(|expression| !expression.matches(&agent.profile) && !is_unchecked(expression));
    match unmet {
        None => Ok(()),
        Some(Expression::Offers(_)) => Err(Reason::NotOffered),
        Some(
            Expression::Equals(..)
            | Expression::Differs(..)
            | Expression::In(..)
            | Expression::Exists(_),
        ) => Err(Reason::LabelMismatch),
    }
}

/// A planted bug. It is about labels alone: what models are offered is another promise.
fn is_unchecked(expression: &Expression) -> bool {
    mutant::is(Mutant::LabelsUnchecked) && !matches!(expression, Expression::Offers(_))
}
