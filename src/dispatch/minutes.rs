//! What is written down of each round, so that its decisions can be made again from the log ([`model::Observed`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{AgentId, Magnitude, Observed, Sample, Service, State, Timestamp, Work};
use mutant::Mutant;
use scheduler::Fleet;

/// What a round goes by, beside the agents.
#[derive(Debug)]
pub(crate) struct Basis<'s> {
    pub applied: u64,
    pub now: Timestamp,
    /// Rounds whose decisions are on their way to the log, the oldest first.
    pub under_way: Vec<&'s Told>,
    pub seed: u64,
    pub is_whole: bool,
}

/// A round that decided something, and what it told of agents.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    pub round: u64,
    samples: Vec<(AgentId, Sample)>,
    paces: Vec<(AgentId, Vec<(Work, Magnitude)>)>,
}

/// Of one term.
#[derive(Debug)]
pub(crate) struct Minutes {
    last: u64,
    /// The round with which turns began.
    since: u64,
}

impl Default for Minutes {
    fn default() -> Minutes {
        Minutes { last: 0, since: 1 }
    }
}

impl Minutes {
    /// Turns begin anew with the next round.
    pub fn begin_anew(&mut self) {
        self.since = self.last + 1;
    }

    /// The next round that decided something: with what is new of the agents.
    pub fn observed(&mut self, state: &State, fleet: &Fleet, basis: &Basis<'_>) -> Observed {
        self.last += 1;
        let known = Known::of(&basis.under_way);
        let mut samples = Vec::new();
        let mut paces = Vec::new();
        for (id, view) in &fleet.agents {
            // Decisions look at no others.
            if state.agent(id).is_none() {
                continue;
            }
            let (sample, service) = known.last(state, id);
            if sample != view.sample && !mutant::is(Mutant::SampleUntold) {
                samples.push((id.clone(), view.sample));
            }
            // Nearly always it is the very same one.
            if !Arc::ptr_eq(&service, &view.service) && service != view.service {
                paces.push((id.clone(), model::news(&service, &view.service)));
            }
        }
        Observed {
            round: self.last,
            since: self.since,
            applied: basis.applied,
            now: basis.now,
            under_way: basis.under_way.iter().map(|told| told.round).collect(),
            seed: basis.seed,
            is_whole: basis.is_whole,
            samples,
            paces,
        }
    }
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

/// What was told last of agents, where it is not in the state yet.
struct Known<'s> {
    samples: BTreeMap<&'s AgentId, Sample>,
    paces: BTreeMap<&'s AgentId, Vec<&'s [(Work, Magnitude)]>>,
}

impl<'s> Known<'s> {
    fn of(under_way: &[&'s Told]) -> Known<'s> {
        let samples = under_way.iter().flat_map(|told| &told.samples);
        let mut paces: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (id, news) in under_way.iter().flat_map(|told| &told.paces) {
            paces.entry(id).or_default().push(&news[..]);
        }
        Known {
            samples: samples.map(|(id, sample)| (id, *sample)).collect(),
            paces,
        }
    }

    fn last(&self, state: &State, id: &AgentId) -> (Sample, Service) {
        let sample = self.samples.get(id).copied();
        let sample = sample.or_else(|| state.sample(id).copied());
        let news = self.paces.get(id).into_iter().flatten();
        let service = news.fold(state.service(id), |known, news| {
            Arc::new(model::retold(&known, news))
        });
        (sample.unwrap_or_default(), service)
    }
}
