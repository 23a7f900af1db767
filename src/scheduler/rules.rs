//! Rules by hand, as a round looks at them: which of them concern a task, and which name an agent, are two sets of bits, so
//! that to compare them costs next to nothing however many decisions there are.

use std::collections::BTreeMap;
use std::ops::{BitAnd, BitOr, Not};

use model::{
    AgentId, AgentProfile, Kind, Mix, Namespace, Reason, Rule, RuleAction, State, Timestamp,
};
use mutant::Mutant;

/// Some of a round's rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
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
        let mut left = self.0;
        std::iter::from_fn(move || {
            let lowest = left.trailing_zeros();
            left &= left.wrapping_sub(1);
            (lowest < u128::BITS).then_some(lowest as usize)
        })
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
    /// Those that name agents and ask for no labels, by agent; and the others.
    by_name: BTreeMap<&'a AgentId, RuleSet>,
    by_label: RuleSet,
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
        for (number, rule) in rules.all.iter().enumerate() {
            let (own, agents) = (RuleSet(1 << number), &rule.asked.agents);
            if agents.names.is_empty() || !agents.require.is_empty() {
                rules.by_label = rules.by_label | own;
                continue;
            }
            for name in &agents.names {
                let named = rules.by_name.entry(name).or_default();
                *named = *named | own;
            }
        }
        rules
    }

    fn those(&self, are: impl Fn(&Rule) -> bool) -> RuleSet {
        let found = self.all.iter().enumerate().filter(|(_, rule)| are(rule));
        RuleSet(found.fold(0, |bits, (number, _)| bits | 1 << number))
    }

    /// Those that are about tasks of a namespace and a kind.
    pub fn concerning(&self, namespace: &Namespace, kind: Kind) -> RuleSet {
        self.those(|rule| rule.concerns(namespace, kind))
    }

    /// Those that name such an agent.
    pub fn naming(&self, agent: &AgentProfile) -> RuleSet {
        let by_name = self.by_name.get(&agent.id).copied().unwrap_or_default();
        let has = |number: &usize| {
            let rule = self.all.get(*number);
            rule.is_some_and(|rule| rule.asked.agents.has(agent))
        };
        let by_label = self.by_label.numbers().filter(has);
        by_label.fold(by_name, |all, number| all | RuleSet(1 << number))
    }

    pub fn have_preference(&self, some: RuleSet) -> bool {
        !(some & self.prefers).is_empty()
    }

    pub fn have_cap(&self, some: RuleSet) -> bool {
        !(some & self.caps).is_empty()
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

    /// Whether it may have one now, beside what it holds and was given.
    pub fn obeyed(
        &self,
        concerning: RuleSet,
        naming: RuleSet,
        mixes: [Option<&Mix>; 2],
    ) -> Result<(), Reason> {
        self.admit(concerning, naming)?;
        let is_full = |rule: &Rule| rule.is_full(mixes.into_iter().flatten());
        match self.in_set(concerning & self.caps & naming).any(is_full) {
            true => Err(Reason::Capped),
            false => Ok(()),
        }
    }

    /// Those that keep an agent from tasks which they concern.
    pub fn in_the_way(
        &self,
        concerning: RuleSet,
        naming: RuleSet,
        mixes: [Option<&Mix>; 2],
    ) -> RuleSet {
        let each = concerning.numbers().map(|number| RuleSet(1 << number));
        let keeping = each.filter(|own| self.obeyed(*own, naming, mixes).is_err());
        keeping.fold(RuleSet::default(), BitOr::bitor)
    }

    /// The rules themselves.
    pub fn in_set(&self, set: RuleSet) -> impl Iterator<Item = &'a Rule> {
        set.numbers()
            .filter_map(|number| self.all.get(number).copied())
    }
}
