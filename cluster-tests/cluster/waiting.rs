//! Waiting for what a cluster says of itself, however it was started.

use std::time::Duration;

use crate::cluster::{Cli, MemberStatus, Status};
use crate::{Error, wait};

/// From nothing to a leader and all agents: certificates, elections and joins on a busy machine.
pub const READY: Duration = Duration::from_secs(60);
/// For an election among those that are left.
pub const ELECTED: Duration = Duration::from_secs(20);

/// Waits until there is a leader, and says who.
pub async fn leader(cli: &Cli) -> Result<String, Error> {
    wait::until("a leader", ELECTED, || async {
        let status = Status::ask(cli).await.map_err(|error| error.to_string())?;
        status
            .leader()
            .map(str::to_owned)
            .ok_or_else(|| status.describe())
    })
    .await
}

/// Waits until so many controllers answer and vote, and so many agents are connected and ready.
pub async fn whole(cli: &Cli, controllers: usize, agents: usize) -> Result<Status, Error> {
    let status = wait::until("all controllers", READY, || async {
        let status = Status::ask(cli).await.map_err(|error| error.to_string())?;
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
    if agents > 0 {
        agents_ready(cli, agents).await?;
    }
    Ok(status)
}

/// Waits until this many agents are ready for work.
pub async fn agents_ready(cli: &Cli, wanted: usize) -> Result<(), Error> {
    wait::until(&format!("{wanted} ready agents"), READY, || async {
        let list = cli
            .json(&["agent", "list"])
            .await
            .map_err(|error| error.to_string())?;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let ready = items
            .iter()
            .filter(|agent| agent["state"] == "ready")
            .count();
        if ready >= wanted {
            Ok(())
        } else {
            Err(format!("{ready} ready: {list}"))
        }
    })
    .await
}
