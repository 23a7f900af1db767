//! `agent list`: the workers, and how busy they are.

use clap::Args;

use crate::args::Global;
use crate::client::{ConnectArgs, Connection, or_interrupted};
use crate::exit::Exit;
use crate::failure::Result;
use crate::object::{agent_json, agent_table};
use crate::output::{self, Answer};

/// List the agents
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  quorate agent list\n  quorate agent list -o wide")]
pub struct ListArgs {
    #[command(flatten)]
    pub connect: ConnectArgs,
}

pub async fn list(cluster: &Connection, _args: &ListArgs, global: &Global) -> Result<Exit> {
    let asking = output::waiting("asking the cluster", cluster.agents());
    let agents = or_interrupted(asking).await?;
    if agents.is_empty() && output::watched() {
        output::note("no agents");
    }
    Answer {
        json: output::list(agents.iter().map(agent_json).collect(), None),
        ids: agents.iter().map(|agent| agent.id.clone()).collect(),
        table: Box::new(move |width| match agents.as_slice() {
            [] => String::new(),
            agents => agent_table(agents, width),
        }),
    }
    .print(global.output)?;
    Ok(Exit::Ok)
}
