//! The executor `process`: a command in a process group, a scratch directory and an environment of
//! its own.
//!
//! A [`launcher`] thread spawns; one future per attempt then waits for the process through its
//! pidfd, copies its output, and ends it when it must. Nothing of an attempt outlives it: the group
//! is killed while its dead leader still holds the number, and whatever left the group is found by
//! the [`sweeper`], which sees every process here because the agent adopts orphans.
//!
//! Only safe calls are used. So what other supervisors do between fork and exec is done before
//! (program and directory are looked up first, for errors in plain words) or by a line of shell
//! (the memory limit, see [`limits`]).

mod environment;
mod launcher;
mod limits;
mod program;
mod roster;
mod scratch;
mod signals;
mod supervise;
mod sweeper;
mod table;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use model::{Fence, Incarnation};

use crate::error::Error;
use crate::executor::{Attempt, Executor, Exit, Hands};
use launcher::Launcher;
use limits::Limits;
#[cfg(test)]
pub(crate) use roster::ROSTER;
use scratch::Scratch;
pub(crate) use signals::{kill_exactly, kill_group};
use sweeper::Sweeper;
pub(crate) use table::{Process as TableRow, Table, is_running};

/// What the executor is told when it starts.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub incarnation: Incarnation,
    pub scratch: PathBuf,
    pub path: String,
    pub grace: Duration,
}

/// Runs commands.
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
        let limits = Limits::detect(settings.incarnation);
        let sweeper = Sweeper::start(settings.incarnation)?;
        let launcher = Launcher::start()?;
        let scratch = Scratch::new(settings.scratch.clone());
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

    fn limits(&self) -> &'static str {
        self.shared.limits.name()
    }
}

/// The variable by which a process of this agent is known again, whatever it did to its group,
/// session or parents.
pub(crate) const MARK_VARIABLE: &str = "QUORATE_ATTEMPT";

/// Its value: unique for an attempt.
pub(crate) fn mark(incarnation: Incarnation, fence: Fence) -> String {
    format!("{incarnation}.{fence}")
}
