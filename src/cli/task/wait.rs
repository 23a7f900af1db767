//! `task wait`: until it has ended, across whatever happens to the cluster meanwhile.

use std::time::Duration;

use clap::Args;
use model::TaskId;
use wire::v1;

use super::quantity::time;
use super::submit::print_asked;
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
/// How long it may take, once the time is over, to say how far the tasks are.
const LAST_LOOK: Duration = Duration::from_secs(1);

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
    let in_time = async {
        tokio::select! {
            tasks = output::waiting(&text, all) => tasks,
            () = expired(args.timeout) => Err(late(cluster, args, &names).await),
        }
    };
    let tasks = tokio::select! {
        tasks = in_time => tasks?,
        () = interrupted() => {
            let hint = format!("to wait again: `quorate task wait {names}`");
            return Err(Failure::interrupted("no longer waiting; the work goes on", hint));
        }
    };
    print_asked(&args.ids, &tasks, global)?;
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
    let look = |id: &TaskId| {
        let id = *id;
        async move {
            let asked = tokio::time::timeout(LAST_LOOK, cluster.task(id.0)).await;
            let task = asked.ok()?.ok()?;
            Some(format!("{id} is {}", state_name(task.state())))
        }
    };
    let states = futures::future::join_all(args.ids.iter().map(look)).await;
    let states: Vec<String> = states.into_iter().flatten().collect();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Target;

    #[tokio::test]
    async fn the_time_limit_holds_where_no_controller_answers() {
        let home = tempfile::tempdir().unwrap();
        let ca = security::Ca::create("q1").unwrap();
        let identity = security::Identity::new("q1", security::Role::Client, "ada").unwrap();
        let issued = ca.issue(&identity, &[], security::CERTIFICATE_VALIDITY);
        // It accepts connections, and says nothing.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let target = Target {
            addresses: vec![silent.local_addr().unwrap().to_string()],
            keys: issued.unwrap().save(home.path(), ca.pem()).unwrap(),
            namespace: None,
        };
        let cluster = Connection::open(&target).unwrap();
        let args = WaitArgs {
            ids: vec![TaskId(1), TaskId(2), TaskId(3)],
            timeout: Some(Duration::from_millis(50)),
        };
        let begun = tokio::time::Instant::now();
        let failure = late(&cluster, &args, "t1 t2 t3").await;
        assert!(begun.elapsed() < 3 * LAST_LOOK, "{:?}", begun.elapsed());
        assert_eq!(failure.exit, Exit::Unknown);
        assert!(failure.message.contains("not ended"), "{failure}");
    }
}
