//! Shell completions and manual pages, generated from the arguments themselves.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

use crate::args;
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::{files, output};

/// Print completions for a shell
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  source <(quorate completions bash)
  quorate completions fish > ~/.config/fish/completions/quorate.fish")]
pub struct CompletionsArgs {
    #[arg(value_enum)]
    shell: Shell,
}

/// Write the manual pages into a directory
#[derive(Debug, Args)]
#[command(hide = true)]
#[command(after_help = "Example:\n  quorate man /usr/local/share/man/man1")]
pub struct ManArgs {
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

pub fn run(args: &CompletionsArgs) -> Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut args::command(), "quorate", &mut script);
    output::bytes(&script)?;
    Ok(Exit::Ok)
}

pub fn manual(args: &ManArgs) -> Result<Exit> {
    files::create_directory(&args.directory)?;
    clap_mangen::generate_to(args::command(), &args.directory)
        .map_err(|error| Failure::file("write manual pages to", &args.directory, &error))?;
    Ok(Exit::Ok)
}
