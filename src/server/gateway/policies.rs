//! Policies: how agents are chosen.

use model::{Command, Principal};
use tonic::{Request, Response, Status};
use wire::convert::policies_out;
use wire::status::Failure;
use wire::v1;

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
}
