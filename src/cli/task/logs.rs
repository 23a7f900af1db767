//! `task logs`: the output, raw.

use clap::Args;
use model::TaskId;

use super::follow::{Extent, Follow, Show};
use crate::client::{Connection, interrupted};
use crate::exit::Exit;
use crate::failure::{Failure, Result};

/// Print a task's output as it is
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate task logs t17
  quorate task logs -f --tail 10 t17
  quorate task logs --stderr t17

What the task wrote to stderr comes on stderr; with --stderr only that comes, on stdout. It is
printed byte for byte, whatever -o says: that only shapes errors. `quorate task get -o json` has the
end of it as JSON.")]
pub struct LogsArgs {
    /// Such as t17
    #[arg(value_name = "TASK")]
    id: TaskId,
    /// Go on until the task has ended
    #[arg(short, long)]
    follow: bool,
    /// Only its stderr, on stdout
    #[arg(long)]
    stderr: bool,
    /// Only the last lines
    #[arg(long, value_name = "N")]
    tail: Option<u32>,
}

pub async fn logs(cluster: &Connection, args: &LogsArgs) -> Result<Exit> {
    let show = if args.stderr {
        Show::Stderr
    } else {
        Show::Both
    };
    let extent = if args.follow {
        Extent::ToTheEnd
    } else {
        Extent::SoFar
    };
    let mut follow = Follow::new(cluster, args.id.0, show)?;
    let reading = async {
        let read = follow.read(extent, args.tail).await;
        // What came before a failure is not lost with it.
        follow.finish().await.and(read)
    };
    tokio::select! {
        read = reading => read.map(|()| Exit::Ok),
        () = interrupted() => Err(Failure::interrupted("no longer following; the task goes on", "")),
    }
}
