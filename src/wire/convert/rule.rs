//! Rules by hand.

use model::{AddRule, AgentId, Agents, Expression, Millis, Rule, RuleAction, State};

use super::Malformed;
use super::policy::{scope_in, scope_out};
use super::spec::require_in;
use crate::v1;

impl TryFrom<v1::AddRuleRequest> for AddRule {
    type Error = Malformed;

    fn try_from(asked: v1::AddRuleRequest) -> Result<AddRule, Malformed> {
        let action = match (asked.action.as_str(), asked.most) {
            ("cap", most) => RuleAction::Cap(most),
            ("pin", 0) => RuleAction::Pin,
            ("exclude", 0) => RuleAction::Exclude,
            ("prefer", 0) => RuleAction::Prefer,
            ("pin" | "exclude" | "prefer", _) => {
                return Err(Malformed("only a cap says how many at most".into()));
            }
            ("", _) => return Err(Malformed::missing("the action")),
            (other, _) => {
                let there = "there are pin, exclude, prefer and cap";
                return Err(Malformed(format!("a rule can't `{other}`: {there}")));
            }
        };
        let names = asked.agents.iter().map(|name| AgentId::new(name));
        // In one order, so that the same rule is known again.
        let mut require = require_in(&asked.require)?;
        require.sort();
        require.dedup();
        Ok(AddRule {
            action,
            scope: scope_in(&asked.namespace, &asked.kind)?,
            agents: Agents {
                names: names.collect::<Result<_, _>>()?,
                require,
            },
            reason: asked.reason,
            ttl: asked.ttl_ms.map(Millis),
        })
    }
}

pub fn rule_out(state: &State, rule: &Rule) -> v1::Rule {
    let AddRule { action, agents, .. } = &rule.asked;
    let (namespace, kind) = scope_out(&rule.asked.scope);
    let fits = state.agents().filter(|agent| agents.has(&agent.profile));
    v1::Rule {
        id: rule.id.to_string(),
        words: rule.asked.to_string(),
        action: action.as_str().to_owned(),
        most: match action {
            RuleAction::Cap(most) => *most,
            RuleAction::Pin | RuleAction::Exclude | RuleAction::Prefer => 0,
        },
        namespace,
        kind,
        agents: agents.names.iter().map(AgentId::to_string).collect(),
        require: agents.require.iter().map(Expression::to_string).collect(),
        reason: rule.asked.reason.clone(),
        by: rule.by.clone(),
        since: rule.since.0,
        expires_at: rule.expires_wall.map(|at| at.0),
        fits: u32::try_from(fits.count()).unwrap_or(u32::MAX),
    }
}
