//! Questions to all controllers at once, on connections that stay: under faults nobody knows beforehand who can
//! answer, and a process for each question would be slower than most elections.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio_rustls::rustls::ClientConfig;
use tonic::transport::Channel;
use wire::v1;
use wire::v1::agents_client::AgentsClient;
use wire::v1::cluster_client::ClusterClient;

use crate::Error;
use crate::cluster::{self, Ask, Status};

/// For one answer; a controller that is cut off has none.
const ANSWER: Duration = Duration::from_secs(2);

/// A connection to each controller.
#[derive(Debug, Clone)]
pub struct Askers(Vec<Channel>);

impl Askers {
    pub fn new(addresses: &[String], tls: &Arc<ClientConfig>) -> Askers {
        let channels = addresses.iter().map(|at| cluster::channel(at, tls));
        Askers(channels.collect())
    }

    /// The first answer that `wanted` likes; else the last one.
    async fn first<T, F: Future<Output = Result<T, Error>>>(
        &self,
        ask: impl Fn(Channel) -> F,
        wanted: impl Fn(&T) -> bool,
    ) -> Result<T, Error> {
        let within = |channel: &Channel| tokio::time::timeout(ANSWER, ask(channel.clone()));
        let mut asked: FuturesUnordered<_> = self.0.iter().map(within).collect();
        let mut last = Err(Error::Invalid("no controller answers".to_owned()));
        while let Some(answer) = asked.next().await {
            match answer {
                Ok(Ok(answer)) if wanted(&answer) => return Ok(answer),
                Ok(answer) => last = answer,
                Err(_elapsed) => {}
            }
        }
        last
    }

    /// An agent as a controller shows it.
    pub async fn agent(&self, id: &str) -> Result<v1::Agent, Error> {
        let ask = |channel| async {
            let request = v1::GetAgentRequest { id: id.to_owned() };
            let reply = AgentsClient::new(channel).get(request).await;
            let reply = reply.map_err(Error::call("Agents.Get"))?.into_inner();
            Ok(reply.agent.unwrap_or_default())
        };
        self.first(ask, |_| true).await
    }
}

impl Ask for Askers {
    /// Of one that knows a leader with a quorum behind it, if there is one.
    async fn status(&self) -> Result<Status, Error> {
        let ask = |channel| async {
            let reply = ClusterClient::new(channel)
                .status(v1::StatusRequest {})
                .await;
            Ok(reply.map_err(Error::call("Cluster.Status"))?.into_inner())
        };
        let knows_a_leader = |reply: &v1::StatusReply| !reply.stale && !reply.leader.is_empty();
        self.first(ask, knows_a_leader).await.map(Status::from)
    }

    async fn ready_agents(&self) -> Result<Vec<String>, Error> {
        let ask = |channel| async {
            let reply = AgentsClient::new(channel)
                .list(v1::ListAgentsRequest {})
                .await;
            Ok(reply.map_err(Error::call("Agents.List"))?.into_inner())
        };
        let reply = self.first(ask, |_| true).await?;
        let ready = reply.agents.into_iter().filter(|it| it.state == "ready");
        Ok(ready.map(|agent| agent.id).collect())
    }
}
