//! The noun `agent`: run one, ask about those that the cluster knows, and decide what they get.

mod drain;
mod get;
mod guard;
mod list;
mod order;
mod run;

use clap::{Args, Subcommand};

use crate::args::Global;
use crate::client::{Connection, runtime};
use crate::exit::Exit;
use crate::failure::{Failure, Result};

/// Run an agent, ask about those that the cluster knows, take one out of work
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate agent list
  quorate agent run --controller c1.example:7400 --data-dir /var/lib/quorate/agent
  quorate agent --config /etc/quorate/quorate.toml    the same as `agent run --config …`")]
pub struct AgentArgs {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    bare: run::RunArgs,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Run(run::RunArgs),
    List(list::ListArgs),
    Get(get::GetArgs),
    Cordon(order::CordonArgs),
    Uncordon(order::UncordonArgs),
    Drain(drain::DrainArgs),
    Remove(order::RemoveArgs),
    Guard(guard::GuardArgs),
}

pub fn run(args: AgentArgs, global: &Global) -> Result<Exit> {
    match args.verb {
        Some(Verb::Run(args)) => run::run(args, global),
        Some(Verb::List(args)) => runtime()?.block_on(async {
            list::list(&Connection::open(&args.connect.target()?)?, &args, global).await
        }),
        Some(Verb::Get(args)) => runtime()?.block_on(async {
            get::get(&Connection::open(&args.connect.target()?)?, &args, global).await
        }),
        Some(Verb::Cordon(args)) => runtime()?.block_on(async {
            order::cordon(&Connection::open(&args.connect.target()?)?, &args, global).await
        }),
        Some(Verb::Uncordon(args)) => runtime()?.block_on(async {
            order::uncordon(&Connection::open(&args.connect.target()?)?, &args, global).await
        }),
        Some(Verb::Drain(args)) => runtime()?.block_on(async {
            drain::drain(&Connection::open(&args.connect.target()?)?, &args, global).await
        }),
        Some(Verb::Remove(args)) => runtime()?.block_on(async {
            order::remove(&Connection::open(&args.connect.target()?)?, &args, global).await
        }),
        Some(Verb::Guard(args)) => guard::run(&args),
        None if args.bare.says_something() => run::run(args.bare, global),
        None => Err(Failure::usage(
            "`quorate agent` needs a verb, such as run, list, get or drain",
            "see `quorate agent --help`",
        )),
    }
}
