//! `task cancel`: accepted means that the cluster will end it, whatever dies meanwhile.

use clap::Args;
use model::TaskId;
use wire::v1;

use super::submit::print;
use crate::args::Global;
use crate::client::{Connection, or_interrupted};
use crate::exit::Exit;
use crate::failure::Result;
use crate::output;

/// Cancel tasks
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate task cancel t17
  quorate task cancel --reason 'wrong input' t17 t18")]
pub struct CancelArgs {
    /// Such as t17
    #[arg(required = true, value_name = "TASK")]
    ids: Vec<TaskId>,
    /// For those who ask later
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
}

/// All are tried; the first that could not be cancelled is what is said.
pub async fn cancel(cluster: &Connection, args: &CancelArgs, global: &Global) -> Result<Exit> {
    let mut cancelled = Vec::new();
    let mut failed = None;
    for id in &args.ids {
        let request = v1::CancelTaskRequest {
            id: id.0,
            reason: args.reason.clone(),
        };
        let asking = output::waiting(
            "waiting for a majority to store it",
            cluster.cancel(&request),
        );
        match or_interrupted(asking).await {
            Ok(task) => cancelled.push(task),
            Err(failure) => {
                failed.get_or_insert(failure);
            }
        }
    }
    if !cancelled.is_empty() {
        print(&cancelled, global)?;
    }
    failed.map_or(Ok(Exit::Ok), Err)
}
