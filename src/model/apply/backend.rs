//! What administrators set for a back end. It must be one that its agent has told of: a name with a slip in it would
//! stand there for ever and do nothing.

use crate::apply::{Outcome, Step};
use crate::backend::{BackendSettings, SetBackend};
use crate::command::Reply;
use crate::event::Event;
use crate::id::AgentId;
use crate::limit;
use crate::rejected::Rejected;
use crate::state::State;

impl State {
    pub(super) fn set_backend(&mut self, asked: &SetBackend, step: &mut Step<'_>) -> Outcome {
        let id = &asked.agent;
        let agent = self.agents.get(id);
        let agent = agent.ok_or_else(|| Rejected::NoSuchAgent(id.clone()))?;
        let mut backends = agent.profile.backends.iter();
        if !backends.any(|backend| backend.name == asked.name) {
            return Err(Rejected::NoSuchBackend {
                agent: id.clone(),
                name: asked.name.clone(),
            });
        }
        let key = (id.clone(), asked.name.clone());
        let settings = asked.over(self.backend_settings(id, &asked.name));
        if settings == BackendSettings::default() {
            self.backends.remove(&key);
        } else {
            self.make_room_for_backend(id, &asked.name);
            self.backends.put(key, settings);
        }
        step.events.push(Event::BackendSet { agent: id.clone() });
        Ok(Reply::Done)
    }

    /// Settings of names that an agent has no more are kept as long as there is room for them.
    fn make_room_for_backend(&mut self, id: &AgentId, name: &str) {
        let known = self.names_of_set_backends(id);
        if known.len() < limit::BACKENDS_MAX || known.iter().any(|other| other == name) {
            return;
        }
        let has = |name: &String| {
            let agent = self.agents.get(id);
            agent.is_some_and(|agent| agent.profile.backends.iter().any(|it| it.name == *name))
        };
        let gone: Vec<String> = known.into_iter().filter(|name| !has(name)).collect();
        for name in gone {
            self.backends.remove(&(id.clone(), name));
        }
    }

    /// An agent is forgotten, and what was set for its back ends with it.
    pub(super) fn forget_backends(&mut self, id: &AgentId) {
        for name in self.names_of_set_backends(id) {
            self.backends.remove(&(id.clone(), name));
        }
    }

    fn names_of_set_backends(&self, id: &AgentId) -> Vec<String> {
        let all = self.backends.from((id.clone(), String::new()));
        let own = all.take_while(|((agent, _), _)| agent == id);
        own.map(|((_, name), _)| name.clone()).collect()
    }
}
