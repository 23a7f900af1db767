//! `task wait`: until it has ended, across whatever happens to the cluster meanwhile.

use std::time::Duration;

use clap::Args;
use model::TaskId;
use wire::v1;

use super::spec::time;
use super::submit::print;
use crate::args::Global;
use crate::client::{Connection, interrupted};
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::object::{ended, state_name};
use crate::output;

/// One request waits this long at the controller; then it is asked again.
const ASK: Duration = Duration::from_secs(20);
/// How long a cluster may have no leader before waiting for it is given up.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two tries while there is no leader.
const PAUSE: Duration = Duration::from_millis(250);

/// Wait until tasks have ended
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate task wait t17
  quorate task wait --timeout 5m t17 t18

Exit code 3 where one of them did not succeed. Ctrl-C only ends the waiting.")]
pub struct WaitArgs {
    /// Such as t17
    #[arg(required = true, value_name = "TASK")]
    ids: Vec<TaskId>,
    /// Give up after this time, with exit code 4
    #[arg(long, value_name = "TIME", value_parser = time)]
    timeout: Option<Duration>,
}

pub async fn wait(cluster: &Connection, args: &WaitArgs, global: &Global) -> Result<Exit> {
    let names = args
        .ids
        .iter()
        .map(TaskId::to_string)
        .collect::<Vec<_>>()
        .join(" ");
    let all = async {
        let mut tasks = Vec::new();
        for id in &args.ids {
            tasks.push(settled(cluster, id.0).await?);
        }
        Ok::<_, Failure>(tasks)
    };
    let text = format!("waiting for {names}");
    let tasks = tokio::select! {
        tasks = output::waiting(&text, all) => tasks?,
        () = expired(args.timeout) => return Err(late(cluster, args, &names).await),
        () = interrupted() => {
            let hint = format!("to wait again: `quorate task wait {names}`");
            return Err(Failure::interrupted("no longer waiting; the work goes on", hint));
        }
    };
    print(&tasks, global)?;
    let failed = tasks.iter().any(|task| ended(task) != Some(Exit::Ok));
    Ok(if failed { Exit::TaskFailed } else { Exit::Ok })
}

async fn expired(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => tokio::time::sleep(timeout).await,
        None => std::future::pending().await,
    }
}

async fn late(cluster: &Connection, args: &WaitArgs, names: &str) -> Failure {
    let mut states = Vec::new();
    for id in &args.ids {
        if let Ok(task) = cluster.task(id.0, false).await {
            states.push(format!("{id} is {}", state_name(task.state())));
        }
    }
    let states = if states.is_empty() {
        "not ended".to_owned()
    } else {
        states.join(", ")
    };
    let limit = humantime::format_duration(args.timeout.unwrap_or_default());
    let hint = format!("it goes on; to wait again: `quorate task wait {names}`");
    Failure::unknown("timeout", format!("after {limit}: {states}"), hint)
}

/// The task once it has ended. Leaders may come and go while we wait.
pub async fn settled(cluster: &Connection, id: u64) -> Result<v1::Task> {
    let mut last_heard = tokio::time::Instant::now();
    loop {
        match cluster.wait(id, ASK).await {
            Ok(task) if ended(&task).is_some() => return Ok(task),
            Ok(_) => last_heard = tokio::time::Instant::now(),
            Err(failure) if failure.exit != Exit::Unknown => return Err(failure),
            Err(failure) if last_heard.elapsed() > PATIENCE => {
                let id = TaskId(id);
                let hint = format!("once there is a leader again: `quorate task wait {id}`");
                return Err(Failure { hint, ..failure });
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}
