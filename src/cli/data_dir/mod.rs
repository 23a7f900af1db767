//! The noun `data-dir`: what a stopped controller has on its disk. Nothing is changed, and no cluster is asked.

mod check;
mod info;
mod log;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use raft::offline::DataDir;

use crate::args::Global;
use crate::exit::Exit;
use crate::failure::{Failure, Result};

/// Look into a stopped controller's data directory
#[derive(Debug, Args)]
#[command(arg_required_else_help = true, subcommand_required = true)]
#[command(after_help = "Examples:
  quorate data-dir info /var/lib/quorate/controller
  quorate data-dir log ./copy --from 1200
  quorate data-dir check /var/lib/quorate/controller

Nothing in the directory is changed. A controller that works on it is to be stopped first; or look at a
copy. The log is read from a copy in the directory for temporary files (TMPDIR).")]
pub struct DataDirArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Info(info::InfoArgs),
    Log(log::LogArgs),
    Check(check::CheckArgs),
}

pub fn run(args: DataDirArgs, global: &Global) -> Result<Exit> {
    match args.verb {
        Verb::Info(args) => info::run(&args, global),
        Verb::Log(args) => log::run(&args, global),
        Verb::Check(args) => check::run(&args, global),
    }
}

/// Which directory.
#[derive(Debug, Args)]
struct Place {
    /// A controller's data directory, or a copy of one
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

impl Place {
    fn open(&self) -> Result<DataDir> {
        open(&self.dir)
    }
}

fn open(dir: &Path) -> Result<DataDir> {
    if !dir.is_dir() {
        let text = format!("there is no directory {}", dir.display());
        return Err(Failure::not_found(text, "check the path"));
    }
    DataDir::open(dir).map_err(|error| told(&error))
}

/// In use, foreign, or damaged: its text says the next step.
fn told(error: &raft::Error) -> Failure {
    match error {
        raft::Error::Rejected(why) => Failure::refused("refused", why, ""),
        raft::Error::Fatal(why) => Failure::unhealthy(why, ""),
        other => Failure::refused("refused", other, ""),
    }
}
