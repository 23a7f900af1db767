//! What was decided and is not in the state yet: on its way to the log it takes room as if it were there.

use std::collections::BTreeMap;

use model::{AgentId, Asking, Demand, Mix, Sort, State, SystemCommand, TaskSpec};

/// A decision on its way: its agent, for whom, and what it takes there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    agent: AgentId,
    sort: Sort,
    model: Option<String>,
    demand: Demand,
    /// It takes the places of others.
    preempts: bool,
}

impl Placed {
    pub fn of(agent: &AgentId, spec: &TaskSpec) -> Placed {
        let asked = spec.inference.as_ref();
        Placed {
            agent: agent.clone(),
            sort: spec.sort(),
            model: asked.map(|asked| asked.model.clone()),
            demand: spec.demand(),
            preempts: false,
        }
    }

    /// What a command assigns takes, where its task is known.
    pub fn by(state: &State, command: &SystemCommand) -> Option<Placed> {
        let assignment = command.assignment()?;
        let spec = state.spec(assignment.task)?;
        Some(Placed {
            preempts: matches!(command, SystemCommand::Preempt(_)),
            ..Placed::of(&assignment.placement.agent, &spec)
        })
    }
}

/// What they take of one agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reserved {
    pub attempts: u32,
    /// The models that some of them ask.
    pub asking: Asking,
    /// How many of them there are of each sort.
    pub mix: Mix,
    /// What they take beyond slots, where that is something; in the order in which they were decided.
    pub demands: Vec<Demand>,
    /// How many of them take the places of others, which count as taken as well until it is decided.
    pub preempting: u32,
}

/// The same of all agents.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reservations(BTreeMap<AgentId, Reserved>);

impl Reservations {
    pub fn of(&self, agent: &AgentId) -> Reserved {
        self.0.get(agent).cloned().unwrap_or_default()
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    pub fn add(&mut self, placed: &Placed) {
        let reserved = self.0.entry(placed.agent.clone()).or_default();
        reserved.attempts += 1;
        reserved.preempting += u32::from(placed.preempts);
        reserved.mix.add(placed.sort.clone());
        if !placed.demand.is_nothing() {
            reserved.demands.push(placed.demand);
        }
        if let Some(model) = &placed.model {
            *reserved.asking.entry(model.clone()).or_insert(0) += 1;
        }
    }

    pub fn remove(&mut self, placed: &Placed) {
        let Some(reserved) = self.0.get_mut(&placed.agent) else {
            return;
        };
        reserved.mix.remove(&placed.sort);
        let mut demands = reserved.demands.iter();
        if let Some(place) = demands.position(|it| *it == placed.demand) {
            reserved.demands.remove(place);
        }
        reserved.attempts = reserved.attempts.saturating_sub(1);
        let preempting = u32::from(placed.preempts);
        reserved.preempting = reserved.preempting.saturating_sub(preempting);
        let model = placed.model.as_ref();
        if let Some(asking) = model.and_then(|it| reserved.asking.get_mut(it)) {
            *asking = asking.saturating_sub(1);
        }
        if reserved.attempts == 0 {
            self.0.remove(&placed.agent);
        }
    }
}
