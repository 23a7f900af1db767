//! The noun `backend`: the model servers that agents reach, what they offer, and what is set for them.

use std::time::Duration;

use clap::{Args, Subcommand};
use model::AgentId;
use wire::v1;
use wire::v1::agent_order::Order;

use crate::agents::asked;
use crate::args::Global;
use crate::client::{ConnectArgs, Connection, connected, or_interrupted};
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::object::{Backend, backend_detail, backend_json, backend_table};
use crate::output::{self, Answer};
use crate::task::{millis, time};

/// Ask about the model servers that agents reach, and say how much each is asked
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate backend list
  quorate backend set a1/127.0.0.1:8080 --weight 3 --limit 8")]
pub struct BackendArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    List(ListArgs),
    Get(GetArgs),
    Set(SetArgs),
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

/// Say how much a back end is asked, and when it is left alone
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate backend set a1/127.0.0.1:8080 --weight 3 --limit 8
  quorate backend set a1/gpu --max-fails 3 --fail-timeout 30s

What is left out stays as it is. It holds until something else is said, over restarts of the agent too.")]
#[command(group = clap::ArgGroup::new("settings").required(true).multiple(true))]
struct SetArgs {
    /// The agent and the back end's name on it
    #[arg(value_name = "AGENT/NAME", value_parser = named)]
    id: Named,
    /// Its share among the back ends of its agent that offer a model: with 3 beside 1 it gets three of four requests.
    /// Where all have the same, the least busy one is asked [default: 1]
    #[arg(long, value_name = "N", group = "settings")]
    weight: Option<u32>,
    /// The most requests at once; 0 for none but the agent's slots [default: 0]
    #[arg(long, value_name = "N", group = "settings")]
    limit: Option<u32>,
    /// After so many failures within the fail timeout it is left alone for as long, where another has the model; 0:
    /// never [default: 1]
    #[arg(long, value_name = "N", group = "settings")]
    max_fails: Option<u32>,
    /// [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = time, group = "settings")]
    fail_timeout: Option<Duration>,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// A back end by its agent and name.
#[derive(Debug, Clone)]
struct Named {
    agent: AgentId,
    name: String,
}

fn named(text: &str) -> std::result::Result<Named, String> {
    let parts = text.split_once('/').filter(|(_, name)| !name.is_empty());
    let (agent, name) = parts.ok_or("give the agent and the back end's name, such as a1/gpu")?;
    Ok(Named {
        agent: AgentId::new(agent).map_err(|error| error.to_string())?,
        name: name.to_owned(),
    })
}

pub fn run(args: BackendArgs, global: &Global) -> Result<Exit> {
    match args.verb {
        Verb::List(args) => connected(&args.connect, async |to| list(to, &args, global).await),
        Verb::Get(args) => connected(&args.connect, async |to| get(to, &args, global).await),
        Verb::Set(args) => connected(&args.connect, async |to| set(to, &args, global).await),
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
    show(found, global)
}

fn show(found: Backend, global: &Global) -> Result<Exit> {
    Answer {
        json: backend_json(&found),
        ids: vec![found.id()],
        table: Box::new(move |_| backend_detail(&found)),
    }
    .print(global.output)?;
    Ok(Exit::Ok)
}

async fn set(cluster: &Connection, args: &SetArgs, global: &Global) -> Result<Exit> {
    let Named { agent, name } = &args.id;
    let order = Order::SetBackend(v1::SetBackend {
        name: name.clone(),
        weight: args.weight,
        limit: args.limit,
        max_fails: args.max_fails,
        fail_timeout_ms: args.fail_timeout.map(|span| millis(span).0),
    });
    let agent = asked(cluster, agent, order).await?;
    let backend = agent.backends.iter().find(|it| it.name == *name).cloned();
    // It may be gone by now, and what was said holds all the same.
    let Some(backend) = backend else {
        return Ok(Exit::Ok);
    };
    let found = Backend { agent, backend };
    show(found, global)
}
