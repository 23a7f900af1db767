//! One `dev` per directory; and what another one left running when it was killed.
//!
//! Children end by themselves when their `dev` is gone, but one that hangs, or was stopped with SIGSTOP,
//! does not. They are known by their command line, which names our directory.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::layout::Layout;
use crate::failure::{Failure, Result};
use crate::{files, output};

/// Held by the one `dev` of a directory; the first file there.
pub const LOCK: &str = "dev.lock";
/// How long leftovers may take to end by themselves, before they are ended by force.
const PATIENCE: Duration = Duration::from_secs(15);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Held as long as `dev` runs.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

impl Lock {
    pub fn take(dir: &Path) -> Result<Lock> {
        files::create_directory(dir)?;
        let path = dir.join(LOCK);
        let failed = |error| Failure::file("lock", &path, &error);
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(failed)?;
        let mut holder = String::new();
        file.read_to_string(&mut holder).map_err(failed)?;
        let mut file = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| {
            Failure::refused(
                "in_use",
                format!(
                    "another `quorate dev` (pid {}) runs on {}",
                    holder.trim(),
                    dir.display()
                ),
                "end it with Ctrl-C there, or choose another --dir and --base-port",
            )
        })?;
        let written = file
            .seek(SeekFrom::Start(0))
            .and_then(|_| file.set_len(0))
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        written.map_err(failed)?;
        Ok(Lock { _file: file })
    }
}

/// Waits for what an earlier run left, and ends what does not end.
pub async fn clear(layout: &Layout) -> Result<()> {
    let mut left = find(&layout.dir);
    if left.is_empty() {
        return Ok(());
    }
    output::note(&format!(
        "ending what an earlier run left: {}",
        names(&left)
    ));
    send(&left, Signal::SIGTERM);
    let force_at = tokio::time::Instant::now() + PATIENCE;
    let give_up_at = force_at + PATIENCE;
    let mut forced = false;
    loop {
        left = find(&layout.dir);
        let now = tokio::time::Instant::now();
        if left.is_empty() {
            return Ok(());
        }
        if now > give_up_at {
            let message = format!("{} of an earlier run can't be ended", names(&left));
            return Err(Failure::refused(
                "in_use",
                message,
                "end them, or choose another --dir",
            ));
        }
        if now > force_at && !forced {
            send(&left, Signal::SIGKILL);
            forced = true;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// A process of ours: its number and its id.
type Leftover = (i32, String);

fn names(left: &[Leftover]) -> String {
    let named = left.iter().map(|(pid, id)| format!("{id} (pid {pid})"));
    named.collect::<Vec<_>>().join(", ")
}

fn send(left: &[Leftover], signal: Signal) {
    for (pid, _) in left {
        let _ended_already = kill(Pid::from_raw(*pid), signal);
    }
}

/// Processes whose command line says `--data-dir DIR/…`.
fn find(dir: &Path) -> Vec<Leftover> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let mut found: Vec<Leftover> = pids
        .filter_map(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let arguments: Vec<String> = line
                .split(|byte| *byte == 0)
                .map(|arg| String::from_utf8_lossy(arg).into())
                .collect();
            Some((pid, member_of(dir, &arguments)?))
        })
        .collect();
    found.sort();
    found
}

fn member_of(dir: &Path, arguments: &[String]) -> Option<String> {
    let kind = arguments.get(1)?;
    if kind != "controller" && kind != "agent" {
        return None;
    }
    let at = arguments
        .iter()
        .position(|argument| argument == "--data-dir")?;
    let data_dir = PathBuf::from(arguments.get(at + 1)?);
    (data_dir.parent()? == dir).then(|| data_dir.file_name()?.to_str().map(str::to_owned))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_dev_is_told_about_the_first() {
        let home = tempfile::tempdir().unwrap();
        let held = Lock::take(home.path()).unwrap();
        let text = Lock::take(home.path()).unwrap_err().to_string();
        assert!(
            text.contains(&format!("pid {}", std::process::id())),
            "{text}"
        );
        drop(held);
        Lock::take(home.path()).unwrap();
    }

    #[test]
    fn only_members_of_this_directory_are_leftovers() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let of = |text: &str| member_of(Path::new("/d"), &words(text));
        assert_eq!(
            of("/bin/quorate controller run --data-dir /d/c1").as_deref(),
            Some("c1")
        );
        assert_eq!(
            of("/bin/quorate agent run --id a1 --data-dir /d/a1").as_deref(),
            Some("a1")
        );
        assert_eq!(of("/bin/quorate controller run --data-dir /d2/c1"), None);
        assert_eq!(of("/bin/quorate dev --dir /d"), None);
        assert_eq!(of("vi --data-dir /d/c1"), None);
    }
}
