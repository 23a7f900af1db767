//! The command line: `quorate NOUN VERB`.
//!
//! The flow of every command is the same: parse the arguments (clap, nothing else has happened yet),
//! read the settings that it needs, do the work, print one answer, and end with a number that scripts
//! can rely on ([`exit::Exit`]). Whatever goes wrong becomes a [`failure::Failure`]: one line with what,
//! why and the next step.
//!
//! A noun has a module with its arguments and a file for each verb. `client` knows how to reach a
//! cluster, `settings` what a server is told, `object` how things look in JSON and in tables, `output`
//! how they leave the program. `dev` runs a whole cluster of real processes on this machine.
//!
//! Left out: everything that a cluster does. This crate starts controllers and agents, and asks them.

mod agents;
mod args;
mod backends;
mod cert;
mod client;
mod cluster;
mod completions;
mod config;
mod context;
mod controller;
mod data_dir;
mod dev;
mod events;
mod exit;
mod failure;
mod files;
mod join;
mod join_token;
mod mistake;
mod namespaces;
mod object;
mod output;
mod policies;
mod process;
mod prompt;
mod settings;
mod shell;
mod task;
mod version;

use std::ffi::OsString;
use std::process::ExitCode;

use crate::args::{Cli, Noun};
use crate::exit::Exit;
use crate::failure::Result;

/// Parses the arguments of this process, does what they say, and gives the exit code.
pub fn main() -> ExitCode {
    if failpoint::listed() {
        return ExitCode::SUCCESS;
    }
    let given: Vec<OsString> = std::env::args_os().collect();
    let exit = match args::parse(&given) {
        Ok(cli) => {
            let global = cli.global.clone();
            run(cli).unwrap_or_else(|failure| {
                output::failure(&failure, global.output, global.coloured());
                failure.exit
            })
        }
        Err(exit) => exit,
    };
    exit.into()
}

fn run(cli: Cli) -> Result<Exit> {
    let global = cli.global;
    match cli.noun {
        Noun::Dev(args) => dev::run(args, &global),
        Noun::Task(args) => task::run(args, &global),
        Noun::Agent(args) => agents::run(args, &global),
        Noun::Backend(args) => backends::run(args, &global),
        Noun::Namespace(args) => namespaces::run(args, &global),
        Noun::Policy(args) => policies::run(args, &global),
        Noun::Cluster(args) => cluster::run(args, &global),
        Noun::Events(args) => events::run(&args, &global),
        Noun::Controller(args) => controller::run(args, &global),
        Noun::DataDir(args) => data_dir::run(args, &global),
        Noun::Context(args) => context::run(args, &global),
        Noun::Cert(args) => cert::run(args, &global),
        Noun::JoinToken(args) => join_token::run(args, &global),
        Noun::Config(args) => config::run(args, &global),
        Noun::Version => version::run(&global),
        Noun::Completions(args) => completions::run(&args),
        Noun::Man(args) => completions::manual(&args),
    }
}
