//! Signals to members, each with a look whether it did what it does: a test whose fault never happened
//! would be green for nothing.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::cluster::Members;
use crate::faults::process::{self, Doing, Process};
use crate::{Error, wait};

/// The kernel ends or stops a process in far less; one that waits for a slow disk takes a little.
const EFFECT: Duration = Duration::from_secs(10);

/// A process that was killed.
#[derive(Debug, Clone)]
pub struct Killed {
    pub id: String,
    pub pid: i32,
    /// Just before the signal.
    pub at: Instant,
}

/// SIGKILL: no farewell, nothing flushed.
pub async fn kill(cluster: &impl Members, id: &str) -> Result<Killed, Error> {
    let pid = running(cluster, id)?;
    let at = Instant::now();
    send(id, pid, Signal::SIGKILL)?;
    wait::until_now(
        &format!("the end of {id}"),
        EFFECT,
        || match Process::is_alive(pid) {
            false => Ok(()),
            true => Err(format!("pid {pid} still lives")),
        },
    )
    .await
    .map_err(|error| Error::Invalid(error.to_string()))?;
    Ok(Killed {
        id: id.to_owned(),
        pid,
        at,
    })
}

/// SIGKILL to all of them before any can notice; then waits for their ends.
pub async fn kill_together(cluster: &impl Members, ids: &[String]) -> Result<Vec<Killed>, Error> {
    let mut killed = Vec::new();
    for id in ids {
        killed.push(Killed {
            id: id.clone(),
            pid: running(cluster, id)?,
            at: Instant::now(),
        });
    }
    for victim in &killed {
        send(&victim.id, victim.pid, Signal::SIGKILL)?;
    }
    wait::until_now("the end of all of them", EFFECT, || {
        match killed.iter().find(|victim| Process::is_alive(victim.pid)) {
            None => Ok(()),
            Some(victim) => Err(format!("{} still lives", victim.id)),
        }
    })
    .await
    .map_err(|error| Error::Invalid(error.to_string()))?;
    Ok(killed)
}

/// SIGSTOP: it keeps its sockets and does nothing, as on a machine that hangs. Gives the pid.
pub async fn stop(cluster: &impl Members, id: &str) -> Result<i32, Error> {
    let pid = running(cluster, id)?;
    send(id, pid, Signal::SIGSTOP)?;
    until_doing(id, pid, "stopped", |doing| doing == Doing::Stopped).await?;
    Ok(pid)
}

/// SIGCONT to a process that [`stop`] stopped, and nobody restarted meanwhile.
pub async fn continue_stopped(id: &str, pid: i32) -> Result<(), Error> {
    if Process::look(pid).is_none_or(|found| found.doing != Doing::Stopped) {
        return Err(Error::Invalid(format!(
            "{id} (pid {pid}) did not stay stopped"
        )));
    }
    send(id, pid, Signal::SIGCONT)?;
    until_doing(id, pid, "running", |doing| doing == Doing::Running).await
}

/// The pid of a member that lives and belongs to this cluster.
pub fn running(cluster: &impl Members, id: &str) -> Result<i32, Error> {
    let missing = || Error::Invalid(format!("{id} does not run, so it can't be broken"));
    let pid = cluster.member(id)?.pid.ok_or_else(missing)?;
    match Process::is_alive(pid) && process::belongs_to(pid, &cluster.directory()) {
        true => Ok(pid),
        false => Err(missing()),
    }
}

fn send(id: &str, pid: i32, signal: Signal) -> Result<(), Error> {
    process::send(pid, signal).map_err(|errno| Error::Invalid(format!("{signal} to {id}: {errno}")))
}

async fn until_doing(
    id: &str,
    pid: i32,
    what: &str,
    wanted: impl Fn(Doing) -> bool,
) -> Result<(), Error> {
    wait::until_now(
        &format!("{id} to be {what}"),
        EFFECT,
        || match Process::look(pid) {
            Some(found) if wanted(found.doing) => Ok(()),
            found => Err(format!("{found:?}")),
        },
    )
    .await
    .map_err(|error| Error::Invalid(error.to_string()))
}
