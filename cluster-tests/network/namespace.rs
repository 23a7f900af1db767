//! A network namespace without a name: a stack of interfaces, routes and rules that nobody else sees.
//!
//! It has no entry under `/run/netns`. What holds it is an open file of the harness and, once they run,
//! the processes in it; so a harness that is killed leaves nothing to sweep, and two of them can't meet.
//! [`Namespace::within`] runs code on a thread that has entered it: sockets made there stay there, and
//! processes started there run there, whoever uses them later. Other programs enter by [`Namespace::path`].

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

use crate::Error;
use crate::faults::process;

/// Lives as long as this value and what runs in it.
#[derive(Debug)]
pub struct Namespace {
    file: File,
}

impl Namespace {
    /// A new one, with nothing but a loopback interface that is down. Only root can make one.
    pub fn create() -> Result<Namespace, Error> {
        let own = || -> std::io::Result<File> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        };
        let file = on_a_thread(own).map_err(Error::io("making a network namespace"))?;
        Ok(Namespace { file })
    }

    /// What `nsenter --net=…` and `ip … netns …` take, for as long as the harness lives.
    pub fn path(&self) -> PathBuf {
        let (pid, file) = (process::own_pid(), self.file.as_raw_fd());
        PathBuf::from(format!("/proc/{pid}/fd/{file}"))
    }

    /// Runs `work` in it. It gets a thread of its own, for entering can't be undone halfway.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        let entered = || -> std::io::Result<T> {
            setns(&self.file, CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        };
        on_a_thread(entered).map_err(Error::io("entering a network namespace"))
    }

    /// Runs a tool in it, which has to succeed, and gives what it printed.
    pub fn tool(&self, program: &str, arguments: &[&str], input: &str) -> Result<String, Error> {
        self.within(|| run(program, arguments, input))?
    }

    /// A command line that runs another program in it.
    pub fn enter(path: &Path) -> [String; 2] {
        ["nsenter".to_owned(), format!("--net={}", path.display())]
    }
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> std::io::Result<T> + Send) -> std::io::Result<T> {
    let died = |_| std::io::Error::other("the thread in the namespace died");
    thread::scope(|scope| {
        scope
            .spawn(work)
            .join()
            .unwrap_or_else(|panic| Err(died(panic)))
    })
}

fn run(program: &str, arguments: &[&str], input: &str) -> Result<String, Error> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Error::file("running", Path::new(program)))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read to the end says why when it ends.
        let _written = stdin.write_all(input.as_bytes());
    }
    let output = child
        .wait_with_output()
        .map_err(Error::file("running", Path::new(program)))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(Error::Tool {
            command: format!("{program} {}", arguments.join(" ")),
            said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        }),
    }
}
