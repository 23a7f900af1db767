//! Processes as `/proc` shows them, and signals to them by pid.

use std::fs;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What a process does, as far as faults care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    Running,
    Stopped,
    /// It ended, and nobody has waited for it yet.
    Zombie,
}

/// A process at the moment of the look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    pub doing: Doing,
    /// When it started, in the kernel's ticks since boot: with the pid, its identity.
    pub started: u64,
    /// Ticks of processor time, its own and the kernel's for it.
    pub processor_ticks: u64,
}

impl Process {
    /// `None` where there is no such process.
    pub fn look(pid: i32) -> Option<Process> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Process::parse(pid, &text)
    }

    /// The line of `/proc/PID/stat`. The name, in parentheses, may itself hold spaces and parentheses.
    pub fn parse(pid: i32, line: &str) -> Option<Process> {
        let rest = &line[line.rfind(')')? + 1..];
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
        let doing = match *fields.first()? {
            "T" | "t" => Doing::Stopped,
            // As long as another of its threads is on its way out, its sockets and locks are held.
            "Z" | "X" | "x" if number(17)? <= 1 => Doing::Zombie,
            _ => Doing::Running,
        };
        // Counted from the state, which is field 3 of proc(5): utime 14, stime 15, threads 20, starttime 22.
        Some(Process {
            pid,
            doing,
            started: number(19)?,
            processor_ticks: number(11)? + number(12)?,
        })
    }

    /// Bytes of its memory that are in RAM; `None` where there is no such process.
    pub fn resident_bytes(pid: i32) -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kibibytes * 1024)
    }

    /// Files and sockets that it has open; `None` where there is no such process.
    pub fn descriptors(pid: i32) -> Option<u64> {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
        Some(open.count() as u64)
    }

    pub fn is_alive(pid: i32) -> bool {
        Process::look(pid).is_some_and(|found| found.doing != Doing::Zombie)
    }
}

/// A path as the process `pid` sees it, which may have mounts of its own.
pub fn seen_by(pid: i32, path: &Path) -> PathBuf {
    let inside = path.strip_prefix("/").unwrap_or(path);
    PathBuf::from(format!("/proc/{pid}/root")).join(inside)
}

pub fn own_pid() -> i32 {
    nix::unistd::getpid().as_raw()
}

/// Sends a signal. No such process is an error like any other: the caller knew it by name.
pub fn send(pid: i32, signal: Signal) -> Result<(), Errno> {
    kill(Pid::from_raw(pid), signal)
}

/// The living processes that [`belongs_to`] a directory; never the harness itself.
pub fn living_in(directory: &Path) -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let own = own_pid();
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| *pid != own && belongs_to(*pid, directory))
        .filter_map(Process::look)
        .filter(|found| found.doing != Doing::Zombie)
        .collect()
}

/// Whether it is a `quorate` process that was told of `directory`, or a task that works in it. Not, say,
/// the pager with which somebody reads a log there.
pub fn belongs_to(pid: i32, directory: &Path) -> bool {
    let named = directory.to_string_lossy();
    let says = |file: &str, text: &str| {
        let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).contains(text)
    };
    let link = |file: &str| fs::read_link(format!("/proc/{pid}/{file}")).unwrap_or_default();
    // A binary that was replaced meanwhile shows as `quorate (deleted)`.
    let is_quorate = link("exe")
        .file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with("quorate"));
    let is_task = says("environ", "TASK_EPOCH=");
    (is_quorate && says("cmdline", &named))
        || (is_task && (link("cwd").starts_with(directory) || says("environ", &named)))
}

/// The living processes whose command line contains `mark`, which should be unique to the caller.
pub fn marked(mark: &str) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let own = own_pid();
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| *pid != own && Process::is_alive(*pid))
        .filter(|pid| {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&command).contains(mark)
        })
        .collect()
}
