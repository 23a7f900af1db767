//! Spawning, on a few threads of its own.
//!
//! `spawn` blocks until the child has become its program (about half a millisecond), which is too
//! long for a thread that also renews a lease. What comes before it, looking up the program and the
//! directory, may even hang with a file server; so it happens here too, and where a job takes too
//! long another thread takes the place of the one that hangs, which ends when its job comes back.
//! With a full path, and nothing to be done between fork and exec, the standard library uses
//! `posix_spawn`, whose cost does not grow with the agent's memory.

use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use failpoint::Point;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::prepare::{Failed, Order, Plan, Prepared, blame};
use super::roster::ROSTER;
use super::signals;
use super::starting::Starting;
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

type Work = Box<dyn FnOnce() -> Prepared + Send>;

struct Job {
    work: Work,
    answer: oneshot::Sender<Prepared>,
    stage: Arc<Mutex<Stage>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// For a thread, however long: those before it are at work, or hang and are relieved.
    Waiting,
    Working {
        since: Instant,
    },
    /// It hangs, and another thread took the place of its own.
    Relieved,
    Done,
}

impl Stage {
    /// How long it may yet go on before it hangs; nothing where it does.
    fn patience(self, now: Instant) -> Option<Duration> {
        match self {
            Stage::Waiting | Stage::Relieved | Stage::Done => Some(HANGS),
            Stage::Working { since } => {
                let rest = HANGS.saturating_sub(now.saturating_duration_since(since));
                (!rest.is_zero()).then_some(rest)
            }
        }
    }
}

fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
pub(super) struct Launcher {
    jobs: Sender<Job>,
    waiting: Arc<Mutex<Receiver<Job>>>,
    threads: Arc<AtomicUsize>,
}

impl Launcher {
    /// The threads end when the launcher is dropped.
    pub fn start() -> Result<Launcher, Error> {
        let (jobs, waiting) = channel();
        let launcher = Launcher {
            jobs,
            waiting: Arc::new(Mutex::new(waiting)),
            threads: Arc::default(),
        };
        for _ in 0..THREADS {
            launcher.add_thread()?;
        }
        Ok(launcher)
    }

    fn add_thread(&self) -> Result<(), Error> {
        let n = self.threads.fetch_add(1, Ordering::Relaxed);
        let (waiting, threads) = (Arc::clone(&self.waiting), Arc::clone(&self.threads));
        thread::Builder::new()
            .name(format!("launch-{n}"))
            .spawn(move || serve(&waiting, &threads))
            .map_err(|error| {
                self.threads.fetch_sub(1, Ordering::Relaxed);
                Error::Thread(error)
            })?;
        Ok(())
    }

    /// Waits for the answer however long it takes: the process may start at any moment.
    pub async fn launch(&self, order: Order) -> Prepared {
        self.carry_out(Box::new(|| order.carry_out())).await
    }

    async fn carry_out(&self, work: Work) -> Prepared {
        let (answer, mut answered) = oneshot::channel();
        let gone = || Prepared::nothing(Failed::Stopped);
        let stage = Arc::new(Mutex::new(Stage::Waiting));
        let job = Job {
            work,
            answer,
            stage: Arc::clone(&stage),
        };
        if self.jobs.send(job).is_err() {
            return gone();
        }
        let mut patience = HANGS;
        loop {
            if let Ok(prepared) = timeout(patience, &mut answered).await {
                return prepared.unwrap_or_else(|_| gone());
            }
            patience = self.relieve_if_it_hangs(&mut locked(&stage));
        }
    }

    /// When to look again.
    fn relieve_if_it_hangs(&self, stage: &mut Stage) -> Duration {
        if let Some(patience) = stage.patience(Instant::now()) {
            return patience;
        }
        if self.threads.load(Ordering::Relaxed) < THREADS_MAX {
            tracing::warn!("starting a process takes long: another thread starts those behind it");
            match self.add_thread() {
                Ok(()) => *stage = Stage::Relieved,
                Err(error) => tracing::warn!(%error, "nothing starts before it comes back"),
            }
        }
        HANGS
    }
}

fn serve(waiting: &Mutex<Receiver<Job>>, threads: &AtomicUsize) {
    loop {
        let job = locked(waiting).recv();
        let Ok(Job {
            work,
            answer,
            stage,
        }) = job
        else {
            return;
        };
        let since = Instant::now();
        *locked(&stage) = Stage::Working { since };
        let prepared = work();
        let before = std::mem::replace(&mut *locked(&stage), Stage::Done);
        if let Err(unheard) = answer.send(prepared) {
            unheard.abandon();
        }
        if before == Stage::Relieved {
            threads.fetch_sub(1, Ordering::Relaxed);
            return;
        }
    }
}

