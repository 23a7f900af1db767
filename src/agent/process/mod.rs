//! The executor `process`: a command in a process group, a scratch directory and an environment of
//! its own.
//!
//! A [`launcher`] thread [`prepare`]s and spawns; one future per attempt then waits for the process
//! through its pidfd, copies its output, and ends it when it must. Nothing of an attempt outlives it:
//! the group is killed while its dead leader still holds the number; whatever left the group is found
//! among the [`orphans`] that the agent adopts, or a little later by the [`sweeper`]. And should the
//! agent itself be gone or stopped, its [`guard`] does what it would have done.
//!
//! Only safe calls are used. So what other supervisors do between fork and exec is done before
//! (program and directory are looked up first, for errors in plain words) or by a line of shell
//! (the memory limit, see [`limits`]).

mod environment;
mod guard;
mod launcher;
mod limits;
mod marks;
mod orphans;
mod prepare;
mod program;
mod roster;
mod scratch;
mod signals;
mod starting;
mod supervise;
mod sweeper;
mod table;
mod watch;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use crate::error::Error;
use crate::executor::{Attempt, Executor, Exit, Hands};
use crate::lease::Until;
pub(crate) use guard::Guard;
use launcher::Launcher;
use limits::Limits;
pub(crate) use limits::memory_ceiling;
pub(crate) use marks::{Instance, MARK_VARIABLE, Marks};
pub(crate) use roster::ROSTER;
use scratch::Scratch;
pub(crate) use scratch::remove as remove_scratch;
pub(crate) use signals::{kill_exactly, kill_group};
use sweeper::Sweeper;
pub(crate) use table::{Process as TableRow, Table, is_running};
pub use watch::watch;

/// What the executor is told when it starts.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub marks: Marks,
    /// Nothing starts once the lease is gone.
    pub lease: Until,
    pub scratch: PathBuf,
    pub path: String,
    /// What the machine's GPUs are called, by their places.
    pub gpus: Vec<String>,
    pub grace: Duration,
}

/// Runs commands.
#[derive(Clone)]
pub(crate) struct Processes {
    shared: Arc<Shared>,
}

struct Shared {
    settings: Settings,
    limits: Limits,
    launcher: Launcher,
    scratch: Scratch,
    sweeper: Sweeper,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.limits.end();
    }
}

impl Processes {
    pub fn new(settings: Settings) -> Result<Processes, Error> {
        let limits = Limits::detect(settings.marks.instance());
        let sweeper = Sweeper::start(settings.marks.instance())?;
        let launcher = Launcher::start()?;
        let scratch = Scratch::start(settings.scratch.clone(), settings.marks.run())?;
        Ok(Processes {
            shared: Arc::new(Shared {
                settings,
                limits,
                launcher,
                scratch,
                sweeper,
            }),
        })
    }
}

impl Executor for Processes {
    fn run(&self, attempt: Attempt, hands: Hands) -> BoxFuture<'static, Exit> {
        Box::pin(supervise::run(Arc::clone(&self.shared), attempt, hands))
    }
}

impl Processes {
    /// How limits are enforced, as `agent get` shows it.
    pub fn limits(&self) -> &'static str {
        self.shared.limits.name()
    }
}
