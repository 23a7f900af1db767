//! What administrators decide on agents: cordon, uncordon, drain, remove. Each is one entry, and safe to
//! repeat: to ask for what is so already is fine.

use model::{AgentId, Command, Principal};
use tonic::{Request, Response};
use wire::status::{Code, Failure};
use wire::v1;

use super::Gateway;
use super::tasks::position_of;

impl Gateway {
    pub(super) async fn order_agent(
        &self,
        request: Request<v1::AgentOrder>,
    ) -> Result<Response<v1::AgentReply>, Failure> {
        self.ordered(
            request,
            |order| {
                let agent = AgentId::new(&order.id)?;
                Ok((agent, Command::try_from(order.clone())?))
            },
            |agent, principal, command| self.order_here(agent, principal, command),
            |hop, order| async move { hop.agents().order(order).await },
        )
        .await
    }

    async fn order_here(
        &self,
        id: AgentId,
        principal: Principal,
        command: Command,
    ) -> Result<v1::AgentReply, Failure> {
        let shown = || {
            let state = self.0.cluster.view();
            let agent = state.agent(&id)?;
            Some(self.agent(&state, agent))
        };
        let removes = matches!(command, Command::RemoveAgent { .. });
        if removes && self.0.sessions.of(&id).is_some() {
            return Err(at_work(&id));
        }
        let before = shown().filter(|_| removes);
        let accepted = self.done(principal, command).await?;
        Ok(v1::AgentReply {
            position: Some(position_of(&accepted)),
            agent: before.or_else(shown),
        })
    }
}

/// The log can't know: it would register again at once, as one that nobody has closed.
fn at_work(id: &AgentId) -> Failure {
    let why = format!("agent {id} has a session: it would only register again");
    Failure::new(Code::Refused, why).with_hint("stop its process, then remove it")
}
