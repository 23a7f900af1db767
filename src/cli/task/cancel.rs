//! `task cancel`: accepted means that the cluster will end it, whatever dies meanwhile.

use clap::Args;
use model::TaskId;
use wire::v1;

use super::submit::print_asked;
use crate::args::Global;
use crate::client::{Connection, cancel_again, interrupted};
use crate::exit::Exit;
use crate::failure::{Failure, Result};
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

/// All are tried; the first that could not be cancelled is what is said. What was cancelled is printed
/// in any case: an object where one id was given, else a list.
pub async fn cancel(cluster: &Connection, args: &CancelArgs, global: &Global) -> Result<Exit> {
    let mut cancelled = Vec::new();
    let outcome = tokio::select! {
        outcome = all(cluster, args, &mut cancelled) => outcome,
        () = interrupted() => Err(stopped(&args.ids)),
    };
    if !cancelled.is_empty() {
        print_asked(&args.ids, &cancelled, global)?;
    }
    outcome.map(|()| Exit::Ok)
}

async fn all(cluster: &Connection, args: &CancelArgs, cancelled: &mut Vec<v1::Task>) -> Result<()> {
    let mut outcome = Ok(());
    for id in &args.ids {
        let request = v1::CancelTaskRequest {
            id: id.0,
            reason: args.reason.clone(),
        };
        let asking = cluster.cancel(&request);
        match output::waiting("waiting for a majority to store it", asking).await {
            Ok(task) => cancelled.push(task),
            Err(failure) => outcome = outcome.and(Err(failure)),
        }
    }
    outcome
}

fn stopped(ids: &[TaskId]) -> Failure {
    Failure::interrupted("interrupted before the cluster answered", cancel_again(ids))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupted_cancel_says_that_it_may_be_repeated() {
        let failure = stopped(&[TaskId(3), TaskId(4)]);
        assert_eq!(failure.exit, Exit::Interrupted);
        assert!(
            failure.hint.contains("quorate task cancel t3 t4`"),
            "{failure}"
        );
    }
}
