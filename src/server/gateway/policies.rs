//! Policies: how agents are chosen; and the rules that people made by hand.

use model::{Command, Principal, RuleId};
use tonic::{Request, Response, Status};
use wire::convert::{policies_out, rule_out};
use wire::status::{Code, Failure};
use wire::v1;

use super::request::Hop;
use super::tasks::position_of;
use super::{Deadline, Gateway};

#[tonic::async_trait]
impl v1::policies_server::Policies for Gateway {
    async fn list(
        &self,
        request: Request<v1::ListPoliciesRequest>,
    ) -> Result<Response<v1::PoliciesReply>, Status> {
        self.reader(&request)?;
        let (state, position) = self.read(Deadline::of(request.metadata())).await?;
        Ok(Response::new(v1::PoliciesReply {
            position: Some(position),
            policies: policies_out(&state),
        }))
    }

    async fn set(
        &self,
        request: Request<v1::SetPolicyRequest>,
    ) -> Result<Response<v1::PoliciesReply>, Status> {
        Ok(self.set_policy(request).await?)
    }

    async fn list_rules(
        &self,
        request: Request<v1::ListRulesRequest>,
    ) -> Result<Response<v1::ListRulesReply>, Status> {
        self.reader(&request)?;
        let (state, position) = self.read(Deadline::of(request.metadata())).await?;
        let rules = state.rules().map(|rule| rule_out(&state, rule));
        Ok(Response::new(v1::ListRulesReply {
            position: Some(position),
            rules: rules.collect(),
        }))
    }

    async fn add_rule(
        &self,
        request: Request<v1::AddRuleRequest>,
    ) -> Result<Response<v1::RuleReply>, Status> {
        let order = |order: &v1::AddRuleRequest| {
            let asked = model::AddRule::try_from(order.clone())?;
            Ok((asked.clone(), Command::AddRule(asked)))
        };
        let pass = |hop: Hop, order| async move { hop.policies().add_rule(order).await };
        let here = |asked, principal, command| self.add_rule_here(asked, principal, command);
        Ok(self.ordered(request, order, here, pass).await?)
    }

    async fn remove_rule(
        &self,
        request: Request<v1::RemoveRuleRequest>,
    ) -> Result<Response<v1::RuleReply>, Status> {
        let order = |order: &v1::RemoveRuleRequest| {
            let rule: RuleId = order.id.parse()?;
            Ok((rule, Command::RemoveRule { rule }))
        };
        let pass = |hop: Hop, order| async move { hop.policies().remove_rule(order).await };
        let here = |rule, principal, command| self.remove_rule_here(rule, principal, command);
        Ok(self.ordered(request, order, here, pass).await?)
    }
}

impl Gateway {
    async fn set_policy(
        &self,
        request: Request<v1::SetPolicyRequest>,
    ) -> Result<Response<v1::PoliciesReply>, Failure> {
        self.ordered(
            request,
            |order| {
                let asked = model::SetPolicy::try_from(order.clone())?;
                Ok(((), Command::SetPolicy(asked)))
            },
            |(), principal, command| self.set_policy_here(principal, command),
            |hop, order| async move { hop.policies().set(order).await },
        )
        .await
    }

    async fn set_policy_here(
        &self,
        principal: Principal,
        command: Command,
    ) -> Result<v1::PoliciesReply, Failure> {
        let accepted = self.done(principal, command).await?;
        Ok(v1::PoliciesReply {
            position: Some(position_of(&accepted)),
            policies: policies_out(&self.0.cluster.view()),
        })
    }

    async fn add_rule_here(
        &self,
        asked: model::AddRule,
        principal: Principal,
        command: Command,
    ) -> Result<v1::RuleReply, Failure> {
        let before = self.0.cluster.view();
        let now = self.0.cluster.now().state;
        // What is said once more replaces nothing: its first answer may have been lost.
        let replaced = before
            .rules_at(now)
            .find(|rule| rule.asked.is_about_the_same(&asked) && rule.asked != asked);
        let replaced = replaced.map(|rule| rule_out(&before, rule));
        let accepted = self.done(principal, command).await?;
        let state = self.0.cluster.view();
        let rule = state.rules().find(|rule| rule.asked == asked);
        let rule = rule.ok_or_else(|| {
            let why = "the rule was made, and has been replaced or removed since";
            Failure::new(Code::Stale, why.to_owned())
        })?;
        Ok(v1::RuleReply {
            position: Some(position_of(&accepted)),
            rule: Some(rule_out(&state, rule)),
            replaced,
        })
    }

    async fn remove_rule_here(
        &self,
        id: RuleId,
        principal: Principal,
        command: Command,
    ) -> Result<v1::RuleReply, Failure> {
        let before = self.0.cluster.view();
        let accepted = self.done(principal, command).await?;
        let known = before.rules().find(|rule| rule.id == id);
        // One that was made after this was asked for is known by its id alone.
        let rule = known.map_or_else(
            || v1::Rule {
                id: id.to_string(),
                ..v1::Rule::default()
            },
            |rule| rule_out(&before, rule),
        );
        Ok(v1::RuleReply {
            position: Some(position_of(&accepted)),
            rule: Some(rule),
            replaced: None,
        })
    }
}
