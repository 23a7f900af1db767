//! What the leader saw of the agents when it decided.

use crate::apply::Outcome;
use crate::command::Reply;
use crate::sample::{Observed, retold};
use crate::state::State;

impl State {
    /// Of an agent that is not there any more nothing is kept.
    pub(super) fn observe(&mut self, observed: Observed) -> Outcome {
        observed.validate()?;
        for (agent, sample) in observed.samples {
            let is_news = self.samples.get(&agent) != Some(&sample);
            if is_news && self.agents.get(&agent).is_some() {
                self.samples.put(agent, sample);
            }
        }
        for (agent, news) in observed.paces {
            if self.agents.get(&agent).is_some() {
                let service = retold(&self.service(&agent), &news);
                self.services.put(agent, service);
            }
        }
        Ok(Reply::Done)
    }
}
