//! `cluster transfer-leadership`: before a machine goes down for maintenance.

use clap::Args;
use model::ControllerId;
use serde_json::json;

use crate::args::Global;
use crate::client::{ConnectArgs, Connection, or_interrupted};
use crate::exit::Exit;
use crate::failure::Result;
use crate::output::{self, Answer, SCHEMA};

/// Make another controller the leader
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate cluster transfer-leadership
  quorate cluster transfer-leadership --to c2")]
pub struct TransferArgs {
    #[command(flatten)]
    pub connect: ConnectArgs,
    /// To this one [default: the most advanced voter]
    #[arg(long, value_name = "CONTROLLER")]
    to: Option<ControllerId>,
}

pub async fn transfer(cluster: &Connection, args: &TransferArgs, global: &Global) -> Result<Exit> {
    let to = args.to.map(|id| id.to_string()).unwrap_or_default();
    let asking = output::waiting(
        "waiting for the new leader",
        cluster.transfer_leadership(&to),
    );
    let leader = or_interrupted(asking).await?;
    let text = format!("{leader} leads");
    Answer {
        json: json!({ "schema": SCHEMA, "leader": leader }),
        ids: vec![leader],
        table: Box::new(move |_| text.clone()),
    }
    .print(global.output)?;
    Ok(Exit::Ok)
}
