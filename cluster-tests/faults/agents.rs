//! What becomes of an agent that hangs: it is lost, ended by its guard, or goes on.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::faults::continue_stopped;
use crate::nodes::Nodes;
use crate::{Error, wait};

/// Of an agent's guard that ends the agent.
const LAST_WORDS: &str = "the agent was stopped when it was about to start a process";
/// For the cluster to say that an agent is lost: each new leader counts the lease from its beginning, and there may be many.
const LOST: Duration = Duration::from_secs(180);

/// An agent that was about to start a process when it was stopped is killed once its lease is over. `said`: how long its log
/// was before.
pub async fn ended_by_its_guard(
    nodes: &Nodes,
    id: &str,
    said: u64,
) -> Result<Option<String>, Error> {
    let node = nodes.node(id)?;
    let Some(status) = node.fallen().await else {
        return Ok(None);
    };
    let killed = status.signal() == Some(Signal::SIGKILL as i32);
    match killed && node.said_since(said).contains(LAST_WORDS) {
        true => Ok(Some(format!("{id} was ended by its guard"))),
        false => Err(Error::Invalid(format!("{id} ended otherwise: {status}"))),
    }
}

/// Lets a process go on; or starts it again, where it ended meanwhile.
pub async fn resume(nodes: &Nodes, id: &str, pid: i32) -> Result<(), Error> {
    match nodes.node(id)?.fallen().await {
        None => continue_stopped(id, pid).await,
        Some(_) => nodes.restart(id).await.map(drop),
    }
}

/// Waits until the cluster has taken these agents' leases away, and says so.
pub async fn until_lost(
    nodes: &Nodes,
    ids: impl ExactSizeIterator<Item = &str>,
) -> Result<String, Error> {
    let (count, mut last) = (ids.len(), "");
    for id in ids {
        let what = format!("{id} to be lost");
        let lost = wait::until(&what, LOST, || async {
            let agent = nodes.agent(id).await;
            let agent = agent.map_err(|error| error.to_string())?;
            match agent.state == "lost" {
                true => Ok(()),
                false => Err(agent.state),
            }
        });
        lost.await
            .map_err(|error| Error::Invalid(error.to_string()))?;
        last = id;
    }
    Ok(match count {
        0 => String::new(),
        1 => format!(", and {last} is lost"),
        _ => format!(", and {count} agents are lost"),
    })
}
