//! What really ran: each attempt of a task writes a line of its own to one file.
//!
//! The file is opened for appending by every process, and a line is one write, so lines never mix. It
//! tells what no answer of the cluster can: whether something started that nobody has on record.

use std::fs;
use std::path::{Path, PathBuf};

use wire::v1;

use crate::Error;
use crate::checkers::Execution;

/// The file, and the command that writes to it.
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

    pub fn read(&self) -> Result<Vec<Execution>, Error> {
        let text = fs::read_to_string(&self.path).map_err(Error::file("reading", &self.path))?;
        text.lines()
            .map(|line| {
                parse(line).ok_or_else(|| Error::format(&self.path, format!("the line {line:?}")))
            })
            .collect()
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
