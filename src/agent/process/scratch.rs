//! Scratch directories: one for each attempt, and empty.
//!
//! Making and removing a directory allocates and frees an inode, which on a busy ext4 takes a
//! millisecond. So a directory that an attempt left empty is put aside, and later handed out again
//! where it stands, under its number. It rests first, until whatever was killed with its attempt is
//! certainly dead, and only then it is checked: empty, and with the rights it was made with. Any other
//! directory is removed. A thread of its own takes them back: what is in them may take long to remove,
//! or for ever where it is on a server that is gone.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::geteuid;

use crate::error::Error;

const MODE: u32 = 0o700;
/// Longer than the sweeper needs to find and kill what escaped.
const REST: Duration = Duration::from_secs(1);
/// Directories put aside: what a thousand attempts a second use while others rest.
const ASIDE_MAX: usize = 1_024;

#[derive(Debug)]
pub(super) struct Scratch {
    root: PathBuf,
    /// Begins the names, so that what an earlier run left can be removed meanwhile.
    run: String,
    made: AtomicU64,
    resting: Arc<Resting>,
    released: Sender<PathBuf>,
}

/// Directories that were put aside, oldest first.
#[derive(Debug, Default)]
struct Resting(Mutex<VecDeque<(PathBuf, Instant)>>);

impl Scratch {
    /// `root` has to be there. The thread ends once it is dropped.
    pub fn start(root: PathBuf, run: &str) -> Result<Scratch, Error> {
        let resting = Arc::new(Resting::default());
        let (released, returned) = channel::<PathBuf>();
        let aside = Arc::clone(&resting);
        thread::Builder::new()
            .name("scratch".into())
            .spawn(move || returned.iter().for_each(|dir| aside.take_back(dir)))
            .map_err(Error::Thread)?;
        Ok(Scratch {
            root,
            run: run.to_owned(),
            made: AtomicU64::new(0),
            resting,
            released,
        })
    }

    /// An empty directory for an attempt.
    pub fn make(&self) -> io::Result<PathBuf> {
        while let Some(rested) = self.resting.rested(Instant::now()) {
            if is_as_new(&rested) {
                return Ok(rested);
            }
            remove(&rested);
        }
        let number = self.made.fetch_add(1, Ordering::Relaxed) + 1;
        let dir = self.root.join(format!("{}-{number}", self.run));
        DirBuilder::new().mode(MODE).create(&dir)?;
        Ok(dir)
    }

    /// An attempt is done with it. What is left in it is removed soon.
    pub fn release(&self, dir: PathBuf) {
        // The thread lives as long as this does; without it the next start removes the directory.
        if let Err(unheard) = self.released.send(dir) {
            tracing::debug!(dir = %unheard.0.display(), "a scratch directory stays");
        }
    }
}

impl Resting {
    fn take_back(&self, dir: PathBuf) {
        if is_as_new(&dir) {
            let mut resting = self.lock();
            if resting.len() < ASIDE_MAX {
                return resting.push_back((dir, Instant::now()));
            }
        }
        remove(&dir);
    }

    fn rested(&self, now: Instant) -> Option<PathBuf> {
        let mut resting = self.lock();
        let (_, since) = resting.front()?;
        if now.duration_since(*since) < REST {
            return None;
        }
        resting.pop_front().map(|(dir, _)| dir)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(PathBuf, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_as_new(dir: &Path) -> bool {
    let ours = |found: &fs::Metadata| {
        found.is_dir() && found.mode() & 0o7777 == MODE && found.uid() == geteuid().as_raw()
    };
    fs::symlink_metadata(dir).is_ok_and(|found| ours(&found))
        && fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none())
}

/// Removes a directory with all that is in it, read-only directories too: Go makes its cache of them.
pub(crate) fn remove(dir: &Path) {
    let removed = fs::remove_dir_all(dir).or_else(|error| match error.kind() {
        ErrorKind::NotFound => Ok(()),
        ErrorKind::PermissionDenied => {
            open_up(dir);
            fs::remove_dir_all(dir)
        }
        _ => Err(error),
    });
    if let Err(error) = removed {
        tracing::warn!(dir = %dir.display(), %error, "could not remove a scratch directory");
    }
}

/// Gives us all rights on every directory here. What can't be changed stays, and so does the error.
fn open_up(dir: &Path) {
    let mut next = vec![dir.to_owned()];
    while let Some(dir) = next.pop() {
        let Ok(found) = fs::symlink_metadata(&dir) else {
            continue;
        };
        // Never through a link: it may lead anywhere.
        if !found.is_dir() {
            continue;
        }
        let rights = fs::Permissions::from_mode(found.mode() & 0o7777 | MODE);
        if fs::set_permissions(&dir, rights).is_ok()
            && let Ok(entries) = fs::read_dir(&dir)
        {
            let inner = entries.filter_map(Result::ok);
            let dirs = inner.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            next.extend(dirs.map(|entry| entry.path()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch() -> (tempfile::TempDir, Scratch) {
        let root = tempfile::tempdir().unwrap();
        let scratch = Scratch::start(root.path().to_owned(), "run").unwrap();
        (root, scratch)
    }

    fn rest_all(scratch: &Scratch) {
        for (_, since) in &mut *scratch.resting.lock() {
            *since = since.checked_sub(REST).unwrap();
        }
    }

    fn inode(dir: &Path) -> u64 {
        fs::metadata(dir).unwrap().ino()
    }

    #[test]
    fn an_empty_directory_is_used_again_after_it_rested() {
        let (_root, scratch) = scratch();
        let first = scratch.make().unwrap();
        let number = inode(&first);
        scratch.resting.take_back(first.clone());
        let second = scratch.make().unwrap();
        assert_ne!(second, first, "it rests");
        rest_all(&scratch);
        let third = scratch.make().unwrap();
        assert_eq!((&third, inode(&third)), (&first, number));
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
            let dir = scratch.make().unwrap();
            spoil(&dir);
            scratch.resting.take_back(dir.clone());
            assert!(!dir.exists());

            // Spoilt only after it was put aside, by something that died late.
            let dir = scratch.make().unwrap();
            scratch.resting.take_back(dir.clone());
            spoil(&dir);
            rest_all(&scratch);
            let next = scratch.make().unwrap();
            assert_ne!(next, dir);
            assert!(!dir.exists());
            remove(&next);
        }
    }

    #[test]
    fn directories_that_are_read_only_are_opened_up_and_nothing_behind_a_link_is() {
        let root = tempfile::tempdir().unwrap();
        let (dir, outside) = (root.path().join("dir"), root.path().join("outside"));
        let deep = dir.join("module/cache");
        fs::create_dir_all(&deep).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(deep.join("file"), "x").unwrap();
        std::os::unix::fs::symlink(&outside, deep.join("link")).unwrap();
        let read_only = || fs::Permissions::from_mode(0o555);
        for closed in [&outside, &deep, &dir.join("module")] {
            fs::set_permissions(closed, read_only()).unwrap();
        }
        let mode = |dir: &Path| fs::metadata(dir).unwrap().mode() & 0o7777;
        open_up(&dir);
        assert_eq!((mode(&deep), mode(&outside)), (0o755, 0o555));
        for closed in [&deep, &dir.join("module")] {
            fs::set_permissions(closed, read_only()).unwrap();
        }
        remove(&dir);
        assert!(!dir.exists());
    }
}
