//! The noun `agent`: run one, and ask about those that the cluster knows.

mod get;
mod guard;
mod list;
mod run;

use clap::{Args, Subcommand};

use crate::args::Global;
use crate::client::{Connection, runtime};
use crate::exit::Exit;
use crate::failure::{Failure, Result};

/// Run an agent, or ask about those that the cluster knows
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
        Some(Verb::Guard(args)) => guard::run(&args),
        None if args.bare.says_something() => run::run(args.bare, global),
        None => Err(Failure::usage(
            "`quorate agent` needs a verb: run, list or get",
            "see `quorate agent --help`",
        )),
    }
}
