//! What went wrong, for a person on one line, what, why, next step, or for a program as JSON.
//!
//! Every command returns one of these or succeeds. It is the only way to a non-zero exit, apart from
//! an answer that is itself bad news (an unhealthy cluster, a failed task).

use std::fmt;
use std::io;
use std::path::Path;

use serde_json::json;

use crate::exit::Exit;
use crate::output::SCHEMA;

/// A command that did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub exit: Exit,
    /// Stable, for programs.
    pub code: String,
    pub message: String,
    /// The next step; empty where there is none.
    pub hint: String,
    pub request_id: Option<String>,
}

pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    fn new(exit: Exit, code: &str, message: impl fmt::Display, hint: impl fmt::Display) -> Failure {
        Failure {
            exit,
            code: code.to_owned(),
            message: one_line(&message.to_string()),
            hint: one_line(&hint.to_string()),
            request_id: None,
        }
    }

    /// The person asked for something that makes no sense.
    pub fn usage(message: impl fmt::Display, hint: impl fmt::Display) -> Failure {
        Failure::new(Exit::Refused, "usage", message, hint)
    }

    /// It makes sense, and can't be done as things are.
    pub fn refused(code: &str, message: impl fmt::Display, hint: impl fmt::Display) -> Failure {
        Failure::new(Exit::Refused, code, message, hint)
    }

    pub fn not_found(message: impl fmt::Display, hint: impl fmt::Display) -> Failure {
        Failure::new(Exit::NotFound, "not_found", message, hint)
    }

    pub fn unhealthy(message: impl fmt::Display, hint: impl fmt::Display) -> Failure {
        Failure::new(Exit::NotFound, "unhealthy", message, hint)
    }

    /// Nobody can tell (yet) what became of it.
    pub fn unknown(code: &str, message: impl fmt::Display, hint: impl fmt::Display) -> Failure {
        Failure::new(Exit::Unknown, code, message, hint)
    }

    pub fn interrupted(message: impl fmt::Display, hint: impl fmt::Display) -> Failure {
        Failure::new(Exit::Interrupted, "interrupted", message, hint)
    }

    /// Whoever read our output went away (`| head`). That is no failure of ours, only the end.
    pub fn reader_gone() -> Failure {
        Failure::new(
            Exit::Ok,
            "reader_gone",
            "nobody reads the output any more",
            "",
        )
    }

    pub fn with_exit(self, exit: Exit) -> Failure {
        Failure { exit, ..self }
    }

    /// A file of this machine that could not be used.
    pub fn file(what: &str, path: &Path, error: &io::Error) -> Failure {
        let hint = match error.kind() {
            io::ErrorKind::NotFound => "check the path",
            io::ErrorKind::PermissionDenied => "check who owns it, and its mode",
            io::ErrorKind::StorageFull => "make room on that disk",
            _ => "check the path and its permissions",
        };
        Failure::refused(
            "file",
            format!("cannot {what} {}: {error}", path.display()),
            hint,
        )
    }

    /// The error object that `-o json` prints.
    pub fn json(&self) -> serde_json::Value {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        json!({
            "schema": SCHEMA,
            "error": {
                "code": self.code,
                "message": self.message,
                "hint": text(&self.hint),
                "request_id": self.request_id,
            },
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if !self.hint.is_empty() {
            write!(f, "; {}", self.hint)?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

impl From<security::Error> for Failure {
    fn from(error: security::Error) -> Failure {
        // Its texts carry the next step themselves.
        Failure::refused("identity", error, "")
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::Failure;

    #[test]
    fn a_failure_is_one_line_with_the_next_step_at_its_end() {
        let failure = Failure::usage("no\n  command", "say what to run after `--`");
        assert_eq!(
            failure.to_string(),
            "no command; say what to run after `--`"
        );
    }

    #[test]
    fn a_failure_in_json_has_all_keys() {
        let failure = Failure::not_found("there is no task t9", "");
        assert_eq!(
            failure.json().to_string(),
            r#"{"schema":1,"error":{"code":"not_found","message":"there is no task t9","hint":null,"request_id":null}}"#
        );
    }
}
