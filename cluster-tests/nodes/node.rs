//! One node: a command line, where it runs, and the process that it is at the moment.

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::Child;
use tokio::runtime::Handle;
use tokio::sync::Mutex;

use crate::cluster::{Cli, Member};
use crate::faults::clock::Clock;
use crate::faults::disk::SmallDisk;
use crate::network::Namespace;
use crate::{Error, wait};

/// For a process that was told to end, or that should have.
const ENDED: Duration = Duration::from_secs(20);
/// Makes a server stop when its standard input ends, and with it whoever started it.
const TIED_TO_STDIN: &str = "QUORATE_TIED_TO_STDIN";

/// A controller or an agent.
#[derive(Debug)]
pub struct Node {
    /// The machine's name. A controller that joins anew has another id than before, on the same machine.
    pub id: String,
    argv: Vec<String>,
    pub data_dir: PathBuf,
    pub log: PathBuf,
    /// Of its own, where clocks were asked for.
    pub clock: Option<Clock>,
    /// Of its own, where disks were asked for.
    pub disk: Option<SmallDisk>,
    pub environment: Vec<(String, String)>,
    /// Where its next process is to die, if it is a test build.
    failpoints: std::sync::Mutex<Option<String>>,
    /// The join token by which it came in, where it did. It stays on the command line, and is used once.
    token: std::sync::Mutex<Option<String>>,
    /// Standard input is in it; it stays open as long as this is.
    child: Mutex<Option<Child>>,
    /// Beside the lock, for a look from anywhere.
    pid: std::sync::Mutex<Option<i32>>,
}

impl Node {
    pub fn new(id: &str, argv: Vec<String>, data_dir: PathBuf, log: PathBuf) -> Node {
        Node {
            id: id.to_owned(),
            argv,
            data_dir,
            log,
            clock: None,
            disk: None,
            environment: Vec::new(),
            failpoints: std::sync::Mutex::new(None),
            token: std::sync::Mutex::new(None),
            child: Mutex::new(None),
            pid: std::sync::Mutex::new(None),
        }
    }

    /// Starts its process, which must not run. The log goes on.
    pub async fn start(&self, cli: &Cli, namespace: Option<&Namespace>) -> Result<i32, Error> {
        let mut child = self.child.lock().await;
        if let Some(before) = child.as_mut() {
            self.reap(before).await?;
        }
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.map_err(Error::file("opening", &self.log))?;
        let again = log.try_clone().map_err(Error::file("opening", &self.log))?;
        let argv = self.on_its_disk(self.argv());
        let mut command = cli.program(&argv[0], &argv[1..]);
        command
            .env_remove("QUORATE_CONTEXT")
            .env(TIED_TO_STDIN, "1")
            .envs(self.environment.iter().cloned())
            .envs(self.failpoints().map(|words| ("QUORATE_FAILPOINTS", words)))
            .envs(self.clock.iter().flat_map(Clock::environment))
            .stdin(Stdio::piped())
            .stdout(log)
            .stderr(again);
        let handle = Handle::current();
        let mut spawn = || {
            let _entered = handle.enter();
            command.spawn()
        };
        let spawned = match namespace {
            // A child is in the namespace of the thread that starts it.
            Some(namespace) => namespace.within(spawn)?,
            None => spawn(),
        };
        let spawned = spawned.map_err(Error::io("starting a node"))?;
        let pid = spawned.id().and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.ok_or_else(|| Error::Invalid(format!("{} ended at once", self.id)))?;
        *child = Some(spawned);
        self.remember(Some(pid));
        Ok(pid)
    }

    /// Waits for the end of its process, and says how it ended.
    pub async fn ended(&self) -> Result<Option<ExitStatus>, Error> {
        match self.child.lock().await.as_mut() {
            Some(child) => self.reap(child).await.map(Some),
            None => Ok(None),
        }
    }

    async fn reap(&self, child: &mut Child) -> Result<ExitStatus, Error> {
        match tokio::time::timeout(ENDED, child.wait()).await {
            Ok(status) => {
                self.remember(None);
                status.map_err(Error::io("waiting for a node"))
            }
            Err(_elapsed) => Err(Error::Timeout {
                what: format!("the end of {}", self.id),
                waited: ENDED,
                last: "it still runs".to_owned(),
            }),
        }
    }

    /// Waits until it has ended by itself, and says how.
    pub async fn until_fallen(&self, limit: Duration) -> Result<ExitStatus, Error> {
        let what = format!("{} to end by itself", self.id);
        wait::until(&what, limit, || async {
            self.fallen().await.ok_or("it still runs")
        })
        .await
    }

    /// The exit status of one that ended without anybody having waited for it yet.
    pub async fn fallen(&self) -> Option<ExitStatus> {
        let mut child = self.child.lock().await;
        child.as_mut()?.try_wait().ok().flatten()
    }

    /// Where processes that are started from now on are to die or stop; `None`: nowhere.
    pub fn set_failpoints(&self, words: Option<String>) {
        *lock(&self.failpoints) = words;
    }

    fn failpoints(&self) -> Option<String> {
        lock(&self.failpoints).clone()
    }

    /// From the next start on it comes into the cluster by this token, if it has not yet.
    pub fn joins_by(&self, token: String) {
        *lock(&self.token) = Some(token);
    }

    fn argv(&self) -> Vec<String> {
        let token = lock(&self.token).clone();
        let joining = token.map(|token| ["--join".to_owned(), token]);
        let joining = joining.into_iter().flatten();
        self.argv.iter().cloned().chain(joining).collect()
    }

    /// A command line that sees the data directory as its process does.
    pub fn on_its_disk(&self, argv: Vec<String>) -> Vec<String> {
        match &self.disk {
            Some(disk) => disk.under(&argv),
            None => argv,
        }
    }

    pub fn as_member(&self) -> Member {
        Member {
            id: self.id.clone(),
            pid: *lock(&self.pid),
            data_dir: self.data_dir.clone(),
            log: self.log.clone(),
            argv: self.argv(),
        }
    }

    fn remember(&self, pid: Option<i32>) {
        *lock(&self.pid) = pid;
    }

    /// Waits until its log says something that it did not say at `from` bytes.
    pub async fn until_said(&self, from: u64, words: &str, limit: Duration) -> Result<(), Error> {
        wait::until_now(&format!("{} to say {words:?}", self.id), limit, || {
            let new = self.said_since(from);
            match new.contains(words) {
                true => Ok(()),
                false => Err(new.lines().last().unwrap_or_default().to_owned()),
            }
        })
        .await
    }

    /// What its log says that it did not say at `from` bytes.
    pub fn said_since(&self, from: u64) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        String::from_utf8_lossy(text.get(from..).unwrap_or_default()).into_owned()
    }

    /// How long its log is now.
    pub fn said(&self) -> u64 {
        std::fs::metadata(&self.log).map_or(0, |metadata| metadata.len())
    }
}

fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
