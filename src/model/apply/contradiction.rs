//! Whether a new rule goes together with those that hold.

use std::collections::BTreeSet;

use crate::agent::AgentProfile;
use crate::id::Namespace;
use crate::limit;
use crate::policy::Scope;
use crate::rejected::Rejected;
use crate::rule::{AddRule, Rule, RuleAction};
use crate::spec::Kind;
use crate::state::State;
use crate::time::Timestamp;

impl State {
    /// No task may be left without any agent by it, and others have to
    /// leave it some of the agents that it is about. Agents count that are registered, lost or closed ones too: they may come
    /// back.
    ///
    /// # Errors
    ///
    /// Where it names agents that are not there, or fits none, or contradicts other rules: says which win.
    pub(super) fn rule_fits(&self, asked: &AddRule, now: Timestamp) -> Result<(), Rejected> {
        let mut names = asked.agents.names.iter();
        if let Some(name) = names.find(|name| self.agent(name).is_none()) {
            return Err(Rejected::NoSuchAgent(name.clone()));
        }
        let profiles: Vec<&AgentProfile> = self.agents().map(|agent| &agent.profile).collect();
        let named = Several::of(&profiles, |agent| asked.agents.has(agent));
        if named.is_none() {
            let agents = &asked.agents;
            return Err(Rejected::Invalid(format!(
                "no agent fits it: there are no {agents}; see `quorate agent list -o wide`"
            )));
        }
        // Those that it would leave to its tasks, or would be about.
        let left = match asked.action {
            RuleAction::Pin | RuleAction::Prefer | RuleAction::Cap(_) => named,
            RuleAction::Exclude => Several::of(&profiles, |agent| !asked.agents.has(agent)),
        };
        let others = self.rules_at(now);
        let others: Vec<(&Rule, Several)> = others
            .filter(|rule| !rule.asked.is_about_the_same(asked))
            .map(|rule| (rule, Several::of(&profiles, |it| rule.admits(it).is_ok())))
            .collect();
        let sorts = sorts_of_tasks(asked, &others);
        let is_left = |sort: &&Sort<'_>| !open(&others, **sort).and(&left).is_none();
        // Who had no agent before is not worse off.
        let had_some = |sort: &&Sort<'_>| !open(&others, **sort).is_none();
        let failing = || sorts.iter().filter(|sort| !is_left(sort));
        let worst = match asked.action {
            RuleAction::Pin | RuleAction::Exclude => failing().find(had_some),
            RuleAction::Prefer | RuleAction::Cap(_) => None,
        };
        let is_useless = !sorts.iter().any(|sort| is_left(&sort));
        let Some(sort) = worst.or_else(|| failing().next().filter(|_| is_useless)) else {
            return Ok(());
        };
        let (namespace, kind) = *sort;
        let all_of = |namespace| failing().filter(|it| it.0 == namespace).count();
        let scope = match is_useless {
            true => asked.scope.clone(),
            false => Scope {
                namespace: namespace.cloned(),
                kind: match all_of(namespace) {
                    1 => Some(kind),
                    _ => asked.scope.kind,
                },
            },
        };
        Err(contradiction(
            asked,
            &scope,
            &in_the_way(&others, *sort, &left),
        ))
    }
}

/// Some of the registered agents, by their places.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Several(Vec<u64>);

impl Several {
    fn of(profiles: &[&AgentProfile], are: impl Fn(&AgentProfile) -> bool) -> Several {
        let words = profiles.chunks(64).map(|some| {
            let bits = some.iter().enumerate().filter(|(_, agent)| are(agent));
            bits.fold(0, |word, (bit, _)| word | 1 << bit)
        });
        Several(words.collect())
    }

    fn and(&self, other: &Several) -> Several {
        let both = self.0.iter().zip(&other.0);
        Several(both.map(|(one, other)| one & other).collect())
    }

