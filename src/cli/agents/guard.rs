//! `agent guard`: what an agent runs beside itself, so that its attempts end should it be gone or
//! stopped. Nobody types it.

use clap::Args;

use crate::exit::Exit;
use crate::failure::{Failure, Result};

/// End what an agent runs when the agent can't: run by the agent itself
#[derive(Debug, Args)]
#[command(hide = true)]
pub struct GuardArgs {
    /// What the marks of its attempts begin with
    #[arg(long, value_name = "PREFIX")]
    mark: String,
}

/// Until standard input ends, and nothing that carries the mark is left.
pub fn run(args: &GuardArgs) -> Result<Exit> {
    agent::guard(&args.mark).map_err(|error| Failure::refused("guard", error, ""))?;
    Ok(Exit::Ok)
}
