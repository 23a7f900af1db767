//! Spawning, on a few threads of its own.
//!
//! `spawn` blocks until the child has become its program (about half a millisecond), which is too
//! long for a thread that also renews a lease. What comes before it, looking up the program and the
//! directory, may even hang with a file server; so it happens here too, and where a job takes too
//! long another thread is started for those that wait behind it. With a full path, and nothing to be
//! done between fork and exec, the standard library uses `posix_spawn`, whose cost does not grow with
//! the agent's memory.

use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::prepare::{Failed, Order, Plan, Prepared, blame};
use super::roster::ROSTER;
use super::table::{self, Process};
use crate::error::Error;
use crate::journal::ProcessMark;

/// Spawning is kernel work that takes turns at a few locks: more threads gain nothing.
const THREADS: usize = 2;
/// With as many jobs that hang, nothing is started any more until one comes back.
const THREADS_MAX: usize = 64;
/// A job that takes so long hangs.
const HANGS: Duration = Duration::from_secs(1);

/// A process that runs; its parent, the agent, has to reap it.
#[derive(Debug)]
pub(super) struct Launched {
    pub mark: ProcessMark,
    pub pidfd: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

struct Job {
    order: Order,
    answer: oneshot::Sender<Prepared>,
}

#[derive(Debug)]
pub(super) struct Launcher {
    jobs: Sender<Job>,
    waiting: Arc<Mutex<Receiver<Job>>>,
    threads: AtomicUsize,
}

impl Launcher {
    /// The threads end when the launcher is dropped.
    pub fn start() -> Result<Launcher, Error> {
        let (jobs, waiting) = channel();
        let launcher = Launcher {
            jobs,
            waiting: Arc::new(Mutex::new(waiting)),
            threads: AtomicUsize::new(0),
        };
        for _ in 0..THREADS {
            launcher.add_thread()?;
        }
        Ok(launcher)
    }

    fn add_thread(&self) -> Result<(), Error> {
        let n = self.threads.fetch_add(1, Ordering::Relaxed);
        let waiting = Arc::clone(&self.waiting);
        thread::Builder::new()
            .name(format!("launch-{n}"))
            .spawn(move || serve(&waiting))
            .map_err(Error::Thread)?;
        Ok(())
    }

    /// Waits for the answer however long it takes: the process may start at any moment.
    pub async fn launch(&self, order: Order) -> Prepared {
        let (answer, mut answered) = oneshot::channel();
        let gone = || Prepared::nothing(Failed::Stopped);
        if self.jobs.send(Job { order, answer }).is_err() {
            return gone();
        }
        if let Ok(prepared) = timeout(HANGS, &mut answered).await {
            return prepared.unwrap_or_else(|_| gone());
        }
        self.relieve();
        answered.await.unwrap_or_else(|_| gone())
    }

    fn relieve(&self) {
        if self.threads.load(Ordering::Relaxed) >= THREADS_MAX {
            return;
        }
        tracing::warn!("starting a process takes long: another thread starts those behind it");
        if let Err(error) = self.add_thread() {
            tracing::warn!(%error, "nothing starts before it comes back");
        }
    }
}

fn serve(waiting: &Mutex<Receiver<Job>>) {
    loop {
        let job = waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .recv();
        let Ok(Job { order, answer }) = job else {
            return;
        };
        if let Err(unheard) = answer.send(order.carry_out()) {
            unheard.abandon();
        }
    }
}

pub(super) fn spawn(plan: &Plan) -> Result<Launched, Failed> {
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
    let mut child = command.spawn().map_err(|error| blame(plan, &error))?;
    let lost = |why: &str| Failed::Unwatched(why.to_owned());
    let pid = i32::try_from(child.id()).map_err(|_| lost("its process number is too large"))?;
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
        Failed::Unwatched(format!("can't watch it: {error}"))
    })?;
    let stream = |fd: Option<OwnedFd>| fd.ok_or_else(|| lost("it has no output"));
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
