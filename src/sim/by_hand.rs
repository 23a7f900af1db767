//! Books of the rules that people made by hand, kept from what entries ask for and from events alone.

use std::collections::BTreeMap;

use model::{AddRule, AgentId, Command, Kind, Namespace, Op, RuleAction, RuleId, TaskId};

#[derive(Default)]
pub struct ByHand {
    rules: BTreeMap<RuleId, AddRule>,
    /// All that there ever were: a plan may have been made under one that is gone.
    ever: Vec<AddRule>,
    /// Attempts by their tasks: where they are, and of which namespace.
    live: BTreeMap<TaskId, (AgentId, Namespace)>,
}

impl ByHand {
    /// The entry asked for it.
    pub fn set(&mut self, rule: RuleId, told: &mut [Option<&Op>]) {
        let asked = told.iter_mut().find_map(|op| {
            let asked = rule_of((*op)?)?;
            op.take();
            Some(asked)
        });
        if let Some(asked) = asked {
            self.rules.insert(rule, asked.clone());
            self.ever.push(asked.clone());
        }
    }

    pub fn remove(&mut self, rule: RuleId) {
        self.rules.remove(&rule);
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

    /// Whether any rule ever told tasks of these two apart.
    pub fn tell_apart(&self, one: &Namespace, other: &Namespace) -> bool {
        let is_about = |rule: &AddRule, it| rule.scope.has(it, Kind::Process);
        let mut ever = self.ever.iter();
        ever.any(|rule| is_about(rule, one) != is_about(rule, other))
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
