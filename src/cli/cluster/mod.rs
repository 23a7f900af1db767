//! The noun `cluster`: make one, see how it is, and change who belongs to it.

mod change;
pub mod init;
mod members;
mod status;
mod transfer;

#[cfg(test)]
mod crashes;

use clap::{Args, Subcommand};

use crate::args::Global;
use crate::client::{ConnectArgs, connected};
use crate::exit::Exit;
use crate::failure::Result;

/// Make a cluster, see how it is, and change who belongs to it
#[derive(Debug, Args)]
#[command(arg_required_else_help = true, subcommand_required = true)]
#[command(after_help = "Example:\n  quorate cluster status")]
pub struct ClusterArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Init(init::InitArgs),
    /// Show who leads, how far each controller is, and a hash of each one's state
    #[command(after_help = "Examples:
  quorate cluster status
  quorate cluster status -o json | jq -r .leader

Equal APPLIED must show equal HASH. Exit code 2 where no quorum could be reached.")]
    Status(ConnectArgs),
    /// List the controllers
    #[command(after_help = "Example:\n  quorate cluster members -o wide")]
    Members(ConnectArgs),
    Promote(change::PromoteArgs),
    Remove(change::RemoveArgs),
    TransferLeadership(transfer::TransferArgs),
}

pub fn run(args: ClusterArgs, global: &Global) -> Result<Exit> {
    match args.verb {
        Verb::Init(args) => init::run(&args, global),
        Verb::Status(args) => connected(&args, async |to| status::status(to, global).await),
        Verb::Members(args) => connected(&args, async |to| status::members(to, global).await),
        Verb::Promote(args) => connected(&args.connect, async |to| {
            change::promote(to, &args, global).await
        }),
        Verb::Remove(args) => connected(&args.connect, async |to| {
            change::remove(to, &args, global).await
        }),
        Verb::TransferLeadership(args) => connected(&args.connect, async |to| {
            transfer::transfer(to, &args, global).await
        }),
    }
}
