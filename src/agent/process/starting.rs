//! Between an agent's last look at its lease and the start of a process: both ends, the agent's and its guard's.
//!
//! An agent may be stopped between the two (SIGSTOP, a debugger), and go on when its lease is long over. No look of its own
//! can prevent that it starts the process then, while the cluster runs the task elsewhere. Its guard can, which is not
//! stopped with it: a thread says by its name that it is there, and an agent that still is when its lease is over is killed,
//! which is all that can be done to a stopped process. To set a name costs a microsecond and wakes nobody up.
//!
//! Not seen to is what stops the guard as well, a whole machine; then the agent looks once more and kills what it started.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use procfs::FromRead;
use procfs::process::Stat;
use rustix::process::{Pid, PidfdFlags, Signal, getppid, pidfd_open, pidfd_send_signal};
use rustix::thread::set_name;

/// A name has 15 bytes.
const PREFIX: &str = "start-";
const NUMBERS: u32 = 1_000_000_000;

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
pub(super) struct Agent {
    pid: i32,
    descriptor: OwnedFd,
}

impl Agent {
    /// Whoever started this process. Nothing where it is gone by now, or is the first process of a container, which nobody
    /// inside can kill.
    pub fn parent() -> io::Result<Option<Agent>> {
        let Some(parent) = getppid() else {
            return Ok(None);
        };
        let pid = parent.as_raw_nonzero().get();
        if pid == 1 {
            return Ok(None);
        }
        let descriptor = pidfd_open(parent, PidfdFlags::empty())?;
        // Still the parent, so nobody else has its number.
        let same = getppid() == Pid::from_raw(pid);
        Ok(same.then_some(Agent { pid, descriptor }))
    }

    /// The starts that are under way. Not one that waits in the kernel, whose process there is already: it may hang there
    /// with a file server, and what hangs so is not helped by the agent's end.
    pub fn starting(&self) -> BTreeSet<String> {
        let Ok(threads) = fs::read_dir(format!("/proc/{}/task", self.pid)) else {
            return BTreeSet::new();
        };
        let stats =
            threads.filter_map(|thread| Stat::from_file(thread.ok()?.path().join("stat")).ok());
        stats
            .filter(|stat| stat.comm.starts_with(PREFIX) && stat.state != 'D')
            .map(|stat| stat.comm)
            .collect()
    }

    pub fn kill(&self) {
        match pidfd_send_signal(&self.descriptor, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => eprintln!("could not kill the agent: {error}"),
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
        let pid = getpid();
        let agent = Agent {
            pid: pid.as_raw_nonzero().get(),
            descriptor: pidfd_open(pid, PidfdFlags::empty()).unwrap(),
        };
        let usual = name().unwrap();
        let starting = Starting::begin();
        let said = name().unwrap().into_string().unwrap();
        assert!(agent.starting().contains(&said), "{said}");
        drop(starting);
        assert!(!agent.starting().contains(&said), "{said}");
        assert_eq!(name().unwrap(), usual);
    }
}
