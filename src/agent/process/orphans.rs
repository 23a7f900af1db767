//! What left an attempt's group and lost its parent: found at once, by asking the kernel whom the
//! agent adopted.
//!
//! The agent is a child subreaper, so a process whose parent died becomes a child of its main thread.
//! `/proc/self/task/TID/children` lists those, and it is nearly always empty: the processes of attempts
//! are children of the threads that started them. Once an attempt's own process is dead, everything
//! that it left is below an entry of that list. Whatever is not found here (it wiped its environment
//! and left the group), and all of it where the kernel has no such list, is for the sweeper.

use std::collections::HashSet;
use std::fs;
use std::time::Duration;

use rustix::process::{Pid, WaitId, WaitIdOptions, getpid, waitid};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout_at};

use super::roster::ROSTER;
use super::signals::kill_exactly;
use super::table::{Process, Table};

/// How long an attempt waits for what it left behind to be dead.
const PATIENCE: Duration = Duration::from_millis(100);
/// A killed process needs a moment to die.
const PAUSE: Duration = Duration::from_millis(1);

/// What is known of an attempt whose process is dead and not yet reaped.
#[derive(Debug, Clone)]
pub(super) struct Remains {
    pub mark: String,
    /// The number of its process, and of its group.
    pub group: i32,
    killed: HashSet<Process>,
}

/// Whether something of the attempt may be left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    Nothing,
    Perhaps,
}

impl Remains {
    pub fn new(mark: String, group: i32) -> Remains {
        Remains {
            mark,
            group,
            killed: HashSet::new(),
        }
    }

    /// Kills and reaps what is left, until a look finds nothing.
    pub async fn end(mut self) -> Left {
        let patience = Instant::now() + PATIENCE;
        loop {
            let Some(adopted) = adopted() else {
                return Left::Perhaps;
            };
            if adopted.is_empty() {
                return Left::Nothing;
            }
            // To read what a process says of itself may hang with it.
            let looked = spawn_blocking(move || {
                let found = self.kill(&adopted);
                (self, found)
            });
            let Ok(Ok((remains, found))) = timeout_at(patience, looked).await else {
                return Left::Perhaps;
            };
            if found == 0 {
                return Left::Nothing;
            }
            if Instant::now() >= patience {
                return Left::Perhaps;
            }
            self = remains;
            sleep(PAUSE).await;
        }
    }

    /// How many of these belong to the attempt, dead or alive.
    fn kill(&mut self, adopted: &[i32]) -> usize {
        let ours: Vec<Process> = adopted
            .iter()
            .filter_map(|pid| Process::read(*pid))
            .filter(|orphan| self.is_ours(orphan))
            .collect();
        let (dead, alive): (Vec<&Process>, Vec<&Process>) =
            ours.iter().partition(|orphan| orphan.zombie);
        dead.iter().for_each(|orphan| reap(orphan.pid));
        if !alive.is_empty() {
            let table = Table::read();
            for orphan in alive {
                for process in table.descendants(orphan.pid).iter().chain([orphan]) {
                    kill_exactly(process);
                    self.killed.insert(*process);
                }
            }
        }
        ours.len()
    }

    fn is_ours(&self, orphan: &Process) -> bool {
        let was_killed =
            |killed: &Process| (killed.pid, killed.started) == (orphan.pid, orphan.started);
        orphan.group == self.group
            || self.killed.iter().any(was_killed)
            || (!orphan.zombie && orphan.mark().as_ref() == Some(&self.mark))
    }
}

/// Orphans that the agent adopted; nothing where the kernel does not say.
fn adopted() -> Option<Vec<i32>> {
    let main = getpid().as_raw_nonzero();
    let children = fs::read_to_string(format!("/proc/self/task/{main}/children")).ok()?;
    let pids = children
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok());
    Some(pids.filter(|pid| !ROSTER.is_main(*pid)).collect())
}

/// Takes note of the end of a dead child.
pub(super) fn reap(pid: i32) {
    let Some(pid) = Pid::from_raw(pid) else {
        return;
    };
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    if let Err(error) = waitid(WaitId::Pid(pid), options) {
        tracing::debug!(?pid, %error, "an orphan was gone before it was reaped");
    }
}
