//! The noun `namespace`: who shares, and how much of the cluster is whose.

use clap::{Args, Subcommand};
use model::Namespace;
use wire::v1;

use crate::args::Global;
use crate::client::{ConnectArgs, Connection, connected, or_interrupted, or_unknown};
use crate::exit::Exit;
use crate::failure::Result;
use crate::object::{namespace_detail, namespace_json, namespace_table};
use crate::output::{self, Answer, Format};

/// Share the cluster among namespaces and their users
#[derive(Debug, Args)]
#[command(arg_required_else_help = true, subcommand_required = true)]
#[command(after_help = "Examples:
  quorate namespace list
  quorate namespace set research --weight 3 --max-running 16

A namespace need not be made: it is there once a task names it (`task submit --namespace`), with weight 1 and no quota.")]
pub struct NamespaceArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    List(ListArgs),
    Get(GetArgs),
    Set(SetArgs),
}

/// List the namespaces with their weights, and what they use
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate namespace list
  quorate namespace list -o wide

USED is time on slots, times the price of what tasks ask for (an hour with a GPU counts as nine), of what runs and of what
has ended; what is past counts half after an hour or so (4096 s). In each class the namespace goes
first that has used least for its weight.")]
struct ListArgs {
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Show one namespace and its users
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  quorate namespace get research")]
struct GetArgs {
    name: Namespace,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Say how much of the cluster a namespace is to have
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate namespace set research --weight 3
  quorate namespace set research --max-running 16 --max-queued 10000
  quorate namespace set research --user ann=2 --user bob=1

What is left out stays as it is. Weights count while there is more to do than there is room: what one leaves, the others
have. A --max-running lower than what runs is refused.")]
#[command(group = clap::ArgGroup::new("settings").required(true).multiple(true))]
struct SetArgs {
    name: Namespace,
    /// Its share beside the other namespaces: with 3 beside 1 it gets three quarters [default: 1]
    #[arg(long, value_name = "N", group = "settings")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(model::SHARE_WEIGHT_MAX)))]
    weight: Option<u32>,
    /// The share of one of its users beside the others, by the name in the user's certificate; may be given several
    /// times [default: 1]
    #[arg(long = "user", value_name = "USER=N", value_parser = user_weight, group = "settings")]
    users: Vec<(String, u32)>,
    /// The most of its tasks that run at once; the others wait. 0 for no limit [default: 0]
    #[arg(long, value_name = "N", group = "settings")]
    max_running: Option<u32>,
    /// While so many of its tasks wait, submits are refused. 0 for no limit [default: 0]
    #[arg(long, value_name = "N", group = "settings")]
    max_queued: Option<u32>,
    #[command(flatten)]
    connect: ConnectArgs,
}

fn user_weight(text: &str) -> std::result::Result<(String, u32), String> {
    let most = model::SHARE_WEIGHT_MAX;
    let parts = text.rsplit_once('=').filter(|(user, _)| !user.is_empty());
    let (user, weight) = parts.ok_or("give the user and the weight, such as ann=3")?;
    match weight.parse() {
        Ok(weight) if (1..=most).contains(&weight) => Ok((user.to_owned(), weight)),
        Ok(_) | Err(_) => Err(format!("`{weight}` is no weight: it is 1 to {most}")),
    }
}

pub fn run(args: NamespaceArgs, global: &Global) -> Result<Exit> {
    match args.verb {
        Verb::List(args) => connected(&args.connect, async |to| list(to, global).await),
        Verb::Get(args) => connected(&args.connect, async |to| get(to, &args, global).await),
        Verb::Set(args) => connected(&args.connect, async |to| set(to, &args, global).await),
    }
}

async fn list(cluster: &Connection, global: &Global) -> Result<Exit> {
    // Where they are shown.
    let users = !matches!(global.output, Format::Table | Format::Quiet);
    let asking = output::waiting("asking the cluster", cluster.namespaces(users));
    let namespaces = or_interrupted(asking).await?;
    if namespaces.is_empty() && output::watched() {
        output::note("no namespaces yet; one is there once a task names it");
    }
    Answer {
        json: output::list(namespaces.iter().map(namespace_json).collect(), None),
        ids: namespaces.iter().map(|it| it.name.clone()).collect(),
        table: Box::new(move |width| match namespaces.as_slice() {
            [] => String::new(),
            namespaces => namespace_table(namespaces, width),
        }),
    }
    .print(global.output)?;
    Ok(Exit::Ok)
}

async fn get(cluster: &Connection, args: &GetArgs, global: &Global) -> Result<Exit> {
    let asking = output::waiting("asking the cluster", cluster.namespace(args.name.as_str()));
    show(or_interrupted(asking).await?, global)
}

async fn set(cluster: &Connection, args: &SetArgs, global: &Global) -> Result<Exit> {
    let users = args.users.iter().map(|(user, weight)| v1::UserWeight {
        user: user.clone(),
        weight: *weight,
    });
    let said = v1::SetNamespaceRequest {
        name: args.name.to_string(),
        weight: args.weight,
        users: users.collect(),
        max_running: args.max_running,
        max_queued: args.max_queued,
    };
    let asking = output::waiting("asking the cluster", cluster.set_namespace(&said));
    let hint = format!(
        "it may have happened: see `quorate namespace get {}`; asking again is safe",
        args.name
    );
    show(or_unknown(asking, hint).await?, global)
}

fn show(namespace: v1::Namespace, global: &Global) -> Result<Exit> {
    Answer {
        json: namespace_json(&namespace),
        ids: vec![namespace.name.clone()],
        table: Box::new(move |_| namespace_detail(&namespace)),
    }
    .print(global.output)?;
    Ok(Exit::Ok)
}