    fn is_none(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    fn places(&self) -> impl Iterator<Item = usize> {
        let words = self.0.iter().enumerate();
        words.flat_map(|(place, word)| {
            let bits = (0..64).filter(move |bit| word & (1 << bit) != 0);
            bits.map(move |bit| place * 64 + bit)
        })
    }

    fn has(&self, place: usize) -> bool {
        let word = self.0.get(place / 64);
        word.is_some_and(|word| word & (1 << (place % 64)) != 0)
    }
}

/// A namespace, or none for all that no rule names, and a kind.
type Sort<'r> = (Option<&'r Namespace>, Kind);

/// Of which sorts tasks may be that a new rule is about, as far as rules tell them apart.
fn sorts_of_tasks<'r>(asked: &'r AddRule, others: &[(&'r Rule, Several)]) -> Vec<Sort<'r>> {
    let namespaces: BTreeSet<Option<&Namespace>> = match &asked.scope.namespace {
        Some(own) => BTreeSet::from([Some(own)]),
        None => {
            let named = others
                .iter()
                .map(|(rule, _)| rule.asked.scope.namespace.as_ref());
            named.chain([None]).collect()
        }
    };
    let kinds = Kind::ALL.into_iter();
    let kinds = kinds.filter(|kind| asked.scope.kind.is_none_or(|own| own == *kind));
    let sorts = kinds.flat_map(|kind| namespaces.iter().map(move |it| (*it, kind)));
    sorts.collect()
}

fn about<'o, 'r>(
    others: &'o [(&'r Rule, Several)],
    (namespace, kind): Sort<'o>,
) -> impl Iterator<Item = (&'r Rule, &'o Several)> {
    let about = others
        .iter()
        .filter(move |(rule, _)| rule.asked.scope.has_of(namespace, kind));
    about.map(|(rule, admits)| (*rule, admits))
}

/// The agents that rules leave to tasks.
fn open(others: &[(&Rule, Several)], sort: Sort<'_>) -> Several {
    let words = others.first().map_or(0, |(_, admits)| admits.0.len());
    let none_closed = Several(vec![u64::MAX; words]);
    match words {
        // Without other rules there is nothing to go by.
        0 => Several(vec![u64::MAX; limit::AGENTS_MAX.div_ceil(64)]),
        _ => about(others, sort).fold(none_closed, |open, (_, admits)| open.and(admits)),
    }
}

/// The fewest rules that keep one of these agents from such tasks: to remove them is the shortest way.
fn in_the_way<'r>(others: &[(&'r Rule, Several)], sort: Sort<'_>, left: &Several) -> Vec<&'r Rule> {
    let closed = left.places().map(|place| {
        let refuse = about(others, sort).filter(|(_, admits)| !admits.has(place));
        refuse.map(|(rule, _)| rule).collect::<Vec<_>>()
    });
    closed.min_by_key(Vec::len).unwrap_or_default()
}

fn contradiction(asked: &AddRule, scope: &Scope, rules: &[&Rule]) -> Rejected {
    let are = |action: RuleAction| rules.iter().all(|rule| rule.asked.action == action);
    let wins = match asked.action {
        _ if rules.is_empty() => {
            return Rejected::RuleContradicts(format!("no agent would be left for {scope}"));
        }
        RuleAction::Pin if are(RuleAction::Exclude) => {
            "an exclusion wins over a pin, so no agent would be left"
        }
        RuleAction::Exclude if are(RuleAction::Pin) => {
            "an exclusion wins over a pin, so no agent would be left"
        }
        RuleAction::Pin | RuleAction::Exclude => "no agent would be left",
        RuleAction::Prefer | RuleAction::Cap(_) => {
            "pins and exclusions win, so this would do nothing"
        }
    };
    let said = rules.iter().map(|rule| {
        let (said, by, reason) = (&rule.asked, &rule.by, &rule.asked.reason);
        format!("{} says to {said} ({by}: {reason})", rule.id)
    });
    let said: Vec<String> = said.collect();
    let removals = rules
        .iter()
        .map(|rule| format!("`quorate policy rule-remove {}`", rule.id));
    let removals: Vec<String> = removals.collect();
    // The way out comes first: a long message is cut.
    Rejected::RuleContradicts(format!(
        "for {scope} {wins}; {} first, or name other agents: {}",
        removals.join(" and "),
        said.join(", and ")
    ))
}
