//! What an earlier process of this agent left behind: processes, and attempts without a verdict.
//!
//! Nobody watched those processes since, so what became of them is not known: they are killed, and
//! their attempts end as interrupted. A process is only killed if it is the very one: its start time
//! and boot must be those in the journal, or its environment must carry a mark of this data directory,
//! which holds even where the journal was lost.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use model::{End, Fence, Interruption, Outcome, Verdict};

use crate::clock;
use crate::journal::{Held, Recovered};
use crate::output::Logs;
use crate::process::{self, Instance, Table, TableRow};

/// How long a killed process may take to be gone.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(10);

/// Kills what is left of earlier attempts, and waits until it is gone.
pub(crate) fn end_leftovers(recovered: &Recovered, instance: &Instance) {
    let begun = Instant::now();
    loop {
        let left = leftovers(recovered, &instance.prefix());
        if left.is_empty() {
            return;
        }
        if begun.elapsed() > PATIENCE {
            tracing::error!(?left, "processes of an earlier run can't be killed");
            return;
        }
        for row in &left {
            tracing::info!(pid = row.pid, "killing a process of an earlier run");
            process::kill_exactly(row);
        }
        thread::sleep(PAUSE);
    }
}

fn leftovers(recovered: &Recovered, prefix: &str) -> Vec<TableRow> {
    let table = Table::read();
    let own = std::process::id();
    let alive = || {
        table
            .rows()
            .iter()
            .filter(|row| !row.zombie && row.pid.cast_unsigned() != own)
    };
    let mut left: Vec<TableRow> = alive()
        .filter(|row| row.mark().is_some_and(|mark| mark.starts_with(prefix)))
        .copied()
        .collect();
    for held in recovered.held.values() {
        let Some(main) = held
            .process
            .as_ref()
            .filter(|main| process::is_running(main))
        else {
            continue;
        };
        // It still lives, so its number still names its group.
        left.extend(alive().filter(|row| row.pid == main.pid || row.group == main.pid));
        left.extend(
            table
                .descendants(main.pid)
                .into_iter()
                .filter(|row| !row.zombie),
        );
    }
    left.sort_by_key(|row| row.pid);
    left.dedup();
    left
}

/// The verdicts of attempts that were begun and did not end before the agent did.
pub(crate) fn interrupted(recovered: &Recovered, logs: &Logs) -> Vec<Verdict> {
    let open = recovered
        .held
        .iter()
        .filter(|(_, held)| held.verdict.is_none());
    open.map(|(fence, held)| verdict(*fence, held, logs))
        .collect()
}

/// The end of an attempt that was begun and has no verdict when its agent starts.
pub fn died() -> End {
    End::Interrupted {
        // A process that was asked to stop would have written a verdict.
        cause: Interruption::AgentDied,
        reason: "the agent was restarted while it ran".to_owned(),
    }
}

fn verdict(fence: Fence, held: &Held, logs: &Logs) -> Verdict {
    let captured = logs.captured(fence);
    let [stdout, stderr] = captured.tails;
    let [stdout_bytes, stderr_bytes] = captured.totals;
    let outcome = Outcome {
        stdout,
        stderr,
        stdout_bytes,
        stderr_bytes,
        started_at: held.begun.map_or(clock::wall(), |(_, at)| at),
        finished_at: clock::wall(),
        ..Outcome::bare(died())
    };
    Verdict { fence, outcome }
}

/// Removes scratch directories of earlier attempts, on a thread: they may hold anything.
pub(crate) fn remove_scratch(scratch: &Path) {
    let Ok(entries) = fs::read_dir(scratch) else {
        return;
    };
    let old: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    if old.is_empty() {
        return;
    }
    let spawned = thread::Builder::new()
        .name("scratch".into())
        .spawn(move || {
            old.iter().for_each(|dir| process::remove_scratch(dir));
        });
    // They are only disk space; the next start tries again.
    if let Err(error) = spawned {
        tracing::warn!(%error, "could not remove old scratch directories");
    }
}
