//! Holding back what one process writes to a disk: the kernel lets only so many writes a second through.
//!
//! It is done by a control group that has the process alone in it, of whichever of the two kinds there is. The limit goes with the
//! group, and counts for its processes only: one that a harness left behind when it was killed is empty, and does nothing.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::stat::{major, minor};

use crate::faults::process::{self, Process};
use crate::{Error, wait};

/// For a group to be empty once its process has left it.
const EMPTY: Duration = Duration::from_secs(10);

/// Where control groups are that can limit writes.
#[derive(Debug)]
struct Hierarchy {
    root: PathBuf,
    is_unified: bool,
}

impl Hierarchy {
    fn find() -> Result<Hierarchy, String> {
        let mounts = fs::read_to_string("/proc/self/mounts");
        let mounts = mounts.map_err(|error| format!("/proc/self/mounts: {error}"))?;
        let found = mounts.lines().find_map(|line| {
            let mut words = line.split(' ').skip(1);
            let (root, kind, options) = (words.next()?, words.next()?, words.next()?);
            let root = PathBuf::from(root);
            let is_unified = kind == "cgroup2";
            let limits = match kind {
                "cgroup" => options.split(',').any(|option| option == "blkio"),
                "cgroup2" => has_word(&root.join("cgroup.subtree_control"), "io"),
                _ => false,
            };
            limits.then_some(Hierarchy { root, is_unified })
        });
        found.ok_or_else(|| "no control groups that limit writes are mounted".to_owned())
    }

    /// The file of a group that takes a limit.
    fn limit(&self, group: &Path) -> PathBuf {
        group.join(match self.is_unified {
            true => "io.max",
            false => "blkio.throttle.write_iops_device",
        })
    }

    /// What is written there; `None` takes the limit away.
    fn line(&self, (major, minor): (u64, u64), writes: Option<u32>) -> String {
        match (self.is_unified, writes) {
            (true, Some(writes)) => format!("{major}:{minor} wiops={writes}"),
            (true, None) => format!("{major}:{minor} wiops=max"),
            (false, writes) => format!("{major}:{minor} {}", writes.unwrap_or(0)),
        }
    }

    /// In which group a process is.
    fn group_of(&self, pid: i32) -> Result<PathBuf, Error> {
        let path = PathBuf::from(format!("/proc/{pid}/cgroup"));
        let text = fs::read_to_string(&path).map_err(Error::file("reading", &path))?;
        let found = text.lines().find_map(|line| {
            let (_, line) = line.split_once(':')?;
            let (controllers, group) = line.split_once(':')?;
            let is_it = match self.is_unified {
                true => controllers.is_empty(),
                false => controllers.split(',').any(|name| name == "blkio"),
            };
            is_it.then(|| self.root.join(group.trim_start_matches('/')))
        });
        found.ok_or_else(|| Error::format(&path, "it names no group"))
    }

    fn create(&self, name: &str) -> std::io::Result<PathBuf> {
        let group = self
            .root
            .join(format!("quorate-{}-{name}", process::own_pid()));
        fs::create_dir(&group)?;
        Ok(group)
    }
}

fn has_word(path: &Path, word: &str) -> bool {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().any(|it| it == word)
}

/// Why nobody's writes can be held back here.
pub fn possible() -> Result<(), String> {
    let hierarchy = Hierarchy::find()?;
    let group = hierarchy.create("probe");
    let group = group.map_err(|error| format!("{}: {error}", hierarchy.root.display()))?;
    let has_limits = hierarchy.limit(&group).exists();
    fs::remove_dir(&group).map_err(|error| format!("{}: {error}", group.display()))?;
    match has_limits {
        true => Ok(()),
        false => Err("this kernel was built without a throttle of writes".to_owned()),
    }
}

/// A process whose writes are held back.
#[derive(Debug)]
pub struct Throttle {
    hierarchy: Hierarchy,
    pid: i32,
    /// The group that it came from, and the one that it is in.
    former: PathBuf,
    group: PathBuf,
    device: (u64, u64),
}

impl Throttle {
    /// Lets through so many writes a second of the process `pid` to the disk that `path` is on.
    pub fn lay(pid: i32, path: &Path, writes: u32) -> Result<Throttle, Error> {
        let hierarchy = Hierarchy::find().map_err(Error::Invalid)?;
        let found = fs::metadata(path).map_err(Error::file("looking at", path))?;
        let former = hierarchy.group_of(pid)?;
        let group = hierarchy.create(&pid.to_string());
        let throttle = Throttle {
            group: group.map_err(Error::file("making a group in", &hierarchy.root))?,
            hierarchy,
            pid,
            former,
            device: (major(found.dev()), minor(found.dev())),
        };
        let laid = throttle.limit(Some(writes));
        match laid.and_then(|()| enter(&throttle.group, pid)) {
            Ok(()) => Ok(throttle),
            Err(error) => {
                // The first error counts; an empty group does nothing.
                let _removed = fs::remove_dir(&throttle.group);
                Err(error)
            }
        }
    }

    fn limit(&self, writes: Option<u32>) -> Result<(), Error> {
        let path = self.hierarchy.limit(&self.group);
        let line = self.hierarchy.line(self.device, writes);
        fs::write(&path, line).map_err(Error::file("writing", &path))
    }

    /// Lets everything through again, also what waits; whether the process lives or not.
    pub async fn lift(self) -> Result<(), Error> {
        self.limit(None)?;
        if Process::is_alive(self.pid) {
            match enter(&self.former, self.pid) {
                // It ended at this moment.
                Err(_) if !Process::is_alive(self.pid) => {}
                entered => entered?,
            }
        }
        let what = format!("{} to be empty", self.group.display());
        wait::until_now(&what, EMPTY, || match fs::remove_dir(&self.group) {
            Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) => Err(error),
            removed => Ok(removed),
        })
        .await?
        .map_err(Error::file("removing", &self.group))
    }
}

fn enter(group: &Path, pid: i32) -> Result<(), Error> {
    let path = group.join("cgroup.procs");
    fs::write(&path, pid.to_string()).map_err(Error::file("writing", &path))
}
