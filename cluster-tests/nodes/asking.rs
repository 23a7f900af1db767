//! Questions to all controllers at once, on connections that stay: under faults nobody knows beforehand who can
//! answer, and a process for each question would be slower than most elections.

use std::collections::BTreeMap;
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

/// A connection to each controller. Whatever the cluster calls its members, here they are called by their machines.
#[derive(Debug, Clone)]
pub struct Askers {
    /// By machine.
    channels: BTreeMap<String, Channel>,
    /// By the gRPC address that its controller tells the others.
    machines: BTreeMap<String, String>,
}

/// A place among the members. A machine that joins anew has another one, with an id that nobody had before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seat {
    pub id: String,
    /// `None`: nowhere in this network.
    pub machine: Option<String>,
    pub votes: bool,
}

impl Askers {
    /// For a network in which a machine is dialled at the one address and tells others the other.
    pub fn new<'m>(
        machines: impl Iterator<Item = (&'m String, String, String)>,
        tls: &Arc<ClientConfig>,
    ) -> Askers {
        let mut askers = Askers {
            channels: BTreeMap::new(),
            machines: BTreeMap::new(),
        };
        for (name, dialled, told) in machines {
            let channel = cluster::channel(&dialled, tls);
            askers.channels.insert(name.clone(), channel);
            askers.machines.insert(told, name.clone());
        }
        askers
    }

    /// The first answer that `wanted` likes; else the last one.
    async fn first<T, F: Future<Output = Result<T, Error>>>(
        &self,
        ask: impl Fn(Channel) -> F,
        wanted: impl Fn(&T) -> bool,
    ) -> Result<T, Error> {
        let within = |channel: &Channel| tokio::time::timeout(ANSWER, ask(channel.clone()));
        let mut asked: FuturesUnordered<_> = self.channels.values().map(within).collect();
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

    /// Who belongs to the cluster, as one shows it that knows a leader with a quorum behind it, if there is one.
    pub async fn seats(&self) -> Result<Vec<Seat>, Error> {
        let reply = self.first(status, knows_a_leader).await?;
        Ok(self.seats_in(reply))
    }

    /// The same as the controller on this machine shows it.
    pub async fn seats_seen_by(&self, machine: &str) -> Result<Vec<Seat>, Error> {
        let missing = || Error::Invalid(format!("there is no controller {machine}"));
        let channel = self.channels.get(machine).ok_or_else(missing)?;
        Ok(self.seats_in(status(channel.clone()).await?))
    }

    fn seats_in(&self, reply: v1::StatusReply) -> Vec<Seat> {
        let seat = |member: v1::Member| Seat {
            machine: self.machine_of(&member).cloned(),
            votes: member.role == "voter",
            id: member.id,
        };
        reply.members.into_iter().map(seat).collect()
    }

    fn machine_of(&self, member: &v1::Member) -> Option<&String> {
        self.machines.get(&member.address.as_ref()?.grpc)
    }

    /// A leader that the answer does not place is none: who gave it lags behind.
    fn by_machine(&self, mut reply: v1::StatusReply) -> v1::StatusReply {
        let leader = std::mem::take(&mut reply.leader);
        for member in &mut reply.members {
            let Some(machine) = self.machine_of(member) else {
                continue;
            };
            if member.id == leader {
                reply.leader.clone_from(machine);
            }
            member.id.clone_from(machine);
        }
        reply
    }
}

async fn status(of: Channel) -> Result<v1::StatusReply, Error> {
    let reply = ClusterClient::new(of).status(v1::StatusRequest {}).await;
    Ok(reply.map_err(Error::call("Cluster.Status"))?.into_inner())
}

fn knows_a_leader(reply: &v1::StatusReply) -> bool {
    !reply.stale && !reply.leader.is_empty()
}

impl Ask for Askers {
    /// Of one that knows a leader with a quorum behind it, if there is one.
    async fn status(&self) -> Result<Status, Error> {
        let ask = |channel| async { Ok(self.by_machine(status(channel).await?)) };
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
