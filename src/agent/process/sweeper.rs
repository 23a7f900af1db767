//! Finds processes that left their group, and reaps the orphans that the agent adopted.
//!
//! The agent is a child subreaper, so whatever an attempt starts stays below it: a process whose
//! parent died becomes a child of the agent. A thread of its own reads the process table, once for
//! all who ask at the same time, and at most every [`QUIET`] after attempts that ended by
//! themselves: at full speed a look at `/proc` for each of them would cost more than they do.
//!
//! An orphan belongs to the attempt whose mark is in its environment. One without belongs to one of
//! the attempts that ran when it was first seen, and ends with the last of them.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{getpid, set_child_subreaper};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::marks::Instance;
use super::orphans::reap;
use super::roster::{ROSTER, Roster, Spawn};
use super::signals::kill_exactly;
use super::table::{Process, Table};
use crate::error::Error;

/// Between two looks at the process table that nobody waits for.
const QUIET: Duration = Duration::from_millis(250);
/// Between looks while attempts run, for orphans that ended and have to be reaped.
const ROUND: Duration = Duration::from_secs(2);
/// Without any attempt there is nothing to look for; then only requests wake the thread.
const IDLE: Duration = Duration::from_secs(3600);
/// What is to be killed is killed after that, whoever was found until then.
const FIND: Duration = Duration::from_millis(200);

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
    /// A look was asked for and has not begun: at full speed the thread is woken once for many.
    wanted: Arc<AtomicBool>,
}

impl Sweeper {
    /// The thread ends when the sweeper is dropped.
    pub fn start(instance: &Instance) -> Result<Sweeper, Error> {
        if let Err(error) = set_child_subreaper(Some(getpid())) {
            tracing::warn!(%error, "can't adopt orphans: a process may escape its attempt");
        }
        let (requests, waiting) = channel();
        let sweep = Sweep {
            prefix: instance.prefix(),
            ..Sweep::default()
        };
        let wanted = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&wanted);
        thread::Builder::new()
            .name("sweep".into())
            .spawn(move || serve(sweep, &waiting, &asked))
            .map_err(Error::Thread)?;
        Ok(Sweeper { requests, wanted })
    }

    /// All processes below `root`, also in other groups and sessions; as far as they can be found in
    /// [`FIND`], for killing does not wait for a process that can't even be looked at.
    pub async fn descendants(&self, root: i32) -> Vec<Process> {
        let (answer, answered) = oneshot::channel();
        if self
            .requests
            .send(Request::Descendants { root, answer })
            .is_err()
        {
            return Vec::new();
        }
        match timeout(FIND, answered).await {
            Ok(found) => found.unwrap_or_default(),
            Err(_) => {
                tracing::warn!(root, "could not look for descendants in time");
                Vec::new()
            }
        }
    }

    /// An attempt ended by itself: soon, look whether it left something behind.
    pub fn look(&self) {
        if self.wanted.swap(true, Ordering::AcqRel) {
            return;
        }
        // A sweeper whose thread is gone belongs to an agent that ends.
        if self.requests.send(Request::Look).is_err() {
            tracing::debug!("nobody looks for orphans any more");
        }
    }
}

fn serve(mut sweep: Sweep, waiting: &Receiver<Request>, asked_to_look: &AtomicBool) {
    let mut last = Instant::now();
    let mut again = false;
    loop {
        let wanted = again || asked_to_look.load(Ordering::Acquire);
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
                Request::Look => {}
            }
        }
        let wanted = again || asked_to_look.load(Ordering::Acquire);
        let since = last.elapsed();
        if asked.is_empty() && since < QUIET || (!wanted && asked.is_empty() && since < ROUND) {
            continue;
        }
        // Before the table is read: whoever ends after that asks again.
        asked_to_look.store(false, Ordering::Release);
        let table = Table::read();
        for (root, answer) in asked {
            // Whoever asked may have ended in the meantime.
            answer.send(table.descendants(root)).unwrap_or_default();
        }
        again = sweep.orphans(&table, &ROSTER);
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
    /// Dead children, and the spawns under way when each was first seen: one of those may be waiting
    /// for it.
    dead: HashMap<Process, BTreeSet<Spawn>>,
}

enum Fate {
    Lives,
    Dies,
}

impl Sweep {
    /// Reaps and kills; says whether to look again soon.
    fn orphans(&mut self, table: &Table, roster: &Roster) -> bool {
        let own = getpid().as_raw_nonzero().get();
        // In this order: a child that is not listed belongs to a spawn that is still under way.
        let spawns = roster.spawns();
        let marks = roster.marks();
        let children = table.rows().iter().filter(|row| row.parent == own);
        let orphans: Vec<Process> = children
            .filter(|row| !roster.is_main(row.pid))
            .copied()
            .collect();
        let mut again = false;
        let mut strays = HashMap::new();
        let mut dead = HashMap::new();
        for orphan in &orphans {
            if orphan.zombie {
                let open = self.may_wait_for(orphan, &spawns);
                if open.is_empty() {
                    reap(orphan.pid);
                } else {
                    again = true;
                    dead.insert(*orphan, open);
                }
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
        self.dead = dead;
        again
    }

    /// The spawns under way since before this dead child was first seen: it may be that of one.
    fn may_wait_for(&mut self, orphan: &Process, spawns: &BTreeSet<Spawn>) -> BTreeSet<Spawn> {
        match self.dead.remove(orphan) {
            Some(seen) => seen.intersection(spawns).copied().collect(),
            None => spawns.clone(),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_child_is_reaped_once_no_spawn_can_be_waiting_for_it() {
        let roster = Roster::default();
        let dead = Process {
            pid: 7,
            parent: 1,
            group: 7,
            started: 9,
            zombie: true,
        };
        let mut sweep = Sweep::default();
        let first = roster.spawning();
        let open = sweep.may_wait_for(&dead, &roster.spawns());
        assert_eq!(open.len(), 1, "it may be the child of this one");
        sweep.dead.insert(dead, open);
        let second = roster.spawning();
        let open = sweep.may_wait_for(&dead, &roster.spawns());
        assert_eq!(open.len(), 1, "but not of one that began later");
        sweep.dead.insert(dead, open);
        drop(first);
        assert!(sweep.may_wait_for(&dead, &roster.spawns()).is_empty());
        drop(second);
    }

    #[tokio::test]
    async fn what_is_to_be_killed_does_not_wait_for_a_sweeper_that_hangs() {
        let (requests, _never_answered) = channel();
        let sweeper = Sweeper {
            requests,
            wanted: Arc::default(),
        };
        assert_eq!(sweeper.descendants(1).await, []);
    }
}
