//! One child process of `dev`: spawned with its output in a log file, told to stop, killed, and waited
//! for by a task of its own, so that a signal never reaches a process that is not ours any more.

use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use super::layout::{Layout, Part};
use crate::failure::{Failure, Result};
use crate::process::TIED_TO_STDIN;

/// How long an orderly stop may take before it is ended by force: the grace that an agent gives its
/// tasks (10 s), and some more to report.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// Bytes of a log file above which the next start puts it aside.
const LOG_MAX_BYTES: u64 = 16 * 1024 * 1024;
/// Bytes at the end of a log that are searched for what went wrong.
const LOG_END_BYTES: u64 = 16 * 1024;
/// Variables with these prefixes are settings of servers, and not meant for these ones.
const SERVER_SETTINGS: [&str; 2] = ["QUORATE_CONTROLLER__", "QUORATE_AGENT__"];

/// What the foreground may ask of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Stop,
    Kill,
}

/// A child that ended.
#[derive(Debug)]
pub struct Ended {
    pub id: String,
    pub pid: u32,
    pub status: ExitStatus,
}

/// One controller or agent, running or not.
#[derive(Debug)]
pub struct Member {
    pub id: String,
    pub part: Part,
    pub argv: Vec<String>,
    pub log: PathBuf,
    pub data_dir: PathBuf,
    running: Option<Running>,
    /// It was asked to go, so its end is no surprise.
    pub leaving: bool,
}

#[derive(Debug)]
struct Running {
    pid: u32,
    orders: mpsc::UnboundedSender<Order>,
}

impl Member {
    pub fn new(layout: &Layout, part: Part, id: &str) -> Member {
        Member {
            id: id.to_owned(),
            part,
            argv: layout.argv(part, id),
            log: layout.log(id),
            data_dir: layout.data_dir(id),
            running: None,
            leaving: false,
        }
    }

    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(|running| running.pid)
    }

    /// Starts the process. Its end is told to `ended`.
    pub fn spawn(&mut self, ended: &mpsc::UnboundedSender<Ended>) -> Result<u32> {
        let child = command(&self.argv, &self.log)?.spawn().map_err(|error| {
            Failure::refused("spawn", format!("cannot start {}: {error}", self.id), "")
        })?;
        let pid = child.id().ok_or_else(|| {
            Failure::refused(
                "spawn",
                format!("{} ended at once", self.id),
                self.where_log(),
            )
        })?;
        let (orders, received) = mpsc::unbounded_channel();
        tokio::spawn(attend(self.id.clone(), pid, child, received, ended.clone()));
        self.running = Some(Running { pid, orders });
        self.leaving = false;
        Ok(pid)
    }

    /// Does nothing where it does not run.
    pub fn order(&mut self, order: Order) {
        if let Some(running) = &self.running {
            self.leaving = true;
            // Its task may have seen the end already: then the news is on its way.
            let _gone = running.orders.send(order);
        }
    }

    /// The news of its end has come.
    pub fn mark_ended(&mut self) {
        self.running = None;
    }

    pub fn where_log(&self) -> String {
        format!("its log is {}", self.log.display())
    }

    /// What it said last: its error if it named one, else its last line.
    pub fn last_words(&self) -> Option<String> {
        let text = end_of(&self.log)?;
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .collect();
        let error = lines
            .iter()
            .rev()
            .take(20)
            .find_map(|line| line.strip_prefix("error: "));
        error.or(lines.last().copied()).map(str::to_owned)
    }
}

/// How a process ended, in words.
pub fn in_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(0), _) => "stopped".to_owned(),
        (Some(code), _) => format!("stopped with exit code {code}"),
        (None, Some(signal)) => match Signal::try_from(signal) {
            Ok(name) => format!("was killed by {name}"),
            Err(_) => format!("was killed by signal {signal}"),
        },
        (None, None) => "ended".to_owned(),
    }
}

