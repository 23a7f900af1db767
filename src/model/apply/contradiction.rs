//! Whether a new rule goes together with those that hold.
//!
//! Rules tell sorts of tasks apart, by namespace and kind. Of each sort that the new one is about some agent has to be left
//! by all rules together.

use std::collections::BTreeSet;

use fixedbitset::FixedBitSet;

use crate::agent::AgentProfile;
use crate::id::Namespace;
use crate::policy::Scope;
use crate::rejected::Rejected;
use crate::rule::{AddRule, Rule, RuleAction};
use crate::spec::Kind;
use crate::state::State;
use crate::time::Timestamp;

/// A namespace, or none for all that no rule names, and a kind.
type Sort<'r> = (Option<&'r Namespace>, Kind);

/// A rule that holds, and the registered agents that it admits, by their places.
type Other<'r> = (&'r Rule, FixedBitSet);

impl State {
    /// No task may be left without any agent by it, and others have to leave it some of the agents that it is about. Agents
    /// count that are registered, lost or closed ones too: they may come back.
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
        let named = places(&profiles, |agent| asked.agents.has(agent));
        if named.is_clear() {
            let agents = &asked.agents;
            return Err(Rejected::Invalid(format!(
                "no agent fits it: there are no {agents}; see `quorate agent list -o wide`"
            )));
        }
        let leaves_some = asked.action == RuleAction::Exclude;
        let mut can = named.ones().filter_map(|place| profiles.get(place));
        if asked.scope.kind == Some(Kind::Inference)
            && !leaves_some
            && !can.any(|agent| !agent.backends.is_empty())
        {
            let agents = &asked.agents;
            return Err(Rejected::Invalid(format!(
                "no agent fits it: no model server is reached by {agents}; see `quorate backend list`"
            )));
        }
        // Those that it would leave to its tasks, or would be about.
        let left = match asked.action {
            RuleAction::Pin | RuleAction::Prefer | RuleAction::Cap(_) => named,
            RuleAction::Exclude => places(&profiles, |agent| !asked.agents.has(agent)),
        };
        let others = self.rules_at(now);
        let others: Vec<Other<'_>> = others
            .filter(|rule| !rule.asked.is_about_the_same(asked))
            .map(|rule| (rule, places(&profiles, |it| rule.admits(it).is_ok())))
            .collect();
        let all = places(&profiles, |_| true);
        let sorts = sorts_of_tasks(asked, &others);
        let open = |sort| {
            about(&others, sort).fold(all.clone(), |mut open, (_, admits)| {
                open.intersect_with(admits);
                open
            })
        };
        let open = sorts.iter().map(|sort| (*sort, open(*sort)));
        let failing: Vec<(Sort<'_>, FixedBitSet)> =
            open.filter(|(_, open)| open.is_disjoint(&left)).collect();
        let is_useless = failing.len() == sorts.len();
        let worse = match asked.action {
            // Who had no agent before is not worse off.
            RuleAction::Pin | RuleAction::Exclude => {
                failing.iter().find(|(_, open)| !open.is_clear())
            }
            RuleAction::Prefer | RuleAction::Cap(_) => None,
        };
        let Some((sort, _)) = worse.or_else(|| failing.first().filter(|_| is_useless)) else {
            return Ok(());
        };
        let (namespace, kind) = *sort;
        let alike = failing.iter().filter(|(other, _)| other.0 == namespace);
        let scope = match is_useless {
            true => asked.scope.clone(),
            false => Scope {
                namespace: namespace.cloned(),
                kind: match alike.count() {
                    1 => Some(kind),
                    _ => asked.scope.kind,
                },
            },
        };
        let rules = in_the_way(&others, *sort, &left);
        Err(contradiction(asked, &scope, &rules))
    }
}

fn places(profiles: &[&AgentProfile], are: impl Fn(&AgentProfile) -> bool) -> FixedBitSet {
    let found = profiles.iter().enumerate().filter(|(_, agent)| are(agent));
    found.map(|(place, _)| place).collect()
}

/// Of which sorts tasks may be that a new rule is about, as far as rules tell them apart.
fn sorts_of_tasks<'r>(asked: &'r AddRule, others: &[Other<'r>]) -> Vec<Sort<'r>> {
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
    others: &'o [Other<'r>],
    (namespace, kind): Sort<'o>,
) -> impl Iterator<Item = &'o Other<'r>> {
    let has = move |scope: &Scope| scope.has_of(namespace, kind);
    others
        .iter()
        .filter(move |(rule, _)| has(&rule.asked.scope))
}

/// The fewest rules that keep one of these agents from such tasks: to remove them is the shortest way.
fn in_the_way<'r>(others: &[Other<'r>], sort: Sort<'_>, left: &FixedBitSet) -> Vec<&'r Rule> {
    let closed = left.ones().map(|place| {
        let refuse = about(others, sort).filter(|(_, admits)| !admits.contains(place));
        refuse.map(|(rule, _)| *rule).collect::<Vec<_>>()
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
