//! What really ran: each attempt of a task writes a line of its own to one file, and those that last say again and again
//! that they live.
//!
//! The file is opened for appending by every process, and a line is one write, so lines never mix, and their order is that
//! of the writes, whatever a clock says. It tells what no answer of the cluster can: whether something started that nobody
//! has on record, and whether two processes of one task ran at once.

use std::fs;
use std::path::{Path, PathBuf};

use wire::v1;

use crate::Error;
use crate::checkers::{Execution, Sign};

/// Behind the epoch, of a process that started before.
const LIVES: &str = " lives";

/// The file, and the commands that write to it.
#[derive(Debug, Clone)]
pub struct ExecutionLog {
    path: PathBuf,
}

impl ExecutionLog {
    pub fn create(directory: &Path) -> Result<ExecutionLog, Error> {
        let path = directory.join("executions");
        fs::write(&path, "").map_err(Error::file("creating", &path))?;
        Ok(ExecutionLog { path })
    }

    /// A task that writes its line and then runs `script`.
    pub fn task(&self, script: &str) -> v1::TaskSpec {
        let log = self.path.to_string_lossy();
        let script = format!("echo \"$TASK_ID $TASK_EPOCH\" >> '{log}'; {script}");
        super::process(["sh".to_owned(), "-c".to_owned(), script])
    }

    /// A task that writes its line and then for so long, in half seconds, that it lives, or until [`ExecutionLog::finish`].
    pub fn lasting(&self, half_seconds: u32) -> v1::TaskSpec {
        let (log, finished) = (self.path.to_string_lossy(), self.finished());
        let finished = finished.to_string_lossy();
        self.task(&format!(
            "i=0; while [ $i -lt {half_seconds} ] && [ ! -e '{finished}' ]; do sleep 0.5; \
             echo \"$TASK_ID $TASK_EPOCH{LIVES}\" >> '{log}'; i=$((i + 1)); done"
        ))
    }

    /// Lets the tasks end that would last longer.
    pub fn finish(&self) -> Result<(), Error> {
        let path = self.finished();
        fs::write(&path, "").map_err(Error::file("creating", &path))
    }

    fn finished(&self) -> PathBuf {
        self.path.with_extension("finished")
    }

    /// The starts, in the order in which they were written.
    pub fn read(&self) -> Result<Vec<Execution>, Error> {
        Ok(self.lines()?.0)
    }

    /// The starts, and what processes wrote later on.
    pub fn lines(&self) -> Result<(Vec<Execution>, Vec<Sign>), Error> {
        let text = fs::read_to_string(&self.path).map_err(Error::file("reading", &self.path))?;
        let (mut starts, mut signs) = (Vec::new(), Vec::new());
        for line in text.lines() {
            let what = line.strip_suffix(LIVES);
            let execution = parse(what.unwrap_or(line))
                .ok_or_else(|| Error::format(&self.path, format!("the line {line:?}")))?;
            match what {
                None => starts.push(execution),
                Some(_) => signs.push(Sign {
                    of: execution,
                    starts: starts.len(),
                }),
            }
        }
        Ok((starts, signs))
    }
}

/// `t17 231`, or `17 231`.
fn parse(line: &str) -> Option<Execution> {
    let (task, epoch) = line.split_once(' ')?;
    let task = task.strip_prefix('t').unwrap_or(task);
    Some(Execution {
        task: task.parse().ok()?,
        epoch: epoch.parse().ok()?,
    })
}