pub(super) fn spawn(
    plan: &Plan,
    may_start: impl FnOnce() -> Result<(), Failed>,
    is_late: impl FnOnce() -> bool,
) -> Result<Launched, Failed> {
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
    // All that came before may have taken any time, and the agent may be stopped anywhere. Here its guard sees to it.
    let starting = Starting::begin();
    may_start()?;
    failpoint::at(Point::SpawnBefore);
    let spawned = command.spawn();
    drop(starting);
    let mut child = spawned.map_err(|error| blame(plan, &error))?;
    let lost = |why: &str| Failed::Unwatched(why.to_owned());
    let pid = i32::try_from(child.id()).map_err(|_| lost("its process number is too large"))?;
    listing.add(pid);
    // What must not run is killed and reaped here and now.
    let mut end = || {
        signals::kill_group(pid);
        if let Err(error) = child.wait() {
            tracing::error!(pid, %error, "could not end a process that must not run");
        }
        listing.remove(pid);
    };
    if is_late() {
        // Stopped between the look and the start, for a moment at the end of the lease, or with the whole machine.
        end();
        return Err(lost("it started after the agent's lease"));
    }
    let started = Process::read(pid).map_or(0, |row| row.started);
    let opened = Pid::from_raw(pid)
        .ok_or(rustix::io::Errno::INVAL)
        .and_then(|pid| pidfd_open(pid, PidfdFlags::NONBLOCK));
    let pidfd = opened.map_err(|error| {
        end();
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

#[cfg(test)]
mod tests {
    use super::super::tests::{LONG, eventually};
    use super::*;

    #[test]
    fn a_job_hangs_by_the_time_it_is_at_work_however_long_it_waited() {
        let since = Instant::now();
        let later = since + 10 * HANGS;
        assert_eq!(Stage::Waiting.patience(later), Some(HANGS));
        let working = Stage::Working { since };
        assert_eq!(working.patience(since), Some(HANGS));
        assert_eq!(working.patience(since + HANGS / 4), Some(HANGS * 3 / 4));
        assert_eq!(working.patience(since + HANGS), None);
        assert_eq!(Stage::Relieved.patience(later), Some(HANGS));
    }

    #[test]
    fn nothing_starts_that_may_not_and_who_is_late_is_killed_at_once() {
        let plan = Plan {
            program: "/bin/sleep".into(),
            arguments: vec!["100".to_owned()],
            argv0: "sleep".to_owned(),
            directory: "/".into(),
            environment: std::collections::BTreeMap::new(),
        };
        let refused = spawn(&plan, || Err(Failed::Stopped), || false);
        assert!(matches!(refused, Err(Failed::Stopped)));
        // It may have done something, so nobody may say that it never ran.
        let begun = Instant::now();
        let late = spawn(&plan, || Ok(()), || true);
        assert!(matches!(late, Err(Failed::Unwatched(_))), "{late:?}");
        assert!(begun.elapsed() < LONG, "it was waited for, not killed");
    }

    #[tokio::test]
    async fn a_thread_is_added_for_each_job_that_hangs_for_none_that_waits_and_goes_again() {
        let launcher = Arc::new(Launcher::start().unwrap());
        let job = |work: Box<dyn FnOnce() + Send>| {
            let launcher = Arc::clone(&launcher);
            let work = Box::new(|| {
                work();
                Prepared::nothing(Failed::Stopped)
            });
            tokio::spawn(async move { launcher.carry_out(work).await })
        };
        let (release, held) = channel::<()>();
        let held = Arc::new(Mutex::new(held));
        let hang = |_| {
            let held = Arc::clone(&held);
            job(Box::new(move || locked(&held).recv().unwrap_or_default()))
        };
        let hung: Vec<_> = (0..THREADS).map(hang).collect();
        let behind: Vec<_> = (0..20).map(|_| job(Box::new(|| ()))).collect();
        for waited in behind {
            timeout(LONG, waited).await.unwrap().unwrap();
        }
        let threads = || launcher.threads.load(Ordering::Relaxed);
        eventually(|| threads() >= 2 * THREADS).await;
        assert_eq!(threads(), 2 * THREADS);
        drop(release);
        for came_back in hung {
            timeout(LONG, came_back).await.unwrap().unwrap();
        }
        eventually(|| threads() == THREADS).await;
    }
}
