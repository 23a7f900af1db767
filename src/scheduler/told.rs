//! What was told last of the agents: by the state, then by rounds that it does not have yet. A leader goes by it to tell only
//! what is new; whoever decides again goes by it to see what the leader saw.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{AgentId, Magnitude, Observed, Sample, Service, State, Work};

/// A round that decided something, and what it told of agents.
#[derive(Debug, Clone, Default)]
pub struct Told {
    pub round: u64,
    samples: Vec<(AgentId, Sample)>,
    paces: Vec<(AgentId, Vec<(Work, Magnitude)>)>,
}

impl From<&Observed> for Told {
    fn from(observed: &Observed) -> Told {
        Told {
            round: observed.round,
            samples: observed.samples.clone(),
            paces: observed.paces.clone(),
        }
    }
}

/// What rounds told, beyond a state.
#[derive(Debug)]
pub struct Known<'s> {
    state: &'s State,
    samples: BTreeMap<&'s AgentId, Sample>,
    paces: BTreeMap<&'s AgentId, Vec<&'s [(Work, Magnitude)]>>,
}

impl<'s> Known<'s> {
    /// The oldest round first.
    pub fn of(state: &'s State, rounds: impl Iterator<Item = &'s Told> + Clone) -> Known<'s> {
        let samples = rounds.clone().flat_map(|told| &told.samples);
        let mut paces: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (id, news) in rounds.flat_map(|told| &told.paces) {
            paces.entry(id).or_default().push(&news[..]);
        }
        Known {
            state,
            samples: samples.map(|(id, sample)| (id, *sample)).collect(),
            paces,
        }
    }

    pub fn last(&self, id: &AgentId) -> (Sample, Service) {
        let sample = self.samples.get(id).copied();
        let sample = sample.or_else(|| self.state.sample(id).copied());
        let news = self.paces.get(id).into_iter().flatten();
        let service = news.fold(self.state.service(id), |known, news| {
            Arc::new(model::retold(&known, news))
        });
        (sample.unwrap_or_default(), service)
    }
}
