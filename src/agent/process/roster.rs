//! Who is ours: the attempts that run, and the processes that the agent started for them.
//!
//! One list for the whole program, because children belong to a program and not to a part of it:
//! whoever reaps must know all of them.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

#[derive(Debug, Default)]
struct Listed {
    marks: HashSet<String>,
    mains: HashSet<i32>,
}

#[derive(Debug, Default)]
pub(crate) struct Roster {
    listed: Mutex<Option<Listed>>,
    spawning: RwLock<()>,
}

pub(crate) static ROSTER: Roster = Roster {
    listed: Mutex::new(None),
    spawning: RwLock::new(()),
};

impl Roster {
    /// An attempt begins: from now on processes with its mark may run.
    pub fn begin(&self, mark: &str) {
        self.with(|listed| listed.marks.insert(mark.to_owned()));
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

    pub fn is_main(&self, pid: i32) -> bool {
        self.with(|listed| listed.mains.contains(&pid))
    }

    /// Held while a process is spawned and listed: meanwhile nobody reaps.
    pub fn spawning(&self) -> Spawning<'_> {
        let held = self.spawning.read().unwrap_or_else(PoisonError::into_inner);
        Spawning {
            roster: self,
            _held: held,
        }
    }

    /// Does `reap` unless `pid` is a process that an attempt waits for itself.
    pub fn reap_orphan(&self, pid: i32, reap: impl FnOnce()) {
        let _nobody_spawns = self
            .spawning
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if !self.is_main(pid) {
            reap();
        }
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
    _held: RwLockReadGuard<'a, ()>,
}

impl Spawning<'_> {
    pub fn add(&self, main: i32) {
        self.roster.with(|listed| listed.mains.insert(main));
    }

    pub fn remove(&self, main: i32) {
        self.roster.with(|listed| listed.mains.remove(&main));
    }
}
