//! The noun `agent`: run one, ask about those that the cluster knows, and decide what they get.

mod drain;
mod get;
mod guard;
mod list;
mod order;
mod run;

pub use order::asked;
pub use run::{Token, token};

use clap::{Args, Subcommand};

use crate::args::Global;
use crate::client::connected;
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
        Some(Verb::List(args)) => connected(&args.connect, async |to| {
            list::list(to, &args, global).await
        }),
        Some(Verb::Get(args)) => {
            connected(&args.connect, async |to| get::get(to, &args, global).await)
        }
        Some(Verb::Cordon(args)) => connected(&args.connect, async |to| {
            order::cordon(to, &args, global).await
        }),
        Some(Verb::Uncordon(args)) => connected(&args.connect, async |to| {
            order::uncordon(to, &args, global).await
        }),
        Some(Verb::Drain(args)) => connected(&args.connect, async |to| {
            drain::drain(to, &args, global).await
        }),
        Some(Verb::Remove(args)) => connected(&args.connect, async |to| {
            order::remove(to, &args, global).await
        }),
        Some(Verb::Guard(args)) => guard::run(&args),
        None if args.bare.says_something() => run::run(args.bare, global),
        None => Err(Failure::usage(
            "`quorate agent` needs a verb, such as run, list, get or drain",
            "see `quorate agent --help`",
        )),
    }
}