fn command(argv: &[String], log: &Path) -> Result<Command> {
    put_aside(log);
    let failed = |error| Failure::file("write", log, &error);
    let out = OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .map_err(failed)?;
    let err = out.try_clone().map_err(failed)?;
    let (program, arguments) = argv
        .split_first()
        .ok_or_else(|| Failure::refused("spawn", "an empty command line", ""))?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(out)
        .stderr(err)
        // A Ctrl-C of the terminal is for `dev`, which stops them in order.
        .process_group(0)
        .kill_on_drop(true)
        .env(TIED_TO_STDIN, "1");
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if SERVER_SETTINGS
            .iter()
            .any(|prefix| text.starts_with(prefix))
        {
            command.env_remove(&name);
        }
    }
    Ok(command)
}

/// A log that has grown large makes room; one old one is kept. If that fails the log just goes on.
fn put_aside(log: &Path) {
    if fs::metadata(log).is_ok_and(|metadata| metadata.len() > LOG_MAX_BYTES) {
        let _kept_growing = fs::rename(log, log.with_extension("log.1"));
    }
}

/// Waits for the child and passes orders on. The child's standard input stays open as long as this runs.
async fn attend(
    id: String,
    pid: u32,
    mut child: Child,
    mut orders: mpsc::UnboundedReceiver<Order>,
    ended: mpsc::UnboundedSender<Ended>,
) {
    let _stdin = child.stdin.take();
    let mut force_at = None;
    let status = loop {
        let forced = async {
            match force_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            status = child.wait() => break status.unwrap_or_default(),
            order = orders.recv() => match order {
                Some(Order::Stop) => {
                    terminate(&child);
                    force_at.get_or_insert(tokio::time::Instant::now() + STOP_LIMIT);
                }
                // The foreground is gone.
                Some(Order::Kill) | None => {
                    let _ended_already = child.start_kill();
                    force_at = None;
                }
            },
            () = forced => {
                let _ended_already = child.start_kill();
                force_at = None;
            }
        }
    };
    let _nobody_cares = ended.send(Ended { id, pid, status });
}

/// While `id` is there the child was not waited for yet, so the number is still its own.
fn terminate(child: &Child) {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    if let Some(pid) = pid {
        let _ended_already = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
}

fn end_of(path: &Path) -> Option<String> {
    let mut file = fs::File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_END_BYTES)))
        .ok()?;
    let mut bytes = Vec::new();
    file.take(LOG_END_BYTES).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(dir: &Path, script: &str) -> Member {
        Member {
            id: "c1".into(),
            part: Part::Controller,
            argv: ["sh", "-c", script].map(str::to_owned).into(),
            log: dir.join("c1.log"),
            data_dir: dir.to_owned(),
            running: None,
            leaving: false,
        }
    }

    #[tokio::test]
    async fn a_child_is_told_apart_by_how_it_ended() {
        let home = tempfile::tempdir().unwrap();
        let (ended, mut news) = mpsc::unbounded_channel();
        let mut member = member(
            home.path(),
            "echo starting; echo 'error: no luck' >&2; exit 3",
        );
        let pid = member.spawn(&ended).unwrap();
        let end = news.recv().await.unwrap();
        assert_eq!(end.pid, pid);
        assert_eq!(in_words(end.status), "stopped with exit code 3");
        assert_eq!(member.last_words().as_deref(), Some("no luck"));
    }

    #[tokio::test]
    async fn a_child_stops_when_asked_and_dies_when_killed() {
        let home = tempfile::tempdir().unwrap();
        let (ended, mut news) = mpsc::unbounded_channel();
        let mut polite = member(home.path(), "exec sleep 600");
        polite.spawn(&ended).unwrap();
        polite.order(Order::Stop);
        assert_eq!(
            in_words(news.recv().await.unwrap().status),
            "was killed by SIGTERM"
        );
        polite.mark_ended();
        polite.spawn(&ended).unwrap();
        polite.order(Order::Kill);
        assert_eq!(
            in_words(news.recv().await.unwrap().status),
            "was killed by SIGKILL"
        );
    }

    #[tokio::test]
    async fn a_child_does_not_outlive_the_foreground() {
        let home = tempfile::tempdir().unwrap();
        let (ended, mut news) = mpsc::unbounded_channel();
        let mut tied = member(home.path(), "cat; echo 'the end of input'");
        tied.spawn(&ended).unwrap();
        drop(tied);
        assert_eq!(
            in_words(news.recv().await.unwrap().status),
            "was killed by SIGKILL"
        );
    }
}
