//! Who is ours: the attempts that run, and the processes that the agent started for them.
//!
//! One list for the whole program, because children belong to a program and not to a part of it:
//! whoever reaps must know all of them. A spawn may hang, for its program may lie on a server that is
//! gone; so none of it happens under a lock, and whoever reaps looks at what is under way instead.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Debug, Default)]
struct Listed {
    marks: HashSet<String>,
    mains: HashSet<i32>,
    /// Spawns under way.
    spawns: BTreeSet<Spawn>,
    last: u64,
}

/// The number of a spawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Spawn(u64);

#[derive(Debug, Default)]
pub(crate) struct Roster {
    listed: Mutex<Option<Listed>>,
}

pub(crate) static ROSTER: Roster = Roster {
    listed: Mutex::new(None),
};

impl Roster {
    /// An attempt begins: from now on processes with its mark may run.
    pub fn begin(&self, mark: &str) {
        self.with(|listed| listed.marks.insert(mark.to_owned()));
    }

    /// From now on whatever carries the mark is ended where it is found.
    pub fn outlaw(&self, mark: &str) {
        self.with(|listed| listed.marks.remove(mark));
    }

    /// Nothing of the attempt may run any more. Its process, if it had one, is reaped.
    pub fn end(&self, mark: &str, main: Option<i32>) {
        self.with(|listed| {
            listed.marks.remove(mark);
            if let Some(main) = main {
                listed.mains.remove(&main);
            }
        });
    }

    pub fn marks(&self) -> HashSet<String> {
        self.with(|listed| listed.marks.clone())
    }

    pub fn is_busy(&self) -> bool {
        self.with(|listed| !listed.marks.is_empty())
    }

    /// A process that somebody waits for.
    pub fn is_main(&self, pid: i32) -> bool {
        self.with(|listed| listed.mains.contains(&pid))
    }

    /// Held while a process is spawned and listed.
    pub fn spawning(&self) -> Spawning<'_> {
        let spawn = self.with(|listed| {
            listed.last += 1;
            let spawn = Spawn(listed.last);
            listed.spawns.insert(spawn);
            spawn
        });
        Spawning {
            roster: self,
            spawn,
        }
    }

    /// Spawns under way: a child that is not listed may be one of theirs.
    pub fn spawns(&self) -> BTreeSet<Spawn> {
        self.with(|listed| listed.spawns.clone())
    }

    pub fn remove(&self, main: i32) {
        self.with(|listed| listed.mains.remove(&main));
    }

    fn with<T>(&self, use_it: impl FnOnce(&mut Listed) -> T) -> T {
        let mut listed: MutexGuard<'_, Option<Listed>> =
            self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        use_it(listed.get_or_insert_with(Listed::default))
    }
}

/// See [`Roster::spawning`].
pub(crate) struct Spawning<'a> {
    roster: &'a Roster,
    spawn: Spawn,
}

impl Spawning<'_> {
    pub fn add(&self, main: i32) {
        self.roster.with(|listed| listed.mains.insert(main));
    }

    pub fn remove(&self, main: i32) {
        self.roster.remove(main);
    }
}

impl Drop for Spawning<'_> {
    fn drop(&mut self) {
        self.roster.with(|listed| listed.spawns.remove(&self.spawn));
    }
}
