//! Join tokens, for administrators: make one, see them, revoke one. Whoever makes one keeps its secret; here
//! only the hash of it arrives, and no answer shows even that.

use model::{Command, JoinTokenId, Principal};
use tonic::{Request, Response, Status};
use wire::convert::join_token_out;
use wire::status::Failure;
use wire::v1;

use super::tasks::position_of;
use super::{Deadline, Gateway};

#[tonic::async_trait]
impl v1::join_tokens_server::JoinTokens for Gateway {
    async fn create(
        &self,
        request: Request<v1::CreateJoinTokenRequest>,
    ) -> Result<Response<v1::JoinTokenReply>, Status> {
        Ok(self.create_join_token(request).await?)
    }

    async fn list(
        &self,
        request: Request<v1::ListJoinTokensRequest>,
    ) -> Result<Response<v1::ListJoinTokensReply>, Status> {
        self.administrator(&request)?;
        let (state, position) = self.read(Deadline::of(request.metadata())).await?;
        let now = state.time();
        let tokens = state.join_tokens().map(|token| join_token_out(token, now));
        Ok(Response::new(v1::ListJoinTokensReply {
            position: Some(position),
            tokens: tokens.collect(),
        }))
    }

    async fn revoke(
        &self,
        request: Request<v1::RevokeJoinTokenRequest>,
    ) -> Result<Response<v1::JoinTokenReply>, Status> {
        Ok(self.revoke_join_token(request).await?)
    }
}

impl Gateway {
    async fn create_join_token(
        &self,
        request: Request<v1::CreateJoinTokenRequest>,
    ) -> Result<Response<v1::JoinTokenReply>, Failure> {
        self.ordered(
            request,
            |order| {
                Ok((
                    JoinTokenId::new(&order.id)?,
                    Command::try_from(order.clone())?,
                ))
            },
            |id, principal, command| self.order_token_here(id, principal, command),
            |hop, order| async move { hop.join_tokens().create(order).await },
        )
        .await
    }

    async fn revoke_join_token(
        &self,
        request: Request<v1::RevokeJoinTokenRequest>,
    ) -> Result<Response<v1::JoinTokenReply>, Failure> {
        self.ordered(
            request,
            |order| {
                let token = JoinTokenId::new(&order.id)?;
                let command = Command::RevokeJoinToken {
                    token: token.clone(),
                };
                Ok((token, command))
            },
            |id, principal, command| self.order_token_here(id, principal, command),
            |hop, order| async move { hop.join_tokens().revoke(order).await },
        )
        .await
    }

    async fn order_token_here(
        &self,
        id: JoinTokenId,
        principal: Principal,
        command: Command,
    ) -> Result<v1::JoinTokenReply, Failure> {
        let accepted = self.done(principal, command).await?;
        let state = self.0.cluster.view();
        let token = state.join_token(&id);
        Ok(v1::JoinTokenReply {
            position: Some(position_of(&accepted)),
            token: token.map(|token| join_token_out(token, state.time())),
        })
    }
}
