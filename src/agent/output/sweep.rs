//! Retention: logs of finished attempts go when they are old, or when all together are too large.

use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::logs::Logs;

struct Finished {
    dir: PathBuf,
    /// When it was last written to.
    at: SystemTime,
    bytes: u64,
}

/// Removes what is over the limits, oldest first; says how many logs it removed.
pub(crate) fn remove_old(logs: &Logs, now: SystemTime) -> io::Result<usize> {
    remove_old_with(logs, now, |dir| fs::remove_dir_all(dir))
}

/// What can't be removed stays, and the next one goes in its place.
pub(super) fn remove_old_with(
    logs: &Logs,
    now: SystemTime,
    remove: impl Fn(&Path) -> io::Result<()>,
) -> io::Result<usize> {
    let limits = logs.limits();
    let mut finished = Vec::new();
    for entry in fs::read_dir(&limits.dir)? {
        let entry = entry?;
        if !entry
            .file_name()
            .to_str()
            .is_some_and(|name| logs.is_open(name))
        {
            finished.extend(measure(&entry));
        }
    }
    finished.sort_by_key(|log| log.at);
    let mut total: u64 = finished.iter().map(|log| log.bytes).sum();
    let mut removed = 0;
    for log in finished {
        let age = now.duration_since(log.at).unwrap_or_default();
        if age < limits.retention && total <= limits.total {
            break;
        }
        match remove(&log.dir) {
            Ok(()) => removed += 1,
            // Its verdict was settled in the meantime, or a person was faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(dir = %log.dir.display(), %error, "could not remove old output");
                continue;
            }
        }
        total -= log.bytes;
    }
    Ok(removed)
}

/// Nothing for a log that went away in the meantime.
fn measure(entry: &DirEntry) -> Option<Finished> {
    let mut log = Finished {
        dir: entry.path(),
        at: SystemTime::UNIX_EPOCH,
        bytes: 0,
    };
    for file in fs::read_dir(&log.dir).ok()? {
        let metadata = file.ok()?.metadata().ok()?;
        log.bytes += metadata.len();
        log.at = log.at.max(metadata.modified().ok()?);
    }
    Some(log)
}
