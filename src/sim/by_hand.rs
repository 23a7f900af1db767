//! Books of the rules that people made by hand, kept from what entries ask for and from events alone.

use std::collections::BTreeMap;

use model::{AddRule, AgentId, Command, Kind, Namespace, Op, RuleAction, RuleId, TaskId};

#[derive(Default)]
pub struct ByHand {
    rules: BTreeMap<RuleId, AddRule>,
    /// All that there ever were, with the entry that ended it: a plan may have been made under one that is gone.
    ever: Vec<(RuleId, AddRule, Option<u64>)>,
    /// What the entry asked for whose events are looked at, and whether all of it was done.
    asked: Vec<AddRule>,
    is_known: bool,
    /// Attempts by their tasks: where they are, and of which namespace.
    live: BTreeMap<TaskId, (AgentId, Namespace)>,
}

impl ByHand {
    /// What an entry asks for. Which of several were refused is not told: then nobody is held to any of them.
    pub fn read(&mut self, made: usize, ops: &[Op]) {
        let asked = ops.iter().filter_map(rule_of).cloned();
        self.asked = asked.collect();
        self.is_known = self.asked.len() == made;
    }

    /// The next of them holds from here on.
    pub fn set(&mut self, rule: RuleId, index: u64) {
        self.remove(rule, index);
        let may_be = self.asked.iter().map(|asked| (rule, asked.clone(), None));
        match self.is_known {
            true => self.ever.extend(may_be.take(1)),
            false => self.ever.extend(may_be),
        }
        if self.is_known && !self.asked.is_empty() {
            self.rules.insert(rule, self.asked.remove(0));
        }
    }

    pub fn remove(&mut self, rule: RuleId, index: u64) {
        self.rules.remove(&rule);
        let gone = self.ever.iter_mut().filter(|(id, _, _)| *id == rule);
        gone.for_each(|(_, _, end)| *end = end.or(Some(index)));
    }

    /// Whether a rule that holds for good is broken by this.
    pub fn assigned(&mut self, id: TaskId, agent: &AgentId, namespace: &Namespace) -> Broken {
        let mut rules = self.rules.values().filter(|it| it.ttl.is_none());
        let is_about = |rule: &AddRule, namespace| rule.scope.has(namespace, Kind::Process);
        let broken = rules.find(|rule| {
            let named = rule.agents.names.contains(agent);
            is_about(rule, namespace)
                && match rule.action {
                    RuleAction::Exclude => named,
                    RuleAction::Pin => !named,
                    RuleAction::Prefer => false,
                    RuleAction::Cap(most) => {
                        let held = self.live.values();
                        let held = held.filter(|(on, of)| on == agent && is_about(rule, of));
                        named && held.count() >= most as usize
                    }
                }
        });
        let what = broken.map(|rule| format!("{id} on {agent}, against: {rule}"));
        self.live.insert(id, (agent.clone(), namespace.clone()));
        what
    }

    pub fn over(&mut self, id: TaskId) {
        self.live.remove(&id);
    }

    /// Whether any rule that held at this entry, or since, tells tasks of these two apart.
    pub fn tell_apart(&self, one: &Namespace, other: &Namespace, since: u64) -> bool {
        let is_about = |rule: &AddRule, it| rule.scope.has(it, Kind::Process);
        let held = self
            .ever
            .iter()
            .filter(|(_, _, end)| end.is_none_or(|end| end > since));
        held.into_iter()
            .any(|(_, rule, _)| is_about(rule, one) != is_about(rule, other))
    }
}

/// What was seen, where something was.
type Broken = Option<String>;

fn rule_of(op: &Op) -> Option<&AddRule> {
    match op {
        Op::Client {
            command: Command::AddRule(asked),
            ..
        } => Some(asked),
        Op::Client { .. } | Op::System(_) => None,
    }
}
