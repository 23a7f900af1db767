//! Agents: they register with each new incarnation or profile, and are lost when a lease ends.

use crate::agent::{Agent, AgentProfile, AgentState};
use crate::apply::{Outcome, Step};
use crate::command::Reply;
use crate::event::Event;
use crate::id::{AgentId, Incarnation, TaskId};
use crate::limit;
use crate::rejected::Rejected;
use crate::state::State;

impl State {
    /// Attempts of an earlier incarnation stay with it until *its* lease ends: its processes may
    /// still run.
    pub(super) fn register_agent(
        &mut self,
        profile: &AgentProfile,
        step: &mut Step<'_>,
    ) -> Outcome {
        let known = self.agents.get(&profile.id);
        if known.is_none() && self.agents.len() >= limit::AGENTS_MAX {
            return Err(Rejected::over(
                "the number of agents",
                limit::AGENTS_MAX,
                "agents",
            ));
        }
        let registered_index = match known {
            Some(agent) if agent.profile == *profile => agent.registered_index,
            Some(_) | None => step.index,
        };
        let agent = Agent {
            profile: profile.clone(),
            state: AgentState::Ready,
            registered_index,
            cordon: known.and_then(|agent| agent.cordon.clone()),
        };
        self.agents.put(profile.id.clone(), agent);
        step.events.push(Event::AgentRegistered {
            agent: profile.id.clone(),
        });
        Ok(Reply::Registered)
    }

    /// Every attempt of this incarnation is lost, and the agent with it if it has no newer one.
    pub(super) fn lose_agent(
        &mut self,
        id: &AgentId,
        incarnation: Incarnation,
        step: &mut Step<'_>,
    ) {
        if let Some(agent) = self.agents.get(id)
            && agent.profile.incarnation == incarnation
        {
            let mut agent = agent.clone();
            agent.state = AgentState::Lost;
            self.agents.put(id.clone(), agent);
        }
        let held: Vec<TaskId> = self
            .held_under(id, incarnation)
            .map(|task| task.id)
            .collect();
        for task in held {
            self.lose_attempt(task, step);
        }
        step.events.push(Event::AgentLost {
            agent: id.clone(),
            incarnation,
        });
    }
}
