//! What every client command needs around its requests: a runtime, Ctrl-C, and the clock for ages.

use std::future::Future;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

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

/// The wall clock, in milliseconds since the epoch.
pub fn now() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
