//! Rules by hand.

use crate::apply::{Outcome, Step};
use crate::command::Reply;
use crate::event::Event;
use crate::id::RuleId;
use crate::limit;
use crate::principal::Principal;
use crate::rejected::Rejected;
use crate::rule::{AddRule, Rule};
use crate::state::State;

impl State {
    /// One that is about the same as a known one takes its place, and its id.
    pub(super) fn add_rule(
        &mut self,
        principal: &Principal,
        asked: AddRule,
        step: &mut Step<'_>,
    ) -> Outcome {
        let known = self
            .rules()
            .find(|rule| rule.asked.is_about_the_same(&asked));
        // Whoever did not hear the answer asks again, and it may be that agents have changed meanwhile.
        if known.is_none_or(|rule| rule.asked != asked || !rule.holds_at(step.now)) {
            self.rule_fits(&asked, step.now)?;
        }
        let id = match known {
            Some(rule) => rule.id,
            None if self.rules.len() >= limit::RULES_MAX => {
                return Err(Rejected::over(
                    "the number of rules",
                    limit::RULES_MAX,
                    "rules",
                ));
            }
            None => next_id(step),
        };
        let rule = Rule {
            id,
            by: principal.name.clone(),
            since: step.wall,
            expires: asked.ttl.map(|ttl| step.now.plus(ttl)),
            expires_wall: asked.ttl.map(|ttl| step.wall.plus(ttl)),
            asked,
        };
        self.rules.put(id, rule);
        step.events.push(Event::RuleSet { rule: id });
        Ok(Reply::Done)
    }

    pub(super) fn remove_rule(&mut self, id: RuleId, step: &mut Step<'_>) -> Outcome {
        self.rules.remove(&id).ok_or(Rejected::NoSuchRule(id))?;
        step.events.push(Event::RuleRemoved { rule: id });
        Ok(Reply::Done)
    }

    /// Forgets one whose time is over.
    pub(super) fn expire_rule(&mut self, id: RuleId, step: &mut Step<'_>) -> Outcome {
        let rule = self.rules.get(&id).ok_or(Rejected::NoSuchRule(id))?;
        if rule.holds_at(step.now) {
            return Err(Rejected::Stale(format!("rule {id} has not expired")));
        }
        self.rules.remove(&id);
        step.events.push(Event::RuleExpired { rule: id });
        Ok(Reply::Done)
    }
}

/// One that this entry has not given yet.
fn next_id(step: &Step<'_>) -> RuleId {
    let given = step.events.iter().filter(|event| match event {
        Event::RuleSet { rule } => rule.entry == step.index,
        _ => false,
    });
    RuleId {
        entry: step.index,
        nth: u16::try_from(given.count()).unwrap_or(u16::MAX),
    }
}
