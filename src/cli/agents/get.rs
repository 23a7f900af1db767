//! `agent get`: all that is known of one worker.

use clap::Args;
use model::AgentId;

use crate::args::Global;
use crate::client::{ConnectArgs, Connection, now, or_interrupted};
use crate::exit::Exit;
use crate::failure::Result;
use crate::object::{agent_detail, agent_json};
use crate::output::{self, Answer};

/// Show everything about one agent
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  quorate agent get a1")]
pub struct GetArgs {
    #[command(flatten)]
    pub connect: ConnectArgs,
    /// Such as a1
    #[arg(value_name = "AGENT")]
    id: AgentId,
}

pub async fn get(cluster: &Connection, args: &GetArgs, global: &Global) -> Result<Exit> {
    let asking = output::waiting("asking the cluster", cluster.agent(args.id.as_str()));
    let agent = or_interrupted(asking).await?;
    Answer {
        json: agent_json(&agent),
        ids: vec![agent.id.clone()],
        table: Box::new(move |_| agent_detail(&agent, now())),
    }
    .print(global.output)?;
    Ok(Exit::Ok)
}
