//! Rules by hand: where tasks may, must or should run, as people have decided it, for a reason and perhaps for a time.
//!
//! All rules that concern a task hold at once. An exclusion is stronger than a pin: an agent that somebody closed to these
//! tasks gets none of them, whoever sends them there. Of several pins each has to be met, as each `require` of a task has.
//! A preference only chooses among agents that may have the task.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::agent::{Agent, AgentProfile};
use crate::command::validate_reason;
use crate::id::{AgentId, Namespace, RuleId};
use crate::label::Expression;
use crate::limit;
use crate::mix::Mix;
use crate::policy::Scope;
use crate::rejected::Rejected;
use crate::spec::{Kind, TaskSpec, validate_expressions};
use crate::state::State;
use crate::time::{Millis, Timestamp};
use crate::trace::Reason;

/// What a rule does with the agents that it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RuleAction {
    /// The tasks run on these agents only.
    Pin,
    /// They run on none of them.
    Exclude,
    /// These are taken first, as long as one of them has a free slot.
    Prefer,
    /// Each of them holds so many of the tasks at most.
    Cap(u32),
}

impl RuleAction {
    pub fn as_str(self) -> &'static str {
        match self {
            RuleAction::Pin => "pin",
            RuleAction::Exclude => "exclude",
            RuleAction::Prefer => "prefer",
            RuleAction::Cap(_) => "cap",
        }
    }

    /// Whether it is the same but for a number.
    fn is_like(self, other: RuleAction) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }
}

/// Which agents a rule is about: those that are named and of which all expressions hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agents {
    /// Any, where none is named.
    pub names: BTreeSet<AgentId>,
    pub require: Vec<Expression>,
}

impl Agents {
    pub fn has(&self, agent: &AgentProfile) -> bool {
        let is_named = self.names.is_empty() || self.names.contains(&agent.id);
        is_named && agent.satisfies(&self.require)
    }

    fn is_all(&self) -> bool {
        self.names.is_empty() && self.require.is_empty()
    }

    fn size(&self) -> usize {
        let names = self.names.iter().map(|name| name.as_str().len() + 2);
        names.chain(self.require.iter().map(Expression::size)).sum()
    }
}

/// Of more the rest is counted: a sentence has to stay one.
const NAMES_SHOWN: usize = 8;

impl fmt::Display for Agents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = match self.names.len() {
            0..=NAMES_SHOWN => self.names.len(),
            _ => NAMES_SHOWN - 1,
        };
        let mut names: Vec<&str> = self.names.iter().map(AgentId::as_str).take(shown).collect();
        let more = format!("{} more", self.names.len() - shown);
        if shown < self.names.len() {
            names.push(&more);
        }
        let require: Vec<String> = self.require.iter().map(Expression::to_string).collect();
        match (names.is_empty(), require.is_empty()) {
            (true, true) => f.write_str("all agents"),
            (false, true) => f.write_str(&names.join(", ")),
            (true, false) => write!(f, "agents with {}", require.join(" and ")),
            (false, false) => write!(f, "{} with {}", names.join(", "), require.join(" and ")),
        }
    }
}

/// Makes a rule. One that does the same with the same tasks and agents is replaced, so that asking twice makes one rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddRule {
    pub action: RuleAction,
    /// The tasks that it is about.
    pub scope: Scope,
    pub agents: Agents,
    /// For people.
    pub reason: String,
    /// How long it holds, counted in state time from its entry on; for good where nothing is said.
    pub ttl: Option<Millis>,
}

impl AddRule {
    pub fn validate(&self) -> Result<(), Rejected> {
        let invalid = |why: &str| Err(Rejected::Invalid(why.to_owned()));
        self.scope.validate()?;
        if self.size() > limit::RULE_MAX_BYTES {
            return Err(Rejected::over("rule", limit::RULE_MAX_BYTES, "bytes"));
        }
        validate_reason(&self.reason)?;
        if self.reason.trim().is_empty() {
            return invalid(
                "a rule has a reason: those who meet it later want to know why it is there",
            );
        }
        let (names, most) = (self.agents.names.len(), limit::RULE_AGENTS_MAX);
        if names > most {
            return Err(Rejected::over(
                "the number of agents that a rule names",
                most,
                "agents",
            ));
        }
        if let Some(name) = self.agents.names.iter().find(|name| !name.is_valid()) {
            return invalid(&format!("bad agent name `{name}`"));
        }
        validate_expressions("require", &self.agents.require)?;
        match (self.action, self.ttl) {
            (_, Some(ttl)) if ttl == Millis(0) || ttl > limit::RULE_TTL_MAX => {
                let days = limit::RULE_TTL_MAX.0 / 86_400_000;
                invalid(&format!(
                    "a rule holds for some time, {days} days at most, or until somebody removes it"
                ))
            }
            (RuleAction::Cap(0), _) => {
                invalid("a cap of 0 is an exclusion: exclude the agents instead")
            }
            (RuleAction::Pin | RuleAction::Exclude | RuleAction::Prefer, _)
                if self.agents.is_all() =>
            {
                invalid(
                    "which agents? a rule that is not a cap names some, or says what labels they have",
                )
            }
            _ => Ok(()),
        }
    }

