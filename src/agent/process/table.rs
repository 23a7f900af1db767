//! The machine's processes, read once from `/proc`.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::sync::OnceLock;

use procfs::process::Stat;
use procfs::{FromRead, ProcResult};

use crate::journal::ProcessMark;
use crate::process::MARK_VARIABLE;

/// One row: what is needed to tell whose a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Process {
    pub pid: i32,
    pub parent: i32,
    pub group: i32,
    /// Clock ticks between boot and its start; with the pid it names a process for good.
    pub started: u64,
    /// It ended, and only waits to be reaped.
    pub zombie: bool,
}

impl Process {
    fn from_stat(stat: &Stat) -> Process {
        Process {
            pid: stat.pid,
            parent: stat.ppid,
            group: stat.pgrp,
            started: stat.starttime,
            zombie: matches!(stat.state, 'Z' | 'X' | 'x'),
        }
    }

    /// Nothing once it is gone.
    pub fn read(pid: i32) -> Option<Process> {
        read_stat(pid).ok().map(|stat| Process::from_stat(&stat))
    }

    /// The mark that the agent gave to the attempt it belongs to. Nothing where it has none, or
    /// where it is none of our business.
    pub fn mark(&self) -> Option<String> {
        let environment = fs::read(format!("/proc/{}/environ", self.pid)).ok()?;
        let prefix = format!("{MARK_VARIABLE}=");
        let value = environment
            .split(|byte| *byte == 0)
            .find_map(|v| v.strip_prefix(prefix.as_bytes()))?;
        // Not that of another process which took over the number while we read.
        let same = Process::read(self.pid)?.started == self.started;
        same.then(|| String::from_utf8_lossy(value).into_owned())
    }
}

fn read_stat(pid: i32) -> ProcResult<Stat> {
    Stat::from_file(format!("/proc/{pid}/stat"))
}

/// A snapshot of all processes.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Process>,
}

impl Table {
    pub fn read() -> Table {
        let Ok(entries) = fs::read_dir("/proc") else {
            return Table::default();
        };
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        Table {
            rows: pids.filter_map(Process::read).collect(),
        }
    }

    pub fn rows(&self) -> &[Process] {
        &self.rows
    }

    /// Children, their children and so on; `root` is not among them.
    pub fn descendants(&self, root: i32) -> Vec<Process> {
        let mut children: HashMap<i32, Vec<Process>> = HashMap::new();
        for row in &self.rows {
            children.entry(row.parent).or_default().push(*row);
        }
        // A table that is read while processes come and go could hold a loop.
        let mut seen = HashSet::from([root]);
        let mut found: Vec<Process> = Vec::new();
        let mut next = vec![root];
        while let Some(parent) = next.pop() {
            for child in children.remove(&parent).unwrap_or_default() {
                if seen.insert(child.pid) {
                    next.push(child.pid);
                    found.push(child);
                }
            }
        }
        found
    }
}

/// Which boot of the machine this is.
pub(crate) fn own_boot() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(|| {
        let id = fs::read_to_string("/proc/sys/kernel/random/boot_id");
        id.map_or_else(|_| "unknown".to_owned(), |id| id.trim().to_owned())
    })
}

/// Whether this very process still runs, and not another one with its number.
pub(crate) fn is_running(mark: &ProcessMark) -> bool {
    mark.boot == own_boot()
        && Process::read(mark.pid).is_some_and(|row| row.started == mark.started && !row.zombie)
}
