//! What a leader saw of the agents beyond the log when it decided: as coarse as decisions go by it, and so small that it
//! stands in the log beside them. So each decision can be made again from there, and compared.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::AgentId;
use crate::limit;
use crate::rejected::Rejected;
use crate::spec::{Kind, TaskSpec};
use crate::state::State;
use crate::time::Timestamp;

/// A magnitude, to a quarter of an octave (19 %): nothing, or 1 and up.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Magnitude(pub u8);

/// 2^(n/4), in 1/65,536.
const QUARTERS: [u64; 4] = [65_536, 77_936, 92_682, 110_218];

impl Magnitude {
    /// The largest that is not above a value.
    pub fn of(value: u64) -> Magnitude {
        let Some(octave) = value.checked_ilog2() else {
            return Magnitude(0);
        };
        // From 1 to below 2, in 1/65,536.
        let mantissa = (u128::from(value) << 16) >> octave;
        let passed = QUARTERS.iter().filter(|it| u128::from(**it) <= mantissa);
        let quarter = u32::try_from(passed.count()).unwrap_or(1);
        Magnitude(u8::try_from(octave * 4 + quarter).unwrap_or(u8::MAX))
    }

    /// What it stands for, rounded down.
    pub fn value(self) -> u64 {
        let Some(quarters) = self.0.checked_sub(1) else {
            return 0;
        };
        let mantissa = u128::from(QUARTERS[usize::from(quarters % 4)]);
        u64::try_from((mantissa << (quarters / 4)) >> 16).unwrap_or(u64::MAX)
    }
}

/// A share of a machine, in steps of 5 %: 0 to 20.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Twentieths(pub u8);

impl Twentieths {
    const STEP: u32 = 50;

    /// The step that is not above so many thousandths.
    pub fn of(thousandths: u32) -> Twentieths {
        Twentieths(u8::try_from(thousandths.min(1_000) / Twentieths::STEP).unwrap_or(0))
    }

    pub fn thousandths(self) -> u32 {
        (u32::from(self.0) * Twentieths::STEP).min(1_000)
    }
}

/// How busy an agent's machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// Of all processors.
    pub cpu: Twentieths,
    /// The part of that which is neither the agent's nor its attempts'.
    pub others: Twentieths,
    pub memory: Twentieths,
    /// The round trip to the leader in microseconds.
    pub latency: Magnitude,
}

/// Whether an agent can be sent work: what the leader alone knows of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Presence {
    #[serde(rename = "o")]
    Open,
    /// No session on which an assignment could be sent.
    #[default]
    #[serde(rename = "n")]
    NotConnected,
    /// It said that it would give back whatever it is sent.
    #[serde(rename = "d")]
    Declining,
    /// Silent for too long.
    #[serde(rename = "s")]
    Suspect,
}

/// What tasks have in common that take about as long.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Work {
    #[serde(rename = "k")]
    Kind(Kind),
    /// Questions to one model.
    #[serde(rename = "m")]
    Model(String),
}

impl TaskSpec {
    pub fn work(&self) -> Work {
        match &self.inference {
            Some(asked) => Work::Model(asked.model.clone()),
            None => Work::Kind(self.kind()),
        }
    }
}

/// How long each sort of work takes on an agent, in milliseconds; of what succeeded there.
pub type Service = Arc<BTreeMap<Work, Magnitude>>;

/// One agent, as the leader saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    pub presence: Presence,
    /// Attempts that it may hold beyond its slots.
    pub prefetch: u32,
    pub load: Load,
}

