//! Between an agent's last look at its lease and the start of a process: both ends, the agent's and its guard's.
//!
//! An agent may be stopped between the two (SIGSTOP, a debugger), or get no memory, and go on when its lease is long over.
//! No look of its own can prevent that it starts the process then, while the cluster runs the task elsewhere. Its guard
//! can, which is not stopped with it: a thread says by its name that it is there, and an agent that still is when its lease
//! is over is killed, which is all that can be done to a stopped process. A name costs a system call and wakes nobody up.
//!
//! Not seen to is what stops the guard as well, a whole machine, or is over before the guard has looked; then the agent looks
//! once more and kills what it started.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use procfs::FromRead;
use procfs::process::Stat;
use rustix::process::getppid;
use rustix::thread::set_name;

use super::signals::kill_exactly;
use super::table::Process;

/// A name has 15 bytes.
const PREFIX: &str = "start-";
const NUMBERS: u32 = 1_000_000_000;
/// An agent that was about to start something when its lease ended, and is not stopped, has done so by then or looked at its
/// lease again. The cluster gives its work away 3 s after that end.
const STARTS: Duration = Duration::from_secs(1);

/// The calling thread is there until this is dropped.
pub(super) struct Starting(());

impl Starting {
    /// To be had before the look at the lease.
    pub fn begin() -> Starting {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed) % NUMBERS;
        rename(&format!("{PREFIX}{number}"));
        Starting(())
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        rename(thread::current().name().unwrap_or_default());
    }
}

fn rename(name: &str) {
    let set = CString::new(name).map(|name| set_name(&name));
    if !matches!(set, Ok(Ok(()))) {
        tracing::debug!(name, "could not name a thread");
    }
}

/// The agent, as its guard sees it.
#[derive(Debug)]
pub(super) struct Agent(Process);

impl Agent {
    /// Whoever started this process. Nothing where it is gone by now, or is the first process of a container, which nobody
    /// inside can kill.
    pub fn parent() -> Option<Agent> {
        let parent = getppid()?;
        let row = Process::read(parent.as_raw_nonzero().get())?;
        // Still the parent, so the row is not of another one with its number.
        (row.pid > 1 && getppid() == Some(parent)).then_some(Agent(row))
    }

    /// The starts that are under way: of each the name of its thread, and the state.
    fn starts(&self) -> BTreeMap<String, char> {
        let Ok(threads) = fs::read_dir(format!("/proc/{}/task", self.0.pid)) else {
            return BTreeMap::new();
        };
        let stats =
            threads.filter_map(|thread| Stat::from_file(thread.ok()?.path().join("stat")).ok());
        stats
            .filter(|stat| stat.comm.starts_with(PREFIX))
            .map(|stat| (stat.comm, stat.state))
            .collect()
    }
}

/// Starts that were under way when the lease ended, until they are not, or the agent is killed for one of them.
#[derive(Debug)]
pub(super) struct Late {
    agent: Option<Agent>,
    starts: BTreeSet<String>,
    since: Instant,
}

impl Late {
    pub fn of(agent: Option<Agent>) -> Late {
        Late {
            agent,
            starts: BTreeSet::new(),
            since: Instant::now(),
        }
    }

    /// The lease is over.
    pub fn begin(&mut self) {
        let starts = self.agent.as_ref().map(Agent::starts);
        self.starts = starts.unwrap_or_default().into_keys().collect();
        self.since = Instant::now();
    }

    /// It was renewed.
    pub fn forget(&mut self) {
        self.starts.clear();
    }

    pub fn is_over(&self) -> bool {
        self.starts.is_empty()
    }

    /// To be done again and again. One that waits in the kernel (`D`) is left alone as long as it does: it may have its
    /// process already, and hang with a file server, and what hangs so is not helped by the agent's end.
    pub fn look(&mut self) {
        let Some(agent) = self.agent.as_ref().filter(|_| !self.is_over()) else {
            return;
        };
        if self.since.elapsed() < STARTS {
            return;
        }
        let now = agent.starts();
        self.starts.retain(|start| now.contains_key(start));
        if self.starts.iter().any(|start| now[start] != 'D') {
            eprintln!(
                "the agent was stopped when it was about to start a process, and would do so when it goes on: \
                 ending the agent, start it again"
            );
            kill_exactly(&agent.0);
            self.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::getpid;
    use rustix::thread::name;

    use super::*;

    #[test]
    fn a_start_is_seen_from_outside_while_it_is_under_way() {
        let pid = getpid().as_raw_nonzero().get();
        let agent = Agent(Process::read(pid).unwrap());
        let starting = Starting::begin();
        let said = name().unwrap().into_string().unwrap();
        assert!(agent.starts().contains_key(&said), "{said}");
        drop(starting);
        assert!(!agent.starts().contains_key(&said), "{said}");
    }
}
