//! Scratch directories: one for each attempt, with a name of its own, and empty.
//!
//! Making and removing a directory allocates and frees an inode, which on a busy ext4 takes a
//! millisecond; renaming one takes a hundredth of that. So a directory that an attempt left empty is
//! put aside, and later renamed for another one. It rests first, until whatever was killed with its
//! attempt is certainly dead, and only then it is checked: empty, and with the rights it was made
//! with. Any other directory is removed.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::geteuid;

const MODE: u32 = 0o700;
/// Longer than the sweeper needs to find and kill what escaped.
const REST: Duration = Duration::from_secs(1);
/// Directories put aside: what a thousand attempts a second use while others rest.
const ASIDE_MAX: usize = 1_024;

#[derive(Debug)]
pub(super) struct Scratch {
    root: PathBuf,
    aside: Mutex<Aside>,
}

#[derive(Debug, Default)]
struct Aside {
    /// Oldest first.
    resting: VecDeque<(PathBuf, Instant)>,
    /// Counts them, for their names.
    made: u64,
}

impl Scratch {
    /// `root` has to be there.
    pub fn new(root: PathBuf) -> Scratch {
        Scratch {
            root,
            aside: Mutex::default(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Makes an empty directory for an attempt.
    pub fn make(&self, name: &str) -> io::Result<PathBuf> {
        let dir = self.path(name);
        while let Some(rested) = self.rested(Instant::now()) {
            if is_as_new(&rested) && fs::rename(&rested, &dir).is_ok() {
                return Ok(dir);
            }
            remove(&rested);
        }
        let create = || DirBuilder::new().mode(MODE).create(&dir);
        match create() {
            // An attempt has its name once, but a journal may be lost and begin anew.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                remove(&dir);
                create()?;
            }
            made => made?,
        }
        Ok(dir)
    }

    /// An attempt is done with it. What is left in it is removed, which may take long.
    pub fn release(&self, dir: &Path) -> Released {
        if !is_as_new(dir) {
            return Released::Full;
        }
        let mut aside = self.lock();
        if aside.resting.len() >= ASIDE_MAX {
            drop(aside);
            remove(dir);
            return Released::Done;
        }
        aside.made += 1;
        let to = self.root.join(format!("free-{}", aside.made));
        match fs::rename(dir, &to) {
            Ok(()) => aside.resting.push_back((to, Instant::now())),
            Err(error) => tracing::warn!(dir = %dir.display(), %error, "could not put aside"),
        }
        Released::Done
    }

    fn rested(&self, now: Instant) -> Option<PathBuf> {
        let mut aside = self.lock();
        let (_, since) = aside.resting.front()?;
        if now.duration_since(*since) < REST {
            return None;
        }
        aside.resting.pop_front().map(|(dir, _)| dir)
    }

    fn lock(&self) -> MutexGuard<'_, Aside> {
        self.aside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What became of a released directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Released {
    Done,
    /// There is something in it: [`remove`] it where blocking is fine.
    Full,
}

fn is_as_new(dir: &Path) -> bool {
    let ours = |found: &fs::Metadata| {
        found.is_dir() && found.mode() & 0o7777 == MODE && found.uid() == geteuid().as_raw()
    };
    fs::symlink_metadata(dir).is_ok_and(|found| ours(&found))
        && fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none())
}

/// Removes a directory with all that is in it.
pub(super) fn remove(dir: &Path) {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            tracing::warn!(dir = %dir.display(), %error, "could not remove a scratch directory");
        }
        Ok(()) | Err(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn scratch() -> (tempfile::TempDir, Scratch) {
        let root = tempfile::tempdir().unwrap();
        let scratch = Scratch::new(root.path().to_owned());
        (root, scratch)
    }

    fn rest_all(scratch: &Scratch) {
        for (_, since) in &mut scratch.lock().resting {
            *since = since.checked_sub(REST).unwrap();
        }
    }

    fn inode(dir: &Path) -> u64 {
        fs::metadata(dir).unwrap().ino()
    }

    #[test]
    fn an_empty_directory_is_used_again_after_it_rested() {
        let (_root, scratch) = scratch();
        let first = scratch.make("t1").unwrap();
        let number = inode(&first);
        assert_eq!(scratch.release(&first), Released::Done);
        assert!(!first.exists());
        assert_ne!(inode(&scratch.make("t2").unwrap()), number, "it rests");
        rest_all(&scratch);
        let third = scratch.make("t3").unwrap();
        assert_eq!(inode(&third), number);
        assert_eq!(fs::metadata(&third).unwrap().mode() & 0o7777, MODE);
    }

    #[test]
    fn a_directory_with_something_in_it_or_other_rights_is_never_used_again() {
        let (_root, scratch) = scratch();
        let spoil: [fn(&Path); 2] = [
            |dir| fs::write(dir.join("left"), "x").unwrap(),
            |dir| fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).unwrap(),
        ];
        for spoil in spoil {
            let dir = scratch.make("t1").unwrap();
            spoil(&dir);
            assert_eq!(scratch.release(&dir), Released::Full);
            remove(&dir);
            assert!(!dir.exists());

            // Spoilt only after it was put aside, by something that died late.
            let dir = scratch.make("t2").unwrap();
            let number = inode(&dir);
            scratch.release(&dir);
            let aside = scratch.lock().resting.back().unwrap().0.clone();
            spoil(&aside);
            rest_all(&scratch);
            let next = scratch.make("t3").unwrap();
            assert_ne!(
                (inode(&next), fs::read_dir(&next).unwrap().count()),
                (number, 1)
            );
            assert!(!aside.exists());
            remove(&next);
        }
    }
}
