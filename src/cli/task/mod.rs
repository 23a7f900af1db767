//! The noun `task`: submit work, watch it, and ask about it.

mod ask;
mod attach;
mod cancel;
mod follow;
mod get;
mod list;
mod logs;
mod plan;
mod quantity;
mod run;
mod spec;
mod spec_file;
mod submit;
mod wait;
mod why;

pub use quantity::{mebibytes, millis, processors, time};
pub use spec::pair;

use clap::{Args, Subcommand};
use wire::v1;

use crate::args::Global;
use crate::client::{ConnectArgs, Connection, runtime};
use crate::exit::Exit;
use crate::failure::Result;
use crate::output;

/// Submit work, watch it, and ask about it
#[derive(Debug, Args)]
#[command(arg_required_else_help = true, subcommand_required = true)]
#[command(after_help = "Example:\n  quorate task run -- sha256sum /etc/hostname")]
pub struct TaskArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Submit(submit::SubmitArgs),
    Run(run::RunArgs),
    List(list::ListArgs),
    Get(get::GetArgs),
    Why(why::WhyArgs),
    Plan(plan::PlanArgs),
    Wait(wait::WaitArgs),
    Logs(logs::LogsArgs),
    Cancel(cancel::CancelArgs),
}

/// Says how old an answer may be that no quorum stands behind.
fn note_stale(position: &v1::Position) {
    if position.stale {
        output::note(&stale(position));
    }
}

fn stale(position: &v1::Position) -> String {
    let index = position.log_index;
    format!("stale: one controller's state at log index {index}")
}

pub fn run(args: TaskArgs, global: &Global) -> Result<Exit> {
    let target = args.connect.target()?;
    let namespace = target.namespace.clone();
    runtime()?.block_on(async {
        let cluster = Connection::open(&target)?;
        match args.verb {
            Verb::Submit(args) => submit::submit(&cluster, args, namespace, global).await,
            Verb::Run(args) => run::run(&cluster, args, namespace, global).await,
            Verb::List(args) => list::list(&cluster, args, namespace, global).await,
            Verb::Get(args) => get::get(&cluster, &args, global).await,
            Verb::Why(args) => why::why(&cluster, &args, global).await,
            Verb::Plan(args) => plan::plan(&cluster, args, namespace, global).await,
            Verb::Wait(args) => wait::wait(&cluster, &args, global).await,
            Verb::Logs(args) => logs::logs(&cluster, &args).await,
            Verb::Cancel(args) => cancel::cancel(&cluster, &args, global).await,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_answer_says_up_to_which_index_it_is_true() {
        let position = v1::Position {
            log_index: 17,
            term: 2,
            stale: true,
        };
        assert_eq!(
            stale(&position),
            "stale: one controller's state at log index 17"
        );
    }
}
