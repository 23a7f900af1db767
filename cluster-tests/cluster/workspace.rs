//! The directory of one cluster: on a real disk, marked with who owns it, removed with everything in
//! it and every process that still lives there.
//!
//! A harness that was killed can't clean up, so each start sweeps what dead owners have left. A process
//! counts as ours only if it is a `quorate` that was told of the directory, whose name is unique, or a
//! task that works in it; it is then ended by its pid, and by nothing else.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::faults::process::{self, Process};

const OWNER: &str = "owner.json";
const PREFIX: &str = "cluster-";
/// How long killed processes may take to vanish before the directory is removed under them.
const VANISH: Duration = Duration::from_secs(5);

/// A directory that lives as long as this value.
#[derive(Debug)]
pub struct Workspace {
    path: PathBuf,
    keep: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Owner {
    pid: i32,
    /// Pids are used again; with the time of its start it is one process.
    started: u64,
}

impl Workspace {
    pub fn create(name: &str) -> Result<Workspace, Error> {
        let root = root()?;
        sweep(&root)?;
        let unique = uuid::Uuid::new_v4().simple().to_string();
        let path = root.join(format!("{PREFIX}{name}-{}", &unique[..8]));
        fs::create_dir_all(&path).map_err(Error::file("creating", &path))?;
        let pid = process::own_pid();
        let owner = Owner {
            pid,
            started: Process::look(pid).map_or(0, |own| own.started),
        };
        let text = serde_json::to_string(&owner).map_err(|error| Error::format(&path, error))?;
        let file = path.join(OWNER);
        fs::write(&file, text).map_err(Error::file("writing", &file))?;
        Ok(Workspace {
            path,
            keep: std::env::var_os("QUORATE_KEEP").is_some(),
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files stay when this value goes; its processes do not.
    pub fn keep(&mut self) {
        self.keep = true;
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        end_processes(&self.path);
        if self.keep || std::thread::panicking() {
            eprintln!(
                "kept for a look, until the next run: {}",
                self.path.display()
            );
        } else {
            // Nobody is left to tell; the next sweep tries again.
            let _removed = fs::remove_dir_all(&self.path);
        }
    }
}

/// Space that the files below a directory take; those that vanish meanwhile take none.
pub fn bytes_below(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(it) if it.is_dir() => bytes_below(&entry.path()),
            Ok(it) => it.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

/// `QUORATE_TEST_DIR`, else the build's target directory; `/var/tmp` where that is in memory, because
/// an fsync that costs nothing shows nothing.
fn root() -> Result<PathBuf, Error> {
    let given = std::env::var_os("QUORATE_TEST_DIR").map(PathBuf::from);
    let usual = crate::binary::target_directory()?;
    let base = match given {
        Some(given) => given,
        None if in_memory(&usual) => PathBuf::from("/var/tmp"),
        None => usual,
    };
    let root =
        std::path::absolute(base.join("clusters")).map_err(Error::io("the current directory"))?;
    fs::create_dir_all(&root).map_err(Error::file("creating", &root))?;
    match in_memory(&root) {
        true => Err(Error::Invalid(format!(
            "{} is in memory, where an fsync means nothing: set QUORATE_TEST_DIR",
            root.display()
        ))),
        false => Ok(root),
    }
}

fn in_memory(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == TMPFS_MAGIC)
}

/// Removes the directories of owners that are gone, and ends what still runs in them.
fn sweep(root: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(root).map_err(Error::file("listing", root))? {
        let path = entry.map_err(Error::file("listing", root))?.path();
        let ours = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(PREFIX));
        if ours && is_orphaned(&path) {
            end_processes(&path);
            // It may be another sweeper's at this moment.
            let _removed = fs::remove_dir_all(&path);
        }
    }
    Ok(())
}

fn is_orphaned(path: &Path) -> bool {
    let owner = fs::read_to_string(path.join(OWNER))
        .ok()
        .and_then(|text| serde_json::from_str::<Owner>(&text).ok());
    match owner {
        Some(owner) => Process::look(owner.pid).is_none_or(|found| found.started != owner.started),
        // No mark yet: it may be being made just now.
        None => false,
    }
}

fn end_processes(path: &Path) {
    let begun = Instant::now();
    loop {
        let left = process::living_in(path);
        if left.is_empty() || begun.elapsed() > VANISH {
            return;
        }
        for found in left {
            // It may have ended by itself since it was found.
            let _sent = process::send(found.pid, Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
