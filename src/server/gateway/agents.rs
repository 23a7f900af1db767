//! Agents: what the log knows of them, and what this controller hears from them.

use model::{AgentId, AgentState, State};
use tonic::{Request, Response, Status};
use wire::status::{Code, Failure};
use wire::v1;

use super::{Deadline, Gateway, failure};
use crate::limit;

#[tonic::async_trait]
impl v1::agents_server::Agents for Gateway {
    async fn list(
        &self,
        request: Request<v1::ListAgentsRequest>,
    ) -> Result<Response<v1::ListAgentsReply>, Status> {
        self.reader(&request)?;
        let (state, position) = self.read(Deadline::of(request.metadata())).await?;
        let agents = state
            .agents()
            .map(|agent| self.agent(&state, agent))
            .collect();
        Ok(Response::new(v1::ListAgentsReply {
            position: Some(position),
            agents,
        }))
    }

    async fn get(
        &self,
        request: Request<v1::GetAgentRequest>,
    ) -> Result<Response<v1::AgentReply>, Status> {
        self.reader(&request)?;
        Ok(self.get_agent(request).await?)
    }
}

impl Gateway {
    async fn get_agent(
        &self,
        request: Request<v1::GetAgentRequest>,
    ) -> Result<Response<v1::AgentReply>, Failure> {
        let id = AgentId::new(&request.get_ref().id)
            .map_err(|error| Failure::new(Code::Invalid, error.to_string()))?;
        let (state, position) = self.read(Deadline::of(request.metadata())).await?;
        let agent = state.agent(&id).ok_or_else(|| failure::no_agent(&id))?;
        let agent = Some(self.agent(&state, agent));
        Ok(Response::new(v1::AgentReply {
            position: Some(position),
            agent,
        }))
    }

    fn agent(&self, state: &State, agent: &model::Agent) -> v1::Agent {
        let profile = &agent.profile;
        let session = self.0.sessions.of(&profile.id);
        let heard = session.as_ref().map(|session| session.heard());
        let silent = heard.as_ref().is_none_or(|(ago, _)| *ago >= limit::SILENCE);
        let shown = match agent.state {
            AgentState::Lost => "lost",
            AgentState::Ready if silent => "suspect",
            AgentState::Ready => "ready",
        };
        let held = state.held_by(&profile.id);
        let attempts = held
            .filter_map(|task| state.live_fence(task.id))
            .map(v1::Fence::from);
        v1::Agent {
            id: profile.id.to_string(),
            state: shown.into(),
            slots: profile.slots,
            busy: state.busy(&profile.id),
            labels: wire::convert::labels_out(&profile.labels),
            incarnation: profile.incarnation.to_string(),
            registered_index: agent.registered_index,
            version: profile.version.clone(),
            limits: profile.limits.clone(),
            status: heard.and_then(|(_, status)| status),
            attempts: attempts.collect(),
            connected: session.is_some(),
        }
    }
}
