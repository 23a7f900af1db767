//! Rules that people made by hand, kept from what was asked for and from events alone.

use std::collections::{BTreeMap, VecDeque};

use model::{AddRule, AgentProfile, RuleAction, RuleId, TaskSpec, Timestamp};

#[derive(Debug, Default)]
pub struct Orders {
    hold: BTreeMap<RuleId, (AddRule, Option<Timestamp>)>,
    /// All that there ever were: a plan may have been made under one that is gone.
    ever: Vec<AddRule>,
}

impl Orders {
    /// The next of those that the entry asked for.
    pub fn set(&mut self, rule: RuleId, told: &mut VecDeque<&AddRule>, now: Timestamp) {
        if let Some(asked) = told.pop_front() {
            let end = asked.ttl.map(|ttl| now.plus(ttl));
            self.hold.insert(rule, (asked.clone(), end));
            self.ever.push(asked.clone());
        }
    }

    pub fn remove(&mut self, rule: RuleId) {
        self.hold.remove(&rule);
    }

    /// The rule that keeps a task from an agent which holds these.
    pub fn forbid<'s>(
        &self,
        spec: &TaskSpec,
        agent: &AgentProfile,
        held: impl Iterator<Item = &'s TaskSpec> + Clone,
        now: Timestamp,
    ) -> Option<&AddRule> {
        let in_time = self
            .hold
            .values()
            .filter(|(_, end)| end.is_none_or(|end| now < end));
        let mut broken = in_time.filter(|(rule, _)| {
            is_about(rule, spec)
                && match rule.action {
                    RuleAction::Exclude => names(rule, agent),
                    RuleAction::Pin => !names(rule, agent),
                    RuleAction::Prefer => false,
                    RuleAction::Cap(most) => {
                        let held = held.clone().filter(|spec| is_about(rule, spec));
                        names(rule, agent) && held.count() >= most as usize
                    }
                }
        });
        broken.next().map(|(rule, _)| rule)
    }

    /// Whether any rule ever told these two apart.
    pub fn tell_apart(&self, one: &TaskSpec, other: &TaskSpec) -> bool {
        self.ever
            .iter()
            .any(|rule| is_about(rule, one) != is_about(rule, other))
    }
}

fn is_about(rule: &AddRule, spec: &TaskSpec) -> bool {
    let scope = &rule.scope;
    scope
        .namespace
        .as_ref()
        .is_none_or(|it| *it == spec.namespace)
        && scope.kind.is_none_or(|it| it == spec.kind())
}

fn names(rule: &AddRule, agent: &AgentProfile) -> bool {
    let agents = &rule.agents;
    let is_named = agents.names.is_empty() || agents.names.contains(&agent.id);
    is_named && agents.require.iter().all(|it| it.matches(agent))
}
