//! Rules that people made by hand, kept from what was asked for and from events alone.

use std::collections::{BTreeMap, VecDeque};

use model::{AddRule, AgentProfile, RuleAction, RuleId, TaskSpec, Timestamp};

#[derive(Debug, Default)]
pub struct Orders {
    hold: BTreeMap<RuleId, (AddRule, Option<Timestamp>)>,
    /// All that there ever were, with the entry that ended it: a plan may have been made under one that is gone.
    ever: Vec<(RuleId, AddRule, Option<u64>)>,
}

/// What is planned comes to the log with one of the next few entries.
const ON_ITS_WAY: u64 = 64;

impl Orders {
    /// The next of those that the entry asked for.
    pub fn set(
        &mut self,
        rule: RuleId,
        told: &mut VecDeque<&AddRule>,
        (index, now): (u64, Timestamp),
    ) {
        self.remove(rule, index);
        if let Some(asked) = told.pop_front() {
            let end = asked.ttl.map(|ttl| now.plus(ttl));
            self.hold.insert(rule, (asked.clone(), end));
            self.ever.push((rule, asked.clone(), None));
        }
    }

    pub fn remove(&mut self, rule: RuleId, index: u64) {
        self.hold.remove(&rule);
        let gone = self.ever.iter_mut().filter(|(id, _, _)| *id == rule);
        gone.for_each(|(_, _, end)| *end = end.or(Some(index)));
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
                    RuleAction::Exclude => rule.agents.has(agent),
                    RuleAction::Pin => !rule.agents.has(agent),
                    RuleAction::Prefer => false,
                    RuleAction::Cap(most) => {
                        let held = held.clone().filter(|spec| is_about(rule, spec));
                        rule.agents.has(agent) && held.count() >= most as usize
                    }
                }
        });
        broken.next().map(|(rule, _)| rule)
    }

    /// Whether any rule that held when this entry was planned tells these two apart.
    pub fn tell_apart(&self, one: &TaskSpec, other: &TaskSpec, index: u64) -> bool {
        let held = self
            .ever
            .iter()
            .filter(|(_, _, end)| end.is_none_or(|end| end.saturating_add(ON_ITS_WAY) > index));
        held.into_iter()
            .any(|(_, rule, _)| is_about(rule, one) != is_about(rule, other))
    }
}

fn is_about(rule: &AddRule, spec: &TaskSpec) -> bool {
    rule.scope.has(&spec.namespace, spec.kind())
}
