//! `task get`: all that is known of one task.

use clap::Args;
use model::TaskId;

use crate::args::Global;
use crate::client::{Connection, now, or_interrupted};
use crate::exit::Exit;
use crate::failure::Result;
use crate::object::{task_detail, task_id, task_json};
use crate::output::{self, Answer};

/// Show everything about one task
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate task get t17
  quorate task get t17 -o json | jq .result.exit_code")]
pub struct GetArgs {
    /// Such as t17
    #[arg(value_name = "TASK")]
    id: TaskId,
    /// Ask one controller for what it knows, without a quorum; how new that is comes on stderr
    #[arg(long)]
    stale: bool,
}

pub async fn get(cluster: &Connection, args: &GetArgs, global: &Global) -> Result<Exit> {
    let task = if args.stale {
        let asking = output::waiting("asking a controller", cluster.stale_task(args.id.0));
        let (task, position) = or_interrupted(asking).await?;
        super::note_stale(&position);
        task
    } else {
        let asking = output::waiting("asking the cluster", cluster.task(args.id.0));
        or_interrupted(asking).await?
    };
    Answer {
        json: task_json(&task),
        ids: vec![task_id(&task)],
        table: Box::new(move |_| task_detail(&task, now())),
    }
    .print(global.output)?;
    Ok(Exit::Ok)
}
