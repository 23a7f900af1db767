//! What every server process of ours does: log to stderr, run until it is told to stop, and stop in
//! an orderly way.
//!
//! SIGTERM and SIGINT ask it to stop; a second one ends it at once. A child of `quorate dev` also stops
//! when its standard input ends, because then `dev` is gone, however it died.

use std::future::Future;
use std::io::Read;
use std::num::NonZero;
use std::thread;
use std::time::Duration;

use clap::{Args, ValueEnum};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

use crate::args::Global;
use crate::exit::Exit;
use crate::failure::{Failure, Result};

/// Set by `quorate dev` for its children. A variable and not a flag, so that the command line in
/// `cluster.json` can be run by anybody.
pub const TIED_TO_STDIN: &str = "QUORATE_TIED_TO_STDIN";
/// Files that a server should be allowed to have open: a thousand agents, twice as many while all of them come back
/// before their old connections are noticed to be dead, and as many again for clients, peers and data.
const DESCRIPTORS: u64 = 4_096;
/// How long tasks of the runtime may take once the process has stopped.
const WIND_UP: Duration = Duration::from_secs(2);

/// What consensus says of itself at `info` is for those who debug it; and that a peer is dead it would
/// say with every heartbeat, ten times a second.
const DEFAULT_FILTER: &str = "info,openraft=warn,openraft::core::heartbeat=error,\
                              openraft::replication=error,openraft::engine=error";

/// How a server logs.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Log")]
pub struct LogArgs {
    /// What to log: error, warn, info, debug, trace, or by module such as `info,raft=debug`
    #[arg(
        long,
        value_name = "FILTER",
        default_value = DEFAULT_FILTER,
        env = "QUORATE_LOG"
    )]
    #[arg(hide_env_values = true)]
    log: String,
    /// As lines for people, or as JSON
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum LogFormat {
    #[default]
    Text,
    Json,
}

/// Begins to log to stderr.
pub fn log(args: &LogArgs, global: &Global) -> Result<()> {
    let filter = EnvFilter::try_new(&args.log).map_err(|error| {
        let message = format!("--log {}: {error}", args.log);
        Failure::usage(
            message,
            "give error, warn, info, debug or trace, or `info,raft=debug`",
        )
    })?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match args.log_format {
        LogFormat::Text => lines.with_ansi(global.coloured()).init(),
        LogFormat::Json => lines.json().init(),
    }
    if let Some(asked) = failpoint::asked() {
        warn!(asked, "failpoints are set");
    }
    if let Some(bug) = mutant::everywhere() {
        warn!(bug = bug.name(), "a planted bug: {}", bug.says());
    }
    Ok(())
}

/// Each session of an agent takes a descriptor, and many systems allow a process 1,024 unless it asks.
pub fn raise_descriptors() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        Ok(hard)
    });
    match raised {
        Ok(limit) if limit < DESCRIPTORS => warn!(
            limit,
            wanted = DESCRIPTORS,
            "few files may be open at once: raise the hard limit (`ulimit -Hn`, LimitNOFILE), or agents \
             beyond that find no place"
        ),
        Ok(_) => {}
        Err(error) => warn!(%error, "the limit of open files stays as it is"),
    }
}

/// A core is left to the threads that a server has beside its runtime: consensus and the log of a controller,
/// the work of an agent.
fn threads() -> usize {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    cores.saturating_sub(1).max(1)
}

/// Runs a server until it ends or is told to.
pub fn serve<F, W>(what: &str, server: F) -> Result<Exit>
where
    F: FnOnce(CancellationToken) -> W,
    W: Future<Output = Result<()>>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads())
        .enable_all()
        .thread_name(what)
        .build()
        .map_err(|error| {
            Failure::refused("system", format!("cannot start threads: {error}"), "")
        })?;
    let outcome = runtime.block_on(async {
        let stop = CancellationToken::new();
        let listener = tokio::spawn(listen(stop.clone()));
        if std::env::var_os(TIED_TO_STDIN).is_some() {
            watch_stdin(stop.clone());
        }
        let outcome = server(stop).await;
        listener.abort();
        outcome
    });
    runtime.shutdown_timeout(WIND_UP);
    outcome.map(|()| Exit::Ok)
}

async fn listen(stop: CancellationToken) {
    let (Ok(mut terminate), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        return;
    };
    for asked in 0.. {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        if asked > 0 {
            info!(signal = name, "ending at once");
            std::process::exit(i32::from(Exit::Interrupted.code()));
        }
        info!(signal = name, "stopping");
        stop.cancel();
    }
}

/// A thread of its own, because a blocked read can't be called off; it ends with the process.
fn watch_stdin(stop: CancellationToken) {
    thread::spawn(move || {
        let mut byte = [0];
        // Nobody writes there: whatever comes back means that the other end is gone.
        let _ended = std::io::stdin().lock().read(&mut byte);
        info!("the process that started this one is gone: stopping");
        stop.cancel();
    });
}
