//! Spawning, on a few threads of its own.
//!
//! `spawn` blocks until the child has become its program (about half a millisecond), which is too
//! long for a thread that also renews a lease. With a full path, and nothing to be done between
//! fork and exec, the standard library uses `posix_spawn`, whose cost does not grow with the
//! agent's memory.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::sync::oneshot;

use super::program;
use super::roster::ROSTER;
use super::table::{self, Process};
use crate::error::Error;
use crate::journal::ProcessMark;

/// Spawning is kernel work that takes turns at a few locks: more threads gain nothing.
const THREADS: usize = 2;

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

/// A process that runs; its parent, the agent, has to reap it.
#[derive(Debug)]
pub(super) struct Launched {
    pub mark: ProcessMark,
    pub pidfd: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

struct Job {
    plan: Plan,
    answer: oneshot::Sender<Result<Launched, String>>,
}

#[derive(Debug)]
pub(super) struct Launcher {
    jobs: Sender<Job>,
}

impl Launcher {
    /// The threads end when the launcher is dropped.
    pub fn start() -> Result<Launcher, Error> {
        let (jobs, waiting) = channel();
        let waiting = Arc::new(Mutex::new(waiting));
        for n in 0..THREADS {
            let waiting = Arc::clone(&waiting);
            thread::Builder::new()
                .name(format!("launch-{n}"))
                .spawn(move || serve(&waiting))
                .map_err(Error::Thread)?;
        }
        Ok(Launcher { jobs })
    }

    /// Why it could not be started, in plain words, if it could not.
    pub async fn launch(&self, plan: Plan) -> Result<Launched, String> {
        let (answer, answered) = oneshot::channel();
        let gone = || "the agent is stopping".to_owned();
        self.jobs.send(Job { plan, answer }).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

fn serve(waiting: &Mutex<Receiver<Job>>) {
    loop {
        let job = waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .recv();
        let Ok(Job { plan, answer }) = job else {
            return;
        };
        let result = spawn(&plan);
        // Whoever asked always waits for the answer: else a process would run unwatched.
        if answer.send(result).is_err() {
            tracing::error!("nobody waits for a process that was started");
        }
    }
}

fn spawn(plan: &Plan) -> Result<Launched, String> {
    let mut command = Command::new(&plan.program);
    command
        .arg0(&plan.argv0)
        .args(&plan.arguments)
        .env_clear()
        .envs(&plan.environment)
        .current_dir(&plan.directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    // Until it is listed nobody may take it for an orphan and reap it.
    let listing = ROSTER.spawning();
    let mut child = command
        .spawn()
        .map_err(|error| program::explain(&plan.program, &error))?;
    let pid = i32::try_from(child.id()).map_err(|_| "its process number is too large")?;
    listing.add(pid);
    let started = Process::read(pid).map_or(0, |row| row.started);
    let opened = Pid::from_raw(pid)
        .ok_or(rustix::io::Errno::INVAL)
        .and_then(|pid| pidfd_open(pid, PidfdFlags::NONBLOCK));
    let pidfd = opened.map_err(|error| {
        // Unwatched it must not run: it is killed and reaped here and now.
        if child.kill().and_then(|()| child.wait()).is_err() {
            tracing::error!(pid, "could not end a process that can't be watched");
        }
        listing.remove(pid);
        format!("can't watch it: {error}")
    })?;
    let stream = |fd: Option<OwnedFd>| fd.ok_or_else(|| "it has no output".to_owned());
    let stdout = stream(child.stdout.take().map(OwnedFd::from))?;
    let stderr = stream(child.stderr.take().map(OwnedFd::from))?;
    let mark = ProcessMark {
        pid,
        started,
        boot: table::own_boot().to_owned(),
    };
    Ok(Launched {
        mark,
        pidfd,
        stdout,
        stderr,
    })
}
