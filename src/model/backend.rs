//! What administrators set for a back end: its share, how much it may be asked at once, and when it is left alone.
//!
//! The words mean what they mean in nginx. The settings stand in the log by agent and the back end's name, and outlive
//! both: a back end that is gone for a while has them again when it is back. How an agent acts on them is its own to
//! see to; that it is never given more than its back ends may answer follows from here ([`State::asks_room`]).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::agent::Agent;
use crate::id::AgentId;
use crate::limit;
use crate::rejected::Rejected;
use crate::state::State;
use crate::time::Millis;
use crate::trace::Reason;

/// What holds of one back end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackendSettings {
    /// Its share among the back ends of its agent that offer a model.
    pub weight: u32,
    /// The most requests at once; 0: as many as the agent has slots.
    pub limit: u32,
    /// So many failures within `fail_timeout`, and it is left alone for as long; 0: it never is.
    pub max_fails: u32,
    pub fail_timeout: Millis,
}

impl Default for BackendSettings {
    fn default() -> BackendSettings {
        BackendSettings {
            weight: 1,
            limit: 0,
            max_fails: 1,
            fail_timeout: Millis(10_000),
        }
    }
}

/// Says what is to hold of a back end; what is left out stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetBackend {
    pub agent: AgentId,
    pub name: String,
    pub weight: Option<u32>,
    pub limit: Option<u32>,
    pub max_fails: Option<u32>,
    pub fail_timeout: Option<Millis>,
}

impl SetBackend {
    pub fn validate(&self) -> Result<(), Rejected> {
        let invalid = |why: String| Err(Rejected::Invalid(why));
        let asked = [self.weight, self.limit, self.max_fails];
        if asked.iter().all(Option::is_none) && self.fail_timeout.is_none() {
            return invalid("nothing is said of the back end".into());
        }
        if self.name.is_empty() || self.name.len() > limit::LABEL_MAX_BYTES {
            return invalid("a back end's name has 1 to 256 bytes".into());
        }
        let most = limit::BACKEND_WEIGHT_MAX;
        if self
            .weight
            .is_some_and(|weight| !(1..=most).contains(&weight))
        {
            return invalid(format!("a back end's weight is 1 to {most}"));
        }
        let most = limit::SLOTS_MAX;
        if self.limit.is_some_and(|limit| limit > most) {
            return invalid(format!(
                "a back end's limit is {most} at most, or 0 for none"
            ));
        }
        let most = limit::BACKEND_FAILS_MAX;
        if self.max_fails.is_some_and(|fails| fails > most) {
            return invalid(format!("`max_fails` is {most} at most, or 0 for never"));
        }
        let most = limit::BACKEND_FAIL_TIMEOUT_MAX;
        match self.fail_timeout {
            Some(Millis(0)) => invalid("a `fail_timeout` of nothing: say `max_fails` 0".into()),
            Some(span) if span > most => invalid("a `fail_timeout` is 1 day at most".into()),
            Some(_) | None => Ok(()),
        }
    }

    /// With what was said, what stays as it is.
    pub(crate) fn over(&self, known: BackendSettings) -> BackendSettings {
        BackendSettings {
            weight: self.weight.unwrap_or(known.weight),
            limit: self.limit.unwrap_or(known.limit),
            max_fails: self.max_fails.unwrap_or(known.max_fails),
            fail_timeout: self.fail_timeout.unwrap_or(known.fail_timeout),
        }
    }
}

/// The key of settings: an agent, and the back end's name on it.
pub(crate) type BackendKey = (AgentId, String);

/// How many attempts ask each model.
pub type Asking = BTreeMap<String, u32>;

impl State {
    /// What holds of a back end, whether or not there is one.
    pub fn backend_settings(&self, agent: &AgentId, name: &str) -> BackendSettings {
        let key = (agent.clone(), name.to_owned());
        self.backends.get(&key).copied().unwrap_or_default()
    }

    /// What was set for the back ends that this agent has, by name.
    pub fn set_backends(&self, agent: &Agent) -> BTreeMap<String, BackendSettings> {
        if self.backends.is_empty() {
            return BTreeMap::new();
        }
        let all = agent.profile.backends.iter().filter_map(|backend| {
            let key = (agent.profile.id.clone(), backend.name.clone());
            Some((key.1.clone(), *self.backends.get(&key)?))
        });
        all.collect()
    }

    /// The models that this agent's live attempts ask; none where no limit makes them count.
    pub fn asking(&self, agent: &Agent) -> Asking {
        let mut asking = Asking::new();
        let limits = self.set_backends(agent);
        if limits.values().all(|settings| settings.limit == 0) {
            return asking;
        }
        for task in self.held_by(&agent.profile.id) {
            let spec = self.spec(task.id);
            if let Some(inference) = spec.as_ref().and_then(|spec| spec.inference.as_ref()) {
                *asking.entry(inference.model.clone()).or_insert(0) += 1;
            }
        }
        asking
    }

    /// Whether one more request for `model` finds a back end below its limit, where `asking` are under way. An attempt
    /// for another model counts wherever it might be asked, so what is promised here holds however they are spread.
    pub fn asks_room(&self, agent: &Agent, model: &str, asking: &Asking) -> Result<(), Reason> {
        if self.backends.is_empty() {
            return Ok(());
        }
        let settings = self.set_backends(agent);
        let offering = agent.profile.backends.iter();
        let offering: Vec<_> = offering
            .filter(|backend| backend.models.iter().any(|offered| offered == model))
            .collect();
        let mut room: u32 = 0;
        for backend in &offering {
            match settings.get(&backend.name).map_or(0, |known| known.limit) {
                0 => return Ok(()),
                limit => room = room.saturating_add(limit),
            }
        }
        let shares = |other: &String| {
            let mut models = offering.iter().flat_map(|backend| &backend.models);
            models.any(|offered| offered == other)
        };
        let counted = asking.iter().filter(|(other, _)| shares(other));
        let taken = counted
            .map(|(_, count)| *count)
            .fold(0, u32::saturating_add);
        match offering.is_empty() || taken < room {
            true => Ok(()),
            false => Err(Reason::BackendsFull),
        }
    }
}
