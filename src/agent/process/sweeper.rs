//! Finds processes that left their group, and reaps the orphans that the agent adopted.
//!
//! The agent is a child subreaper, so whatever an attempt starts stays below it: a process whose
//! parent died becomes a child of the agent. A thread of its own reads the process table, once for
//! all who ask at the same time, and at most every [`QUIET`] after attempts that ended by
//! themselves: at full speed a look at `/proc` for each of them would cost more than they do.
//!
//! An orphan belongs to the attempt whose mark is in its environment. One without belongs to one of
//! the attempts that ran when it was first seen, and ends with the last of them.

use std::collections::{HashMap, HashSet};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use model::Incarnation;
use rustix::process::{Pid, WaitId, WaitIdOptions, getpid, set_child_subreaper, waitid};
use tokio::sync::oneshot;

use super::roster::{ROSTER, Roster};
use super::signals::kill_exactly;
use super::table::{Process, Table};
use crate::error::Error;

/// Between two looks at the process table that nobody waits for.
const QUIET: Duration = Duration::from_millis(250);
/// Between looks while attempts run, for orphans that ended and have to be reaped.
const ROUND: Duration = Duration::from_secs(2);
/// Without any attempt there is nothing to look for; then only requests wake the thread.
const IDLE: Duration = Duration::from_secs(3600);

enum Request {
    Descendants {
        root: i32,
        answer: oneshot::Sender<Vec<Process>>,
    },
    /// An attempt ended.
    Look,
}

#[derive(Debug)]
pub(super) struct Sweeper {
    requests: Sender<Request>,
}

impl Sweeper {
    /// The thread ends when the sweeper is dropped.
    pub fn start(incarnation: Incarnation) -> Result<Sweeper, Error> {
        if let Err(error) = set_child_subreaper(Some(getpid())) {
            tracing::warn!(%error, "can't adopt orphans: a process may escape its attempt");
        }
        let (requests, waiting) = channel();
        let sweep = Sweep {
            prefix: format!("{incarnation}."),
            ..Sweep::default()
        };
        thread::Builder::new()
            .name("sweep".into())
            .spawn(move || serve(sweep, &waiting))
            .map_err(Error::Thread)?;
        Ok(Sweeper { requests })
    }

    /// All processes below `root`, also in other groups and sessions.
    pub async fn descendants(&self, root: i32) -> Vec<Process> {
        let (answer, answered) = oneshot::channel();
        if self
            .requests
            .send(Request::Descendants { root, answer })
            .is_err()
        {
            return Vec::new();
        }
        answered.await.unwrap_or_default()
    }

    /// An attempt ended by itself: soon, look whether it left something behind.
    pub fn look(&self) {
        // A sweeper whose thread is gone belongs to an agent that ends.
        if self.requests.send(Request::Look).is_err() {
            tracing::debug!("nobody looks for orphans any more");
        }
    }
}

fn serve(mut sweep: Sweep, waiting: &Receiver<Request>) {
    let mut last = Instant::now();
    let mut wanted = false;
    loop {
        let pause = match (wanted, ROSTER.is_busy()) {
            (true, _) => QUIET.saturating_sub(last.elapsed()),
            (false, true) => ROUND.saturating_sub(last.elapsed()),
            (false, false) => IDLE,
        };
        let first = match waiting.recv_timeout(pause) {
            Ok(request) => Some(request),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let mut asked = Vec::new();
        for request in first.into_iter().chain(waiting.try_iter()) {
            match request {
                Request::Descendants { root, answer } => asked.push((root, answer)),
                Request::Look => wanted = true,
            }
        }
        let since = last.elapsed();
        if asked.is_empty() && since < QUIET || (!wanted && asked.is_empty() && since < ROUND) {
            continue;
        }
        let table = Table::read();
        for (root, answer) in asked {
            // Whoever asked may have ended in the meantime.
            answer.send(table.descendants(root)).unwrap_or_default();
        }
        wanted = sweep.orphans(&table, &ROSTER);
        last = Instant::now();
    }
}

/// What is known of orphans from one look to the next.
#[derive(Debug, Default)]
struct Sweep {
    /// What marks of this agent begin with.
    prefix: String,
    /// Orphans without a mark of ours, and the attempts that ran when each was first seen.
    strays: HashMap<Process, HashSet<String>>,
}

enum Fate {
    Lives,
    Dies,
}

impl Sweep {
    /// Reaps and kills; says whether to look again soon.
    fn orphans(&mut self, table: &Table, roster: &Roster) -> bool {
        let own = getpid().as_raw_nonzero().get();
        let marks = roster.marks();
        let children = table.rows().iter().filter(|row| row.parent == own);
        let orphans: Vec<Process> = children
            .filter(|row| !roster.is_main(row.pid))
            .copied()
            .collect();
        let mut again = false;
        let mut strays = HashMap::new();
        for orphan in &orphans {
            if orphan.zombie {
                roster.reap_orphan(orphan.pid, || reap(orphan.pid));
                continue;
            }
            match self.judge(orphan, &marks, &mut strays) {
                Fate::Lives => {}
                Fate::Dies => {
                    again = true;
                    tracing::info!(pid = orphan.pid, "killed what an ended attempt left behind");
                    table.descendants(orphan.pid).iter().for_each(kill_exactly);
                    kill_exactly(orphan);
                }
            }
        }
        // With nobody left to wait for, those that were seen once are judged again at once.
        again |= !strays.is_empty() && marks.is_empty();
        self.strays = strays;
        again
    }

    fn judge(
        &self,
        orphan: &Process,
        marks: &HashSet<String>,
        strays: &mut HashMap<Process, HashSet<String>>,
    ) -> Fate {
        match orphan.mark() {
            Some(mark) if marks.contains(&mark) => return Fate::Lives,
            Some(mark) if mark.starts_with(&self.prefix) => return Fate::Dies,
            Some(_) | None => {}
        }
        match self.strays.get(orphan) {
            // Never at first sight: a process that is being spawned has no environment yet.
            None => {
                strays.insert(*orphan, marks.clone());
                Fate::Lives
            }
            Some(suspects) => {
                let left: HashSet<String> = suspects.intersection(marks).cloned().collect();
                if left.is_empty() {
                    return Fate::Dies;
                }
                strays.insert(*orphan, left);
                Fate::Lives
            }
        }
    }
}

fn reap(pid: i32) {
    let Some(pid) = Pid::from_raw(pid) else {
        return;
    };
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    if let Err(error) = waitid(WaitId::Pid(pid), options) {
        tracing::debug!(?pid, %error, "an orphan was gone before it was reaped");
    }
}
