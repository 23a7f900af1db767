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
use crate::policy::Scope;
use crate::rejected::Rejected;
use crate::spec::{Kind, TaskSpec, validate_require};
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
        self.as_str() == other.as_str()
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

impl fmt::Display for Agents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.names.iter().map(AgentId::as_str).collect();
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
        validate_require(&self.agents.require)?;
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
    pub(crate) fn is_about_the_same(&self, other: &AddRule) -> bool {
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
    fn admits(&self, agent: &AgentProfile) -> Result<(), Reason> {
        match self.asked.action {
            RuleAction::Exclude if self.asked.agents.has(agent) => Err(Reason::Excluded),
            RuleAction::Pin if !self.asked.agents.has(agent) => Err(Reason::PinnedElsewhere),
            RuleAction::Exclude | RuleAction::Pin | RuleAction::Prefer | RuleAction::Cap(_) => {
                Ok(())
            }
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
    ) -> Result<(), Reason> {
        let concern = |rule: &&Rule| rule.concerns(&spec.namespace, spec.kind());
        for rule in self.rules_at(now).filter(concern) {
            rule.admits(&agent.profile)?;
            match rule.asked.action {
                RuleAction::Cap(most) if rule.asked.agents.has(&agent.profile) => {
                    let held = self.held_by(&agent.profile.id);
                    let held = held.filter_map(|task| self.specs.get(&task.id));
                    let held = held.filter(|spec| rule.concerns(&spec.namespace, spec.kind()));
                    if held.count() >= most as usize {
                        return Err(Reason::Capped);
                    }
                }
                RuleAction::Cap(_) | RuleAction::Pin | RuleAction::Exclude | RuleAction::Prefer => {
                }
            }
        }
        Ok(())
    }

    /// Whether a new rule goes together with those that hold: no task may be left without any agent by it, and it has to
    /// make a difference for some.
    ///
    /// # Errors
    ///
    /// Where it names agents that are not there, or fits none, or contradicts another rule: says which one wins.
    pub(crate) fn rule_fits(&self, asked: &AddRule, now: Timestamp) -> Result<(), Rejected> {
        if let Some(name) = asked
            .agents
            .names
            .iter()
            .find(|name| self.agent(name).is_none())
        {
            return Err(Rejected::NoSuchAgent(name.clone()));
        }
        let profiles: Vec<&AgentProfile> = self.agents().map(|agent| &agent.profile).collect();
        let covered: Vec<bool> = profiles.iter().map(|it| asked.agents.has(it)).collect();
        if !covered.contains(&true) {
            let agents = &asked.agents;
            return Err(Rejected::Invalid(format!(
                "no agent fits it: there are no {agents}; see `quorate agent list -o wide`"
            )));
        }
        let others: Vec<&Rule> = self
            .rules_at(now)
            .filter(|rule| !rule.asked.is_about_the_same(asked))
            .collect();
        let mut makes_a_difference = false;
        let mut in_the_way = None;
        for (namespace, kind) in sorts_of_tasks(asked, &others) {
            let concern = |rule: &&&Rule| {
                let scope = &rule.asked.scope;
                scope.kind.is_none_or(|it| it == kind)
                    && scope
                        .namespace
                        .as_ref()
                        .is_none_or(|it| Some(it) == namespace)
            };
            let rules: Vec<&Rule> = others.iter().filter(concern).copied().collect();
            let open: Vec<bool> = profiles
                .iter()
                .map(|agent| rules.iter().all(|rule| rule.admits(agent).is_ok()))
                .collect();
            let left = |(open, covered): (&bool, &bool)| match asked.action {
                RuleAction::Pin | RuleAction::Prefer | RuleAction::Cap(_) => *open && *covered,
                RuleAction::Exclude => *open && !covered,
            };
            if open.iter().zip(&covered).any(left) {
                makes_a_difference = true;
                continue;
            }
            // Who had no agent before is not worse off.
            let is_worse = open.contains(&true);
            let blame = blame(&rules, (&profiles, &covered), asked);
            if is_worse && matches!(asked.action, RuleAction::Pin | RuleAction::Exclude) {
                return Err(contradiction(asked, blame));
            }
            in_the_way = in_the_way.or(Some(blame));
        }
        match in_the_way {
            Some(blame) if !makes_a_difference => Err(contradiction(asked, blame)),
            Some(_) | None => Ok(()),
        }
    }
}

/// Of which namespace and kind tasks may be that it concerns, as far as rules tell them apart; no namespace stands for all
/// that no rule names.
fn sorts_of_tasks<'r>(
    asked: &'r AddRule,
    others: &[&'r Rule],
) -> Vec<(Option<&'r Namespace>, Kind)> {
    let namespaces: BTreeSet<Option<&Namespace>> = match &asked.scope.namespace {
        Some(own) => BTreeSet::from([Some(own)]),
        None => {
            let named = others
                .iter()
                .map(|rule| rule.asked.scope.namespace.as_ref());
            named.chain([None]).collect()
        }
    };
    let kinds = Kind::ALL.into_iter();
    let kinds = kinds.filter(|kind| asked.scope.kind.is_none_or(|own| own == *kind));
    let sorts = kinds.flat_map(|kind| namespaces.iter().map(move |it| (*it, kind)));
    sorts.collect()
}

/// The first of the rules that keeps these tasks from agents which the new one would leave to them.
fn blame<'r>(
    rules: &[&'r Rule],
    (profiles, covered): (&[&AgentProfile], &[bool]),
    asked: &AddRule,
) -> Option<&'r Rule> {
    let leaves = |covered: bool| match asked.action {
        RuleAction::Pin | RuleAction::Prefer | RuleAction::Cap(_) => covered,
        RuleAction::Exclude => !covered,
    };
    let mut left = profiles.iter().zip(covered).filter(|(_, it)| leaves(**it));
    left.find_map(|(agent, _)| rules.iter().find(|rule| rule.admits(agent).is_err()))
        .copied()
}

fn contradiction(asked: &AddRule, blame: Option<&Rule>) -> Rejected {
    let why = match (asked.action, blame) {
        (_, None) => format!("no agent would be left for {}", asked.scope),
        (action, Some(rule)) => {
            let scope = asked.scope.meet(&rule.asked.scope);
            let (id, said, by, reason) = (rule.id, &rule.asked, &rule.by, &rule.asked.reason);
            let wins = match (action, rule.asked.action) {
                (RuleAction::Pin, RuleAction::Pin) => "both would hold, and no agent fits both",
                (RuleAction::Exclude, RuleAction::Pin) => {
                    "an exclusion wins over a pin, so none would be left"
                }
                (_, RuleAction::Pin) => "a pin wins, so this would do nothing",
                (RuleAction::Pin, _) => "an exclusion wins over a pin, so none would be left",
                (RuleAction::Exclude, _) => "together they would leave none",
                (_, _) => "an exclusion wins, so this would do nothing",
            };
            format!(
                "for {scope} rule {id} says otherwise ({said}; {by}: {reason}): {wins}; \
                 `quorate policy rule-remove {id}` first, or name other agents"
            )
        }
    };
    Rejected::RuleContradicts(why)
}
