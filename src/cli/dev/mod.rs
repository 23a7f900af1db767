//! `quorate dev`: a whole cluster on this machine, in the foreground, of real processes with real TLS.
//!
//! ```text
//! layout    where everything is: directories, ports, ids, command lines
//! claim     whose directory it is: nothing of anybody else's is touched
//! prepare   the first time: cluster init and cert create, as an administrator would; later: renewals
//! member    one child process: spawn, stop, kill, and what became of it
//! foreground  the loop: children that end, requests from other terminals, Ctrl-C
//! ready     asking the cluster itself until all of it works
//! control   the socket through which `dev start|stop|kill` speak to the foreground
//! roster    cluster.json, for programs
//! ```
//!
//! A process that dies is not started again: `dev` is for seeing what happens then. Children watch their
//! standard input, so that they end even when `dev` is killed.

mod claim;
mod control;
mod foreground;
mod layout;
mod leftover;
mod member;
mod prepare;
mod ready;
mod roster;
mod summary;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use crate::args::Global;
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::files;
use crate::output::{Answer, SCHEMA};

use control::{Request, Verb};

/// Run a whole cluster on this machine, in the foreground
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate dev                      3 controllers and 2 agents; Ctrl-C stops them
  quorate dev --dir /tmp/q --base-port 17400 --agents 4 --slots 2
  quorate dev kill c1              from another terminal: SIGKILL
  quorate dev start c1             it catches up

Started again it continues where it was. Nothing restarts by itself.")]
pub struct DevArgs {
    /// Where everything is kept: a new or an empty directory, or one that `dev` made [default: $XDG_DATA_HOME/quorate/dev]
    #[arg(long, global = true, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// How many controllers [default: 3, or as before]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=9))]
    controllers: Option<u64>,
    /// How many agents [default: 2, or as before]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=100))]
    agents: Option<u64>,
    /// Controller i listens on PORT + 10 i and the two after it; 0: any that are free [default: 7400, or as before]
    #[arg(long, value_name = "PORT")]
    base_port: Option<u16>,
    /// Attempts at a time on each agent [default: one per core, or as before]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(model::SLOTS_MAX)))]
    slots: Option<u32>,
    /// A model server that every agent gives to the cluster; may be given several times [default: none, or as before]
    #[arg(long = "backend", value_name = "[NAME=]URL")]
    backends: Vec<String>,
    /// Make it your current context, under the name `dev`
    #[arg(long = "use")]
    use_: bool,
    #[command(subcommand)]
    verb: Option<DevVerb>,
}

#[derive(Debug, Subcommand)]
enum DevVerb {
    /// Start a process that was stopped, or died
    #[command(after_help = "Example:\n  quorate dev start c1")]
    Start(IdArgs),
    /// Stop a process in an orderly way (SIGTERM)
    #[command(after_help = "Example:\n  quorate dev stop a2")]
    Stop(IdArgs),
    /// Kill a process (SIGKILL)
    #[command(after_help = "Example:\n  quorate dev kill c1")]
    Kill(IdArgs),
}

#[derive(Debug, Args)]
struct IdArgs {
    /// Such as c1 or a2
    #[arg(value_name = "ID")]
    id: String,
}

/// What a run of `dev` is asked to be, where it was said.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    pub controllers: Option<u64>,
    pub agents: Option<u64>,
    pub base_port: Option<u16>,
    pub slots: Option<u32>,
    pub backends: Vec<String>,
}

pub fn run(args: DevArgs, global: &Global) -> Result<Exit> {
    let wishes = Wishes {
        controllers: args.controllers,
        agents: args.agents,
        base_port: args.base_port,
        slots: args.slots,
        backends: args.backends,
    };
    let (verb, id) = match args.verb {
        None => {
            let directory = directory(args.dir.as_deref(), None)?;
            return foreground::run(&directory, wishes, args.use_, global);
        }
        Some(DevVerb::Start(args)) => (Verb::Start, args.id),
        Some(DevVerb::Stop(args)) => (Verb::Stop, args.id),
        Some(DevVerb::Kill(args)) => (Verb::Kill, args.id),
    };
    let context = std::env::var_os("QUORATE_CONTEXT").map(PathBuf::from);
    let directory = directory(args.dir.as_deref(), context.as_deref())?;
    let reply = control::ask(
        &directory,
        &Request {
            verb,
            id: id.clone(),
        },
    )?;
    let json = json!({
        "schema": SCHEMA,
        "id": id,
        "pid": reply.pid,
        "message": reply.message,
    });
    let text = reply.message;
    Answer {
        json,
        ids: vec![id],
        table: Box::new(move |_| text.clone()),
    }
    .print(global.output)?;
    Ok(Exit::Ok)
}

/// What was given; or where the context in force comes from, if that is a `dev` of ours; or the usual one.
fn directory(given: Option<&Path>, context: Option<&Path>) -> Result<PathBuf> {
    if let Some(given) = given {
        return files::absolute(given);
    }
    let beside = context.and_then(|file| file.parent().map(Path::to_owned));
    if let Some(beside) = beside.filter(|dir| dir.join(layout::SETTINGS).exists()) {
        return files::absolute(&beside);
    }
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let home = || variable("HOME").map(|home| home.join(".local/share"));
    let base = variable("XDG_DATA_HOME")
        .filter(|path| path.is_absolute())
        .or_else(home);
    base.map(|base| base.join("quorate/dev")).ok_or_else(|| {
        Failure::usage(
            "there is no home directory to keep a cluster in",
            "give --dir",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_terminal_finds_the_cluster_by_the_context_it_pasted() {
        let home = tempfile::tempdir().unwrap();
        let context = home.path().join("context.toml");
        let elsewhere = directory(None, Some(&context));
        assert_ne!(elsewhere.unwrap_or_default(), home.path());
        std::fs::write(home.path().join(layout::SETTINGS), "{}").unwrap();
        assert_eq!(directory(None, Some(&context)).unwrap(), home.path());
        assert_eq!(
            directory(Some(Path::new("/x")), Some(&context)).unwrap(),
            Path::new("/x")
        );
    }
}
