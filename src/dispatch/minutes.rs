//! What is written down of each round, so that its decisions can be made again from the log ([`model::Observed`]).

use std::sync::Arc;

use model::{Observed, State, Timestamp};
use mutant::Mutant;
use scheduler::{Fleet, Known, Told};

/// Where a round begins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start {
    pub now: Timestamp,
    pub seed: u64,
    /// All that it goes by is written down.
    pub is_whole: bool,
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

    /// The next round that decided something, with what is new of the agents; `under_way` are those whose decisions are on
    /// their way to the log, the oldest first.
    pub fn observed<'s>(
        &mut self,
        (state, fleet): (&'s State, &Fleet),
        start: Start,
        under_way: impl Iterator<Item = &'s Told> + Clone,
    ) -> Observed {
        self.last += 1;
        let known = Known::of(state, under_way.clone());
        let mut samples = Vec::new();
        let mut paces = Vec::new();
        for (id, view) in &fleet.agents {
            // Decisions look at no others.
            if state.agent(id).is_none() {
                continue;
            }
            let (sample, service) = known.last(id);
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
            applied: state.last_applied(),
            now: start.now,
            under_way: under_way.map(|told| told.round).collect(),
            seed: start.seed,
            is_whole: start.is_whole,
            samples,
            paces,
        }
    }
}
