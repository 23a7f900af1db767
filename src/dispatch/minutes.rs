//! What is written down of each round, so that its decisions can be made again from the log ([`model::Observed`]).

use std::collections::BTreeMap;

use model::{AgentId, Observed, Sample, State, Timestamp};
use scheduler::Fleet;

/// What a round goes by, beside the agents.
#[derive(Debug)]
pub(crate) struct Basis {
    pub applied: u64,
    pub now: Timestamp,
    pub under_way: Vec<u64>,
    pub seed: u64,
    pub is_whole: bool,
}

/// Of one term.
#[derive(Debug, Default)]
pub(crate) struct Minutes {
    rounds: u64,
    /// What was said last of agents, where that may not be in the state yet.
    said: BTreeMap<AgentId, Sample>,
}

impl Minutes {
    pub fn next_round(&mut self) -> u64 {
        self.rounds += 1;
        self.rounds
    }

    pub fn forget(&mut self, agent: &AgentId) {
        self.said.remove(agent);
    }

    pub fn forget_all(&mut self) {
        self.said.clear();
    }

    /// With what is new of the agents.
    pub fn observed(&mut self, state: &State, fleet: &Fleet, basis: Basis) -> Observed {
        let unknown = Sample::default();
        let mut samples = Vec::new();
        for agent in state.agents() {
            let id = &agent.profile.id;
            let seen = fleet.agents.get(id).map_or(&unknown, |view| &view.sample);
            let said = self.said.get(id).or_else(|| state.sample(id));
            if said.unwrap_or(&unknown) != seen {
                self.said.insert(id.clone(), seen.clone());
                samples.push((id.clone(), seen.clone()));
            }
        }
        let Basis {
            applied,
            now,
            under_way,
            seed,
            is_whole,
        } = basis;
        Observed {
            round: self.rounds,
            applied,
            now,
            under_way,
            seed,
            is_whole,
            samples,
        }
    }
}
