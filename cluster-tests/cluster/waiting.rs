//! Waiting for what a cluster says of itself, however it is asked.

use std::time::Duration;

use crate::cluster::{Cli, MemberStatus, Status};
use crate::{Error, wait};

/// From nothing to a leader and all agents: certificates, elections and joins on a busy machine.
pub const READY: Duration = Duration::from_secs(60);
/// For an election among those that are left.
pub const ELECTED: Duration = Duration::from_secs(20);

/// A way to ask a cluster.
pub trait Ask: Sync {
    fn status(&self) -> impl Future<Output = Result<Status, Error>> + Send;
    /// The ids of agents that are ready for work.
    fn ready_agents(&self) -> impl Future<Output = Result<Vec<String>, Error>> + Send;
}

impl Ask for Cli {
    async fn status(&self) -> Result<Status, Error> {
        Status::ask(self).await
    }

    async fn ready_agents(&self) -> Result<Vec<String>, Error> {
        let list = self.json(&["agent", "list"]).await?;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let ready = items.iter().filter(|agent| agent["state"] == "ready");
        Ok(ready
            .filter_map(|agent| agent["id"].as_str().map(str::to_owned))
            .collect())
    }
}

/// Waits until there is a leader other than `former`, and says who.
pub async fn leader(cluster: &impl Ask, former: &str) -> Result<String, Error> {
    wait::until("a leader", ELECTED, || async {
        let status = cluster.status().await.map_err(|error| error.to_string())?;
        let leader = status.leader().filter(|leader| *leader != former);
        leader.map(str::to_owned).ok_or_else(|| status.describe())
    })
    .await
}

/// Waits until so many controllers answer and vote, and so many agents are connected and ready.
pub async fn whole(cluster: &impl Ask, controllers: usize, agents: usize) -> Result<Status, Error> {
    let status = wait::until("all controllers", READY, || async {
        let status = cluster.status().await.map_err(|error| error.to_string())?;
        let up = |member: &MemberStatus| member.applied.is_some() && member.role == "voter";
        let whole = status.members.len() == controllers
            && status.members.iter().all(up)
            && status.leader().is_some();
        if whole {
            Ok(status)
        } else {
            Err(status.describe())
        }
    })
    .await?;
    agents_ready(cluster, agents).await?;
    Ok(status)
}

/// Waits until this many agents are ready for work.
pub async fn agents_ready(cluster: &impl Ask, wanted: usize) -> Result<(), Error> {
    if wanted == 0 {
        return Ok(());
    }
    wait::until(&format!("{wanted} ready agents"), READY, || async {
        let ready = cluster.ready_agents().await;
        let ready = ready.map_err(|error| error.to_string())?;
        if ready.len() >= wanted {
            Ok(())
        } else {
            Err(format!("{} ready: {}", ready.len(), ready.join(" ")))
        }
    })
    .await
}
