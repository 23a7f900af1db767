//! The noun `backend`: the model servers that agents reach, and what they offer.

use clap::{Args, Subcommand};

use crate::args::Global;
use crate::client::{ConnectArgs, Connection, connected, or_interrupted};
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::object::{Backend, backend_detail, backend_json, backend_table};
use crate::output::{self, Answer};

/// Ask about the model servers that agents reach
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  quorate backend list")]
pub struct BackendArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    List(ListArgs),
    Get(GetArgs),
}

/// List the back ends, and the models that they offer
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate backend list
  quorate backend list --model gemma3-270m -o wide")]
struct ListArgs {
    /// Only those that offer this model
    #[arg(long)]
    model: Option<String>,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Show one back end
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  quorate backend get a1/127.0.0.1:8080")]
struct GetArgs {
    /// The agent and the back end's name on it
    #[arg(value_name = "AGENT/NAME")]
    id: String,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub fn run(args: BackendArgs, global: &Global) -> Result<Exit> {
    match args.verb {
        Verb::List(args) => connected(&args.connect, async |to| list(to, &args, global).await),
        Verb::Get(args) => connected(&args.connect, async |to| get(to, &args, global).await),
    }
}

async fn all(cluster: &Connection) -> Result<Vec<Backend>> {
    let asking = output::waiting("asking the cluster", cluster.agents());
    let agents = or_interrupted(asking).await?;
    let of_agent = agents.into_iter().flat_map(|agent| {
        let backends = agent.backends.clone();
        backends.into_iter().map(move |backend| Backend {
            agent: agent.clone(),
            backend,
        })
    });
    Ok(of_agent.collect())
}

async fn list(cluster: &Connection, args: &ListArgs, global: &Global) -> Result<Exit> {
    let mut backends = all(cluster).await?;
    if let Some(model) = &args.model {
        backends.retain(|it| it.backend.models.contains(model));
    }
    if backends.is_empty() && output::watched() {
        output::note("no back ends; an agent gets one with `quorate agent run --backend URL`");
    }
    Answer {
        json: output::list(backends.iter().map(backend_json).collect(), None),
        ids: backends.iter().map(Backend::id).collect(),
        table: Box::new(move |width| match backends.as_slice() {
            [] => String::new(),
            backends => backend_table(backends, width),
        }),
    }
    .print(global.output)?;
    Ok(Exit::Ok)
}

async fn get(cluster: &Connection, args: &GetArgs, global: &Global) -> Result<Exit> {
    let backends = all(cluster).await?;
    let found = backends.into_iter().find(|it| it.id() == args.id);
    let found = found.ok_or_else(|| {
        let text = format!("there is no back end {}", args.id);
        Failure::not_found(text, "`quorate backend list` shows all")
    })?;
    Answer {
        json: backend_json(&found),
        ids: vec![found.id()],
        table: Box::new(move |_| backend_detail(&found)),
    }
    .print(global.output)?;
    Ok(Exit::Ok)
}
