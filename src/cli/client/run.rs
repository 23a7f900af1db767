//! What every client command needs around its requests: a runtime, Ctrl-C, and the clock for ages.

use std::future::Future;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{ConnectArgs, Connection};
use crate::exit::Exit;
use crate::failure::{Failure, Result};

/// One thread: a client waits more than it works.
pub fn runtime() -> Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::refused("system", error, ""))
}

/// Each Ctrl-C, from now on. The process no longer ends by itself.
pub fn interrupts() -> Result<Signal> {
    signal(SignalKind::interrupt()).map_err(|error| Failure::refused("system", error, ""))
}

/// Ends at the first Ctrl-C.
pub async fn interrupted() {
    match interrupts() {
        Ok(mut interrupts) => {
            interrupts.recv().await;
        }
        // Then Ctrl-C ends the process, as it always does.
        Err(_) => std::future::pending().await,
    }
}

/// A read, which nobody misses when it is interrupted.
pub async fn or_interrupted<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        done = work => done,
        () = interrupted() => Err(Failure::interrupted("interrupted", "")),
    }
}

/// Does this with the cluster that is meant.
pub fn connected(
    to: &ConnectArgs,
    work: impl AsyncFnOnce(&Connection) -> Result<Exit>,
) -> Result<Exit> {
    let target = to.target()?;
    runtime()?.block_on(async { work(&Connection::open(&target)?).await })
}

/// A change that may be asked for twice. Without an answer nobody knows whether it happened: `hint` says how
/// to find out.
pub async fn or_unknown<T>(asking: impl Future<Output = Result<T>>, hint: String) -> Result<T> {
    let failure = tokio::select! {
        done = asking => match done {
            Ok(done) => return Ok(done),
            Err(failure) => failure,
        },
        () = interrupted() => Failure::interrupted("interrupted before the cluster answered", ""),
    };
    let open = matches!(failure.exit, Exit::Unknown | Exit::Interrupted);
    Err(if open {
        Failure { hint, ..failure }
    } else {
        failure
    })
}

/// The wall clock, in milliseconds since the epoch.
pub fn now() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
