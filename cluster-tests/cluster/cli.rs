//! Runs the command line as a person would, and looks at all that comes out of it.
//!
//! The environment is clean: nothing of the person's own configuration reaches the test, and nothing of
//! the test reaches the configuration.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::Error;
use crate::faults::process;

/// No command of a test takes longer by itself; one that does hangs.
const LIMIT: Duration = Duration::from_secs(120);

/// `quorate`, with the context of one cluster.
#[derive(Debug, Clone)]
pub struct Cli {
    /// What starts it, where that is something else: a way into a network namespace.
    entrance: Vec<String>,
    binary: PathBuf,
    context: PathBuf,
    home: PathBuf,
}

/// A command that has ended.
#[derive(Debug, Clone)]
pub struct Completed {
    pub command: String,
    /// `None` where a signal ended it.
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
    pub took: Duration,
}

impl Cli {
    pub fn new(binary: &Path, context: &Path, home: &Path) -> Cli {
        Cli {
            entrance: Vec::new(),
            binary: binary.to_owned(),
            context: context.to_owned(),
            home: home.to_owned(),
        }
    }

    /// The same binary with another context.
    pub fn with_context(&self, context: &Path) -> Cli {
        Cli {
            context: context.to_owned(),
            ..self.clone()
        }
    }

    /// The same, started by another command line.
    #[must_use]
    pub fn entering(self, entrance: Vec<String>) -> Cli {
        Cli { entrance, ..self }
    }

    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// For commands that need something of their own: another variable, another input.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let Some((program, more)) = self.entrance.split_first() else {
            return self.program(&self.binary, arguments);
        };
        let mut command = self.program(program, more);
        command.arg(&self.binary).args(arguments);
        command
    }

    /// The same for another program, which may be one that starts ours.
    pub fn program<S: AsRef<OsStr>>(
        &self,
        program: impl AsRef<OsStr>,
        arguments: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            let theirs = name.to_string_lossy();
            if theirs.starts_with("QUORATE_") || theirs.starts_with("XDG_") {
                command.env_remove(&name);
            }
        }
        command
            .args(arguments)
            .env("QUORATE_CONTEXT", &self.context)
            .env("HOME", &self.home)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A group of its own: Ctrl-C at the terminal is for the harness, which then ends it.
            .process_group(0)
            .kill_on_drop(true);
        command
    }

    /// Runs a command to its end, whatever that is.
    pub async fn run(&self, arguments: &[&str]) -> Result<Completed, Error> {
        finish(arguments.join(" "), self.start(arguments)?).await
    }

    /// Runs a command that has to succeed.
    pub async fn expect(&self, arguments: &[&str]) -> Result<Completed, Error> {
        self.run(arguments).await?.success()
    }

    /// Runs a command that has to succeed, with `-o json`, and reads what it prints.
    pub async fn json(&self, arguments: &[&str]) -> Result<Value, Error> {
        // Before the `--` of a task's command, which would swallow it.
        let end = arguments
            .iter()
            .position(|argument| *argument == "--")
            .unwrap_or(arguments.len());
        let mut all = arguments[..end].to_vec();
        all.extend(["-o", "json"]);
        all.extend(&arguments[end..]);
        let done = self.expect(&all).await?;
        serde_json::from_slice(&done.stdout).map_err(|error| Error::Command {
            command: done.command.clone(),
            code: "0, but no JSON".to_owned(),
            stderr: format!("{error} in {:?}", done.text()),
        })
    }

    /// Starts a command that will be interrupted, or read while it runs.
    pub fn start(&self, arguments: &[&str]) -> Result<Child, Error> {
        self.command(arguments)
            .spawn()
            .map_err(Error::file("running", &self.binary))
    }
}

impl Completed {
    pub fn success(self) -> Result<Completed, Error> {
        match self.code {
            Some(0) => Ok(self),
            _ => Err(self.failure()),
        }
    }

    pub fn failure(self) -> Error {
        Error::Command {
            code: self
                .code
                .map_or_else(|| "a signal".to_owned(), |code| format!("exit code {code}")),
            command: self.command,
            stderr: self.stderr.trim_end().to_owned(),
        }
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// Waits for the end of a started command.
pub async fn finish(command: String, child: Child) -> Result<Completed, Error> {
    let begun = Instant::now();
    let output = match tokio::time::timeout(LIMIT, child.wait_with_output()).await {
        Ok(output) => output.map_err(Error::io("waiting for a command"))?,
        Err(_elapsed) => {
            return Err(Error::Timeout {
                what: format!("the end of `quorate {command}`"),
                waited: begun.elapsed(),
                last: "it still runs".to_owned(),
            });
        }
    };
    Ok(Completed {
        command,
        code: code(output.status),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        took: begun.elapsed(),
    })
}

/// What Ctrl-C does to a command in the foreground.
pub fn interrupt(child: &Child) -> Result<(), Error> {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    let sent = pid.map(|pid| process::send(pid, Signal::SIGINT));
    match sent {
        Some(Ok(())) => Ok(()),
        Some(Err(errno)) => Err(Error::Invalid(format!(
            "Ctrl-C did not reach the command: {errno}"
        ))),
        None => Err(Error::Invalid(
            "the command had ended before Ctrl-C".to_owned(),
        )),
    }
}

fn code(status: ExitStatus) -> Option<i32> {
    status.code()
}
