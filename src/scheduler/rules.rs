//! Rules by hand, as a round looks at them: which of them concern a task, and which name an agent, are two sets of bits, so
//! that to compare them costs next to nothing however many decisions there are.

use std::ops::{BitAnd, BitOr, Not};

use model::{AgentProfile, Kind, Namespace, Reason, Rule, RuleAction, State, TaskSpec, Timestamp};
use mutant::Mutant;

/// Some of a round's rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RuleSet(u128);

// A bit each.
const _: () = assert!(model::RULES_MAX <= u128::BITS as usize);

impl RuleSet {
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn len(self) -> u32 {
        self.0.count_ones()
    }

    fn numbers(self) -> impl Iterator<Item = usize> {
        (0..model::RULES_MAX).filter(move |number| self.0 & (1 << number) != 0)
    }
}

impl BitAnd for RuleSet {
    type Output = RuleSet;

    fn bitand(self, other: RuleSet) -> RuleSet {
        RuleSet(self.0 & other.0)
    }
}

impl BitOr for RuleSet {
    type Output = RuleSet;

    fn bitor(self, other: RuleSet) -> RuleSet {
        RuleSet(self.0 | other.0)
    }
}

impl Not for RuleSet {
    type Output = RuleSet;

    fn not(self) -> RuleSet {
        RuleSet(!self.0)
    }
}

/// Those that hold in a round.
#[derive(Debug, Default)]
pub struct Rules<'a> {
    all: Vec<&'a Rule>,
    pins: RuleSet,
    excludes: RuleSet,
    prefers: RuleSet,
    caps: RuleSet,
}

impl<'a> Rules<'a> {
    /// At a state time.
    pub fn of(state: &'a State, now: Timestamp) -> Rules<'a> {
        if mutant::is(Mutant::RulesUnchecked) {
            return Rules::default();
        }
        let all: Vec<&Rule> = state.rules_at(now).take(model::RULES_MAX).collect();
        let mut rules = Rules {
            all,
            ..Rules::default()
        };
        rules.pins = rules.those(|rule| matches!(rule.asked.action, RuleAction::Pin));
        rules.excludes = rules.those(|rule| matches!(rule.asked.action, RuleAction::Exclude));
        rules.prefers = rules.those(|rule| matches!(rule.asked.action, RuleAction::Prefer));
        rules.caps = rules.those(|rule| matches!(rule.asked.action, RuleAction::Cap(_)));
        rules
    }

    fn those(&self, are: impl Fn(&Rule) -> bool) -> RuleSet {
        let found = self.all.iter().enumerate().filter(|(_, rule)| are(rule));
        RuleSet(found.fold(0, |bits, (number, _)| bits | 1 << number))
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Those that are about such a task.
    pub fn concerning(&self, spec: &TaskSpec) -> RuleSet {
        self.those(|rule| rule.concerns(&spec.namespace, spec.kind()))
    }

    /// Those that are about all tasks of a namespace, whatever their kind.
    pub fn concerning_all_of(&self, namespace: &Namespace) -> RuleSet {
        self.those(|rule| Kind::ALL.iter().all(|kind| rule.concerns(namespace, *kind)))
    }

    /// Those that name such an agent.
    pub fn naming(&self, agent: &AgentProfile) -> RuleSet {
        self.those(|rule| rule.asked.agents.has(agent))
    }

    /// Whether any of them counts attempts.
    pub fn have_cap(&self, some: RuleSet) -> bool {
        !(some & self.caps).is_empty()
    }

    pub fn have_preference(&self, some: RuleSet) -> bool {
        !(some & self.prefers).is_empty()
    }

    /// How many of the preferences that concern a task an agent does not meet.
    pub fn unmet(&self, concerning: RuleSet, naming: RuleSet) -> u32 {
        (concerning & self.prefers & !naming).len()
    }

    /// Whether an agent may have a task at all.
    pub fn admit(&self, concerning: RuleSet, naming: RuleSet) -> Result<(), Reason> {
        if !(concerning & self.excludes & naming).is_empty() {
            return Err(Reason::Excluded);
        }
        match (concerning & self.pins & !naming).is_empty() {
            true => Ok(()),
            false => Err(Reason::PinnedElsewhere),
        }
    }

    /// Whether it may have one more, by how many it holds of the tasks that a rule is about.
    pub fn have_room(
        &self,
        concerning: RuleSet,
        naming: RuleSet,
        held: impl Fn(&Rule) -> u32,
    ) -> Result<(), Reason> {
        let full = |rule: &Rule| match rule.asked.action {
            RuleAction::Cap(most) => held(rule) >= most,
            RuleAction::Pin | RuleAction::Exclude | RuleAction::Prefer => false,
        };
        let caps = (concerning & self.caps & naming).numbers();
        match caps
            .filter_map(|number| self.all.get(number))
            .any(|it| full(it))
        {
            true => Err(Reason::Capped),
            false => Ok(()),
        }
    }

    /// The rules themselves.
    pub fn in_set(&self, set: RuleSet) -> impl Iterator<Item = &'a Rule> {
        set.numbers()
            .filter_map(|number| self.all.get(number).copied())
    }
}
