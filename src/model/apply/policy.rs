//! How agents are to be chosen.

use crate::apply::{Outcome, Step};
use crate::command::Reply;
use crate::event::Event;
use crate::limit;
use crate::policy::{Policy, SetPolicy};
use crate::principal::Principal;
use crate::rejected::Rejected;
use crate::state::State;

impl State {
    /// What is so already stays as it is, and keeps who said it first.
    pub(super) fn set_policy(
        &mut self,
        principal: &Principal,
        asked: &SetPolicy,
        step: &mut Step<'_>,
    ) -> Outcome {
        let known = self.policies.get(&asked.scope);
        if known.map(|policy| policy.strategy) == asked.strategy {
            return Ok(Reply::Done);
        }
        match asked.strategy {
            None => drop(self.policies.remove(&asked.scope)),
            Some(_) if known.is_none() && self.policies.len() >= limit::POLICIES_MAX => {
                let most = limit::POLICIES_MAX;
                return Err(Rejected::over("the number of policies", most, "policies"));
            }
            Some(strategy) => {
                let policy = Policy {
                    strategy,
                    by: principal.name.clone(),
                    since: step.wall,
                };
                self.policies.put(asked.scope.clone(), policy);
            }
        }
        step.events.push(Event::PolicySet {
            scope: asked.scope.clone(),
        });
        Ok(Reply::Done)
    }
}
