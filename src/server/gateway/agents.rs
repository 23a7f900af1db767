//! Agents: what the log knows of them, and what this controller hears from them.

use std::future::Future;

use model::{AgentId, AgentState, Reason, State};
use scheduler::Machines;
use tonic::{Request, Response, Status};
use wire::status::Failure;
use wire::v1;

use super::request::Hop;
use super::{Deadline, Gateway, failure};
use crate::callers::Caller;
use crate::limit;

/// Shown for an agent that has not been heard here because nobody could have been yet.
const UNKNOWN: &str = "unknown";

#[tonic::async_trait]
impl v1::agents_server::Agents for Gateway {
    async fn list(
        &self,
        request: Request<v1::ListAgentsRequest>,
    ) -> Result<Response<v1::ListAgentsReply>, Status> {
        let caller = self.reader(&request)?;
        let (state, position) = self.read(Deadline::of(request.metadata())).await?;
        let mut agents: Vec<v1::Agent> = state
            .agents()
            .map(|agent| self.agent(&state, agent))
            .collect();
        self.tell_health(&state, &mut agents).await;
        if let Some(hop) = self.who_knows_better(&caller, &agents) {
            let asked = pass_on(&caller, v1::ListAgentsRequest {});
            if let Some(answer) = soon(hop.agents().list(asked)).await {
                return Ok(answer);
            }
        }
        Ok(Response::new(v1::ListAgentsReply {
            position: Some(position),
            agents,
        }))
    }

    async fn get(
        &self,
        request: Request<v1::GetAgentRequest>,
    ) -> Result<Response<v1::AgentReply>, Status> {
        let caller = self.reader(&request)?;
        Ok(self.get_agent(&caller, request).await?)
    }

    async fn order(
        &self,
        request: Request<v1::AgentOrder>,
    ) -> Result<Response<v1::AgentReply>, Status> {
        Ok(self.order_agent(request).await?)
    }
}

impl Gateway {
    async fn get_agent(
        &self,
        caller: &Caller,
        request: Request<v1::GetAgentRequest>,
    ) -> Result<Response<v1::AgentReply>, Failure> {
        let id = AgentId::new(&request.get_ref().id)?;
        let (state, position) = self.read(Deadline::of(request.metadata())).await?;
        let agent = state.agent(&id).ok_or_else(|| failure::no_agent(&id))?;
        let mut agent = self.agent(&state, agent);
        self.tell_health(&state, std::slice::from_mut(&mut agent))
            .await;
        if let Some(hop) = self.who_knows_better(caller, std::slice::from_ref(&agent)) {
            let asked = pass_on(caller, request.into_inner());
            if let Some(answer) = soon(hop.agents().get(asked)).await {
                return Ok(answer);
            }
        }
        let agent = Some(agent);
        Ok(Response::new(v1::AgentReply {
            position: Some(position),
            agent,
        }))
    }

    /// The leader, where this controller does not lead, or is too young to have heard all of these agents. A leader has
    /// sessions with those that work, or it could not lead them.
    fn who_knows_better(&self, caller: &Caller, agents: &[v1::Agent]) -> Option<Hop> {
        let is_doubtful = |it: &v1::Agent| it.state == UNKNOWN || it.health.is_none();
        let doubtful = agents.iter().any(is_doubtful);
        if caller.forwarded || !doubtful {
            return None;
        }
        let leadership = *self.0.cluster.leadership().borrow();
        let leader = leadership.leader.filter(|_| !leadership.is_me)?;
        self.hop(leader)
    }

    /// Only the leader can: it compares those that it leads.
    async fn tell_health(&self, state: &State, agents: &mut [v1::Agent]) {
        if !self.0.cluster.leadership().borrow().is_me {
            return;
        }
        let Some(fleet) = self.0.inputs.fleet().await else {
            return;
        };
        let machines = Machines::of(state, &fleet);
        for agent in agents.iter_mut().filter(|agent| agent.connected) {
            if let Ok(id) = AgentId::new(&agent.id) {
                let health = machines.health(&id).priority();
                agent.health = u32::try_from(health).ok();
                agent.hot = machines.is_hot(&id);
            }
        }
    }

    pub(super) fn agent(&self, state: &State, agent: &model::Agent) -> v1::Agent {
        let profile = &agent.profile;
        let session = self.0.sessions.of(&profile.id);
        let heard = session.as_ref().map(|session| session.heard());
        let silent = heard.as_ref().is_none_or(|(ago, _)| *ago >= limit::SILENCE);
        let busy = state.busy(&profile.id);
        let shown = match (agent.state, agent.is_open()) {
            (AgentState::Lost, _) => "lost",
            (AgentState::Ready, Err(Reason::Draining)) if busy == 0 => "drained",
            (AgentState::Ready, Err(Reason::Draining)) => "draining",
            (AgentState::Ready, Err(_)) => "cordoned",
            (AgentState::Ready, Ok(())) if !silent => "ready",
            (AgentState::Ready, Ok(())) if self.0.started.elapsed() < limit::SILENCE => UNKNOWN,
            (AgentState::Ready, Ok(())) => "suspect",
        };
        let held = state.held_by(&profile.id);
        let attempts = held
            .filter_map(|task| state.live_fence(task.id))
            .map(v1::Fence::from);
        v1::Agent {
            id: profile.id.to_string(),
            state: shown.into(),
            slots: profile.slots,
            busy,
            labels: wire::convert::labels_out(&profile.labels),
            backends: backends(state, profile),
            incarnation: profile.incarnation.to_string(),
            registered_index: agent.registered_index,
            version: profile.version.clone(),
            limits: profile.limits.clone(),
            status: heard.and_then(|(_, status)| status),
            attempts: attempts.collect(),
            connected: session.is_some(),
            cordon: agent.cordon.as_ref().map(v1::Cordon::from),
            supply: profile.supply.as_ref().map(v1::Supply::from),
            taken: state.gone(&profile.id).map(|gone| v1::Taken::from(&*gone)),
            health: None,
            hot: false,
        }
    }
}

/// What an agent says of its back ends, with what was set for them.
fn backends(state: &State, profile: &model::AgentProfile) -> Vec<v1::Backend> {
    let mut all = wire::convert::backends_out(&profile.backends);
    for backend in &mut all {
        let settings = state.backend_settings(&profile.id, &backend.name);
        backend.settings = Some(settings.into());
    }
    all
}

/// A question for the leader, which has to answer soon: we could answer ourselves, if not as well.
fn pass_on<M>(caller: &Caller, message: M) -> Request<M> {
    Hop::pass_on(caller, Deadline::within(limit::MEMBER_ANSWER), message)
}

/// The leader's answer, if it gives one in time.
async fn soon<T>(answer: impl Future<Output = Result<T, Status>>) -> Option<T> {
    tokio::time::timeout(limit::MEMBER_ANSWER, answer)
        .await
        .ok()?
        .ok()
}
