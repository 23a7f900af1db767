//! The agent's side of its guard: starts it, and tells it of each renewal of the lease.
//!
//! An agent that is killed, or stopped with SIGSTOP, ends nothing; and what it started would run on
//! while the cluster runs it elsewhere. So it starts its own program a second time, to watch over what
//! it started. The guard holds the reading end of a pipe whose only writer is the agent.

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use model::Millis;
use rustix::fs::{OFlags, fcntl_setfl};

use super::marks::{MARK_VARIABLE, Marks};
use super::roster::ROSTER;

/// How long an agent that ends waits for its guard.
const LAST_LOOKS: Duration = Duration::from_secs(1);
const MOMENT: Duration = Duration::from_millis(5);

/// The agent's end of the pipe.
#[derive(Debug)]
pub(crate) struct Guard {
    program: PathBuf,
    prefix: String,
    child: Option<Child>,
    until: Option<Millis>,
}

impl Guard {
    /// Runs `program agent guard`.
    pub fn start(program: &Path, marks: &Marks) -> io::Result<Guard> {
        let mut guard = Guard {
            program: program.to_owned(),
            prefix: marks.prefix(),
            child: None,
            until: None,
        };
        guard.child = Some(guard.spawn()?);
        Ok(guard)
    }

    /// The lease was renewed. To be told before anything starts under it.
    pub fn renewed(&mut self, until: Millis) {
        self.until = Some(until);
        let Err(error) = self.tell() else { return };
        tracing::warn!(%error, "the guard is gone: starting another one");
        self.dismiss();
        match self.spawn() {
            Ok(child) => self.child = Some(child),
            Err(error) => tracing::error!(%error, "can't start a guard: trying again soon"),
        }
        if let Err(error) = self.tell() {
            tracing::error!(%error, "the guard does not know of the lease");
        }
    }

    fn tell(&mut self) -> io::Result<()> {
        let pipe = self.child.as_mut().and_then(|child| child.stdin.as_mut());
        let pipe = pipe.ok_or(io::ErrorKind::BrokenPipe)?;
        match self.until {
            // One write, and so all of it or nothing.
            Some(until) => pipe.write_all(format!("{}\n", until.0).as_bytes()),
            None => Ok(()),
        }
    }

    fn spawn(&self) -> io::Result<Child> {
        let mut command = Command::new(&self.program);
        command
            .args(["agent", "guard", "--mark", &self.prefix])
            .env_remove(MARK_VARIABLE)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // What a terminal sends to its foreground is not for the guard.
            .process_group(0);
        let listing = ROSTER.spawning();
        let child = command.spawn()?;
        listing.add(number(&child));
        drop(listing);
        if let Some(pipe) = &child.stdin {
            // A guard that hangs must not make the agent hang.
            fcntl_setfl(pipe, OFlags::NONBLOCK)?;
        }
        Ok(child)
    }

    /// Its last one did not listen.
    fn dismiss(&mut self) {
        if let Some(mut child) = self.child.take() {
            if let Err(error) = child.kill().and_then(|()| child.wait()) {
                tracing::warn!(%error, "could not end a guard");
            }
            ROSTER.remove(number(&child));
        }
    }

    /// The agent ends: the guard looks for the last time, and ends too.
    pub async fn end(mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        drop(child.stdin.take());
        let ended = async {
            while matches!(child.try_wait(), Ok(None)) {
                tokio::time::sleep(MOMENT).await;
            }
        };
        if tokio::time::timeout(LAST_LOOKS, ended).await.is_err() {
            tracing::warn!("the guard still ends what is left");
            return;
        }
        ROSTER.remove(number(&child));
    }
}

/// Kernels give away no number that is too large.
fn number(child: &Child) -> i32 {
    i32::try_from(child.id()).unwrap_or(i32::MAX)
}
