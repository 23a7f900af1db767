//! What all parts of one controller share: the handle to the cluster, the sessions, the hub, and
//! the ways to the dispatcher and to other controllers.

use std::sync::Arc;

use model::{AgentId, ControllerId, Fence, Generation, Principal, Role};
use security::Credentials;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Request;
use wire::status::Failure;
use wire::v1;

use crate::authority::Authority;
use crate::callers::{Caller, Callers};
use crate::dispatcher::Inputs;
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::others::Others;
use crate::pace::Pace;
use crate::sessions::{Era, Registry, Renewals};
use crate::vigil::{Clocks, Disks};

/// One running controller.
pub struct Controller {
    pub id: ControllerId,
    /// Where others reach it.
    pub addresses: model::Addresses,
    pub cluster: raft::Cluster,
    pub hub: Arc<Hub>,
    pub sessions: Arc<Registry>,
    pub inputs: Inputs,
    pub renewals: Renewals,
    pub others: Others,
    pub callers: Callers,
    /// What this controller shows, and whom it trusts.
    pub credentials: Credentials,
    pub authority: Authority,
    pub pace: Pace,
    /// Answers that are fetched whole from their agents.
    pub long_answers: Semaphore,
    pub metrics: Arc<Metrics>,
    pub clocks: Clocks,
    pub disks: Disks,
    /// Another member said that this one was removed: it ends.
    pub removed: CancellationToken,
    /// Since when agents could be heard here.
    pub started: tokio::time::Instant,
    /// Everything spawned for a request or a session.
    pub background: TaskTracker,
    /// Not ready any more: others are to be asked. Comes before `stopping`.
    pub leaving: CancellationToken,
    /// Nothing new is begun, and nobody waits here any longer.
    pub stopping: CancellationToken,
}

impl Controller {
    /// What an agent is told first.
    pub fn welcome(&self) -> v1::Welcome {
        let members = self.cluster.members();
        v1::Welcome {
            cluster_id: self.cluster.view().cluster_id().to_owned(),
            controllers: members
                .iter()
                .map(|member| (&member.addresses).into())
                .collect(),
            controller_ids: members.iter().map(|member| member.id.to_string()).collect(),
            controller: self.id.to_string(),
        }
    }

    /// Who asks, by certificate, or by the word of another member.
    pub fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Failure> {
        let is_member = |id| self.cluster.address_of(id).is_some();
        self.callers.of(request, is_member)
    }

    /// As whom this controller asks for something itself.
    pub fn principal(&self) -> Principal {
        Principal {
            name: self.id.to_string(),
            role: Role::Controller,
            fingerprint: self.credentials.fingerprint().0,
        }
    }

    /// An agent says that this attempt runs.
    pub fn running(&self, agent: &AgentId, fence: Fence) {
        self.hub.started(agent, fence, || self.cluster.view());
    }

    /// A task as clients see it.
    pub fn task(&self, state: &model::State, task: &model::Task) -> v1::Task {
        wire::convert::task(state, task, self.hub.is_running(task))
    }
}

impl Era for Controller {
    fn generation(&self) -> Generation {
        self.cluster.view().generation()
    }

    fn term(&self) -> u64 {
        self.cluster.leadership().borrow().term
    }
}

impl std::fmt::Debug for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controller")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
