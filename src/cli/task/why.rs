//! `task why`: why it runs where it runs, or why it waits.

use clap::Args;
use model::TaskId;

use crate::args::Global;
use crate::client::{Connection, or_interrupted};
use crate::exit::Exit;
use crate::failure::Result;
use crate::object::{why_json, why_text};
use crate::output::{self, Answer};

/// Say why a task runs where it runs, or why it waits
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  quorate task why t17")]
pub struct WhyArgs {
    /// Such as t17
    #[arg(value_name = "TASK")]
    id: TaskId,
}

pub async fn why(cluster: &Connection, args: &WhyArgs, global: &Global) -> Result<Exit> {
    let why = or_interrupted(output::waiting(
        "asking the cluster",
        cluster.why(args.id.0),
    ))
    .await?;
    Answer {
        json: why_json(&why),
        ids: vec![args.id.to_string()],
        table: Box::new(move |_| why_text(&why)),
    }
    .print(global.output)?;
    Ok(Exit::Ok)
}
