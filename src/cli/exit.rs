//! How a command ends, as a number that scripts can rely on.

use std::process::ExitCode;

/// The exit codes of every command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Ok,
    /// Wrong usage, or the cluster refused.
    Refused,
    /// Unhealthy, or not found.
    NotFound,
    /// The task failed (`task run`, `task wait`).
    TaskFailed,
    /// No leader, or timed out: the outcome is unknown.
    Unknown,
    Interrupted,
    /// `--propagate-exit`: the task's own.
    Task(u8),
}

impl Exit {
    pub fn code(self) -> u8 {
        match self {
            Exit::Ok => 0,
            Exit::Refused => 1,
            Exit::NotFound => 2,
            Exit::TaskFailed => 3,
            Exit::Unknown => 4,
            Exit::Interrupted => 130,
            Exit::Task(code) => code,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::Exit;

    #[test]
    fn every_way_to_end_has_the_number_that_is_documented() {
        let table = [
            (Exit::Ok, 0),
            (Exit::Refused, 1),
            (Exit::NotFound, 2),
            (Exit::TaskFailed, 3),
            (Exit::Unknown, 4),
            (Exit::Interrupted, 130),
            (Exit::Task(42), 42),
        ];
        for (exit, code) in table {
            assert_eq!(exit.code(), code, "{exit:?}");
        }
    }
}
