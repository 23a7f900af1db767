//! From an attempt to its process, on a launcher's thread: scratch directory, program, limit, a last
//! look whether it still may start, and the spawn.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;

use super::launcher::{Launched, spawn};
use super::limits::Confinement;
use super::orphans::reap;
use super::{Shared, environment, program, signals};
use crate::clock;
use crate::executor::{Attempt, Urgency};

/// What is to be spawned.
#[derive(Debug)]
pub(super) struct Plan {
    pub program: PathBuf,
    pub arguments: Vec<String>,
    /// What the process is told that it is called.
    pub argv0: String,
    pub directory: PathBuf,
    pub environment: BTreeMap<String, String>,
}

/// An attempt that is to start.
pub(super) struct Order {
    pub shared: Arc<Shared>,
    pub attempt: Attempt,
    pub mark: String,
    pub stop: watch::Receiver<Urgency>,
}

/// Why an attempt did not start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failed {
    /// Its own fault, in plain words.
    Task(String),
    /// The agent's trouble: another agent, or this one later, can start it.
    Agent(String),
    /// It was told to end first.
    Stopped,
    /// It ran, if only for a moment: it was late, or could not be watched.
    Unwatched(String),
}

/// What became of an order, and what has to be tidied up after it.
#[derive(Debug)]
pub(super) struct Prepared {
    pub scratch: Option<PathBuf>,
    pub confinement: Option<Confinement>,
    pub launched: Result<Launched, Failed>,
}

impl Prepared {
    pub fn nothing(why: Failed) -> Prepared {
        Prepared {
            scratch: None,
            confinement: None,
            launched: Err(why),
        }
    }

    /// Nobody waits for it any more: what was started must not run.
    pub fn abandon(self) {
        if let Ok(launched) = self.launched {
            let pid = launched.mark.pid;
            tracing::warn!(
                pid,
                "nobody waits for a process that was started: killing it"
            );
            signals::kill_group(pid);
            reap(pid);
            super::ROSTER.remove(pid);
        }
    }
}

impl Order {
    pub fn carry_out(self) -> Prepared {
        let scratch = match self.shared.scratch.make() {
            Ok(scratch) => scratch,
            Err(error) => {
                let why = format!("can't make a scratch directory: {error}");
                return Prepared::nothing(Failed::Agent(why));
            }
        };
        if let Some(files) = &self.attempt.files
            && let Err(error) = files.move_to(&scratch)
        {
            let why = format!("can't put its files in place: {error}");
            return Prepared {
                scratch: Some(scratch),
                ..Prepared::nothing(Failed::Agent(why))
            };
        }
        let mut confinement = None;
        let launched = self
            .plan(&scratch, &mut confinement)
            .and_then(|plan| spawn(&plan, || self.may_start(), || !self.has_lease()));
        Prepared {
            scratch: Some(scratch),
            confinement,
            launched,
        }
    }

    fn plan(&self, scratch: &Path, confinement: &mut Option<Confinement>) -> Result<Plan, Failed> {
        let spec = &self.attempt.spec;
        let (argv0, arguments) = spec
            .command
            .split_first()
            .ok_or_else(|| Failed::Task("no command".to_owned()))?;
        let environment =
            environment::of(&self.attempt, &self.shared.settings, scratch, &self.mark)
                .map_err(Failed::Agent)?;
        let directory = program::directory(scratch, &spec.cwd).map_err(Failed::Task)?;
        let path = environment.get("PATH").map_or("", String::as_str);
        let found = program::find(argv0, &directory, path).map_err(Failed::Task)?;
        let (program, argv0, arguments) = match spec.memory_mib {
            None => (found, argv0.clone(), arguments.to_vec()),
            Some(memory_mib) => {
                let made = self.shared.limits.confine(self.attempt.fence, memory_mib);
                let made = confinement.insert(made.map_err(Failed::Agent)?);
                let (shell, arguments) = made.wrap(&found, arguments);
                (shell, "sh".to_owned(), arguments)
            }
        };
        Ok(Plan {
            program,
            arguments,
            argv0,
            directory,
            environment,
        })
    }

    fn may_start(&self) -> Result<(), Failed> {
        let told = self.stop.has_changed().is_err() || *self.stop.borrow() > Urgency::None;
        match told || !self.has_lease() {
            true => Err(Failed::Stopped),
            false => Ok(()),
        }
    }

    fn has_lease(&self) -> bool {
        self.shared.settings.lease.holds(clock::since_boot())
    }
}

/// Whose fault it is that a program that was found does not start.
pub(super) fn blame(plan: &Plan, error: &io::Error) -> Failed {
    use rustix::io::Errno;
    let ours = [
        Errno::AGAIN,
        Errno::NOMEM,
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOSPC,
        Errno::DQUOT,
    ];
    let words = program::explain(&plan.program, error);
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(errno) if ours.contains(&errno) => Failed::Agent(words),
        Some(_) | None => Failed::Task(words),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_lacks_is_not_the_tasks_fault() {
        let plan = Plan {
            program: "/bin/true".into(),
            arguments: Vec::new(),
            argv0: "true".into(),
            directory: "/".into(),
            environment: BTreeMap::new(),
        };
        let blame = |raw| blame(&plan, &io::Error::from_raw_os_error(raw));
        for raw in [11, 12, 23, 24, 28] {
            assert!(matches!(blame(raw), Failed::Agent(_)), "{raw}");
        }
        for raw in [2, 7, 8, 13] {
            assert!(matches!(blame(raw), Failed::Task(_)), "{raw}");
        }
    }
}