    /// About how many bytes it takes in the log.
    pub fn size(&self) -> usize {
        self.scope.size() + self.agents.size() + self.reason.len()
    }

    /// Whether it is about the same, so that the newer one replaces the older.
    pub fn is_about_the_same(&self, other: &AddRule) -> bool {
        self.action.is_like(other.action)
            && self.scope == other.scope
            && self.agents == other.agents
    }
}

/// `pin tasks of kind inference to agents with gpu`.
impl fmt::Display for AddRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scope, agents) = (&self.scope, &self.agents);
        match self.action {
            RuleAction::Pin => write!(f, "pin {scope} to {agents}"),
            RuleAction::Exclude => write!(f, "exclude {scope} from {agents}"),
            RuleAction::Prefer => write!(f, "prefer {agents} for {scope}"),
            RuleAction::Cap(most) if self.agents.names.len() == 1 => {
                write!(f, "cap {scope} at {most} on {agents}")
            }
            RuleAction::Cap(most) => write!(f, "cap {scope} at {most} on each of {agents}"),
        }
    }
}

/// A rule as the cluster keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    pub id: RuleId,
    pub asked: AddRule,
    pub by: String,
    /// Wall time, for display.
    pub since: Timestamp,
    /// State time from which on it does not hold any more.
    pub expires: Option<Timestamp>,
    /// Wall time, for display.
    pub expires_wall: Option<Timestamp>,
}

impl Rule {
    pub fn holds_at(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|end| now < end)
    }

    /// Whether it is about such tasks.
    pub fn concerns(&self, namespace: &Namespace, kind: Kind) -> bool {
        self.asked.scope.has(namespace, kind)
    }

    /// Whether tasks that it concerns may run there, whatever else they may.
    pub fn admits(&self, agent: &AgentProfile) -> Result<(), Reason> {
        match self.asked.action {
            RuleAction::Exclude if self.asked.agents.has(agent) => Err(Reason::Excluded),
            RuleAction::Pin if !self.asked.agents.has(agent) => Err(Reason::PinnedElsewhere),
            RuleAction::Exclude | RuleAction::Pin | RuleAction::Prefer | RuleAction::Cap(_) => {
                Ok(())
            }
        }
    }
    /// Whether an agent that it names, and that holds these, may have no more of the tasks that it concerns.
    pub fn is_full<'m>(&self, mixes: impl IntoIterator<Item = &'m Mix>) -> bool {
        let counts = mixes.into_iter().map(|mix| mix.count_in(&self.asked.scope));
        match self.asked.action {
            RuleAction::Cap(most) => counts.sum::<u32>() >= most,
            RuleAction::Pin | RuleAction::Exclude | RuleAction::Prefer => false,
        }
    }
}

/// The rules of a state.
impl State {
    /// By id, those too that have just expired.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter().map(|(_, rule)| rule)
    }

    /// Those that hold at a state time, by id.
    pub fn rules_at(&self, now: Timestamp) -> impl Iterator<Item = &Rule> {
        self.rules().filter(move |rule| rule.holds_at(now))
    }

    /// Whether a task may be given to an agent as far as rules say so.
    pub(crate) fn rules_admit(
        &self,
        agent: &Agent,
        spec: &TaskSpec,
        now: Timestamp,
        mix: Option<&Mix>,
    ) -> Result<(), Reason> {
        let concern = |rule: &&Rule| rule.concerns(&spec.namespace, spec.kind());
        for rule in self.rules_at(now).filter(concern) {
            rule.admits(&agent.profile)?;
            let is_named = rule.asked.agents.has(&agent.profile);
            if is_named && rule.is_full(mix) {
                return Err(Reason::Capped);
            }
        }
        Ok(())
    }
}