/// By what the decisions of an entry were made, beside the state.
///
/// What was known of an agent is what the state of `applied` has recorded, with what the rounds in `under_way` told, and with
/// what is told here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Observed {
    /// Counts the leader's entries with decisions, in its term.
    pub round: u64,
    /// The round with which all turns began: this one, where nothing is remembered of those before.
    pub since: u64,
    /// The state was that after this index.
    pub applied: u64,
    /// State time then; the entry's stamp may be later.
    pub now: Timestamp,
    /// Rounds before this one whose decisions were on their way to the log, and counted as made.
    pub under_way: Vec<u64>,
    /// Submits that the leader had looked at before; breaks ties.
    pub seed: u64,
    /// Whether this is all that there was. It is not where the leader lacked blobs, or went on where a round had stopped.
    pub is_whole: bool,
    /// Agents that are not as they were last told of.
    pub samples: Vec<(AgentId, Sample)>,
    /// Work that does not take as long on an agent as was last told; 0: that is not known any more.
    pub paces: Vec<(AgentId, Vec<(Work, Magnitude)>)>,
}

impl Observed {
    /// What is wrong with it whatever the state.
    pub(crate) fn validate(&self) -> Result<(), Rejected> {
        if self.samples.len().max(self.paces.len()) > limit::AGENTS_MAX {
            return Err(Rejected::over("what was seen", limit::AGENTS_MAX, "agents"));
        }
        let is_short = |(work, _): &(Work, Magnitude)| match work {
            Work::Kind(_) => true,
            Work::Model(name) => name.len() <= limit::MODEL_MAX_BYTES,
        };
        let most = 2 * limit::WORKS_MAX;
        let mut paces = self.paces.iter().map(|(_, paces)| paces);
        match paces.all(|paces| paces.len() <= most && paces.iter().all(is_short)) {
            true => Ok(()),
            false => Err(Rejected::over(
                "what was seen of an agent",
                most,
                "sorts of work",
            )),
        }
    }
}

/// What is known once something else is told.
pub fn retold(known: &Service, news: &[(Work, Magnitude)]) -> BTreeMap<Work, Magnitude> {
    let mut service = BTreeMap::clone(known);
    for (work, magnitude) in news {
        match magnitude {
            Magnitude(0) => drop(service.remove(work)),
            _ if service.len() >= limit::WORKS_MAX && !service.contains_key(work) => {}
            known => drop(service.insert(work.clone(), *known)),
        }
    }
    service
}

/// What has to be told, so that what is known becomes this.
pub fn news(known: &Service, now: &Service) -> Vec<(Work, Magnitude)> {
    let gone = known.keys().filter(|work| !now.contains_key(work));
    let gone = gone.map(|work| (work.clone(), Magnitude(0)));
    let changed = now.iter().filter(|(work, it)| known.get(work) != Some(it));
    let changed = changed.map(|(work, it)| (work.clone(), *it));
    gone.chain(changed).collect()
}

impl State {
    /// The agent as a leader saw it when it last decided something; `None`: none has.
    pub fn sample(&self, agent: &AgentId) -> Option<&Sample> {
        self.samples.get(agent)
    }

    /// How long work takes there, by the same leader.
    pub fn service(&self, agent: &AgentId) -> Service {
        self.services.shared(agent).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_magnitude_is_at_most_a_quarter_of_an_octave_below() {
        for value in (1..2_000).chain([10_000, 1 << 40, u64::MAX / 2]) {
            let known = Magnitude::of(value).value();
            assert!(known <= value, "{value}: {known}");
            // 19 %, and what rounding down takes.
            assert!(
                u128::from(value) * 100 <= (u128::from(known) + 1) * 119,
                "{value}: {known}"
            );
        }
        assert_eq!(Magnitude::of(0).value(), 0);
        assert_eq!(Magnitude::of(1).value(), 1);
        assert!((0..u8::MAX).all(|it| Magnitude(it).value() <= Magnitude(it + 1).value()));
    }

    #[test]
    fn a_share_is_the_step_below() {
        let steps =
            [0, 49, 50, 949, 950, 999, 1_000, 5_000].map(|it| Twentieths::of(it).thousandths());
        assert_eq!(steps, [0, 0, 50, 900, 950, 950, 1_000, 1_000]);
    }
}
