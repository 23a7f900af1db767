//! One development cluster: `quorate dev` in a directory of its own, and all that a test asks of it.
//!
//! `dev` runs in the foreground as a child of the harness, and its members as processes of their own.
//! Who they are is read from `cluster.json` at each question, never remembered, because a restarted
//! member has another pid. When the value goes, everything that still runs in the directory is killed.

mod access;
mod cli;
mod layout;
mod metrics;
mod status;
mod waiting;
mod workspace;

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use security::Credentials;
use tokio::process::Child;

pub use access::{Context, authority_directory, channel, grpc_tls, https_tls, issue};
pub use cli::{Cli, Completed, finish, interrupt};
pub use layout::{Agent, Controller, Layout, Member};
pub use metrics::{Metrics, get};
pub use status::{MemberStatus, Status};
pub use waiting::{Ask, leader, whole};
pub use workspace::{Workspace, bytes_below};

use crate::faults::process;
use crate::{Error, binary, wait};
use waiting::{ELECTED, READY};

/// For an orderly end of everything; after that it is killed.
const ORDERLY: Duration = Duration::from_secs(20);

/// What to start.
#[derive(Debug, Clone)]
pub struct Options {
    /// Part of the directory's name, for the person who finds it.
    pub name: String,
    pub controllers: u32,
    pub agents: u32,
    pub slots: u32,
    /// Model servers of every agent.
    pub backends: Vec<String>,
    /// For `dev` and, through it, everything it starts.
    pub environment: Vec<(String, String)>,
}

impl Options {
    pub fn new(name: &str) -> Options {
        Options {
            name: name.to_owned(),
            controllers: 3,
            agents: 2,
            slots: 4,
            backends: Vec::new(),
            environment: Vec::new(),
        }
    }

    #[must_use]
    pub fn agents(self, agents: u32) -> Options {
        Options { agents, ..self }
    }

    #[must_use]
    pub fn slots(self, slots: u32) -> Options {
        Options { slots, ..self }
    }

    #[must_use]
    pub fn backend(mut self, url: &str) -> Options {
        self.backends.push(url.to_owned());
        self
    }

    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Options {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// Whatever runs members as processes of its own: a fault on a process needs no more.
pub trait Members {
    /// A member as it runs now, or does not.
    fn member(&self, id: &str) -> Result<Member, Error>;
    /// Where they all keep their data: what tells their processes from all others.
    fn directory(&self) -> PathBuf;
}

/// A running development cluster.
#[derive(Debug)]
pub struct Cluster {
    // Ends the members, after `dev` itself was dropped and killed.
    dev: Child,
    cli: Cli,
    options: Options,
    workspace: Workspace,
}

impl Cluster {
    /// Starts one, and waits until it has a leader and every agent is ready.
    pub async fn start(options: Options) -> Result<Cluster, Error> {
        let binary = tokio::task::spawn_blocking(binary::find)
            .await
            .map_err(|error| Error::Invalid(format!("looking for the binary: {error}")))??;
        let workspace = Workspace::create(&options.name)?;
        let directory = workspace.path().join("dev");
        let cli = Cli::new(&binary, &directory.join("context.toml"), workspace.path());
        let dev = spawn_dev(&cli, &options, &directory)?;
        let mut cluster = Cluster {
            dev,
            cli,
            options,
            workspace,
        };
        if let Err(error) = cluster.until_ready().await {
            cluster.workspace.keep();
            let dev = cluster.dev_output();
            return Err(Error::Broken(format!(
                "the cluster did not come up: {error}\n{dev}"
            )));
        }
        Ok(cluster)
    }

    /// `--dir` of `quorate dev`.
    pub fn directory(&self) -> PathBuf {
        self.workspace.path().join("dev")
    }

    /// A place for a test's own files, on the same disk.
    pub fn scratch(&self) -> &Path {
        self.workspace.path()
    }

    pub fn cli(&self) -> &Cli {
        &self.cli
    }

    pub fn keep_files(&mut self) {
        self.workspace.keep();
    }

    pub fn layout(&self) -> Result<Layout, Error> {
        Layout::read(&self.directory().join("cluster.json"))
    }

    pub fn controller(&self, id: &str) -> Result<Controller, Error> {
        let missing = || Error::Invalid(format!("cluster.json has no controller {id}"));
        self.layout()?.controller(id).cloned().ok_or_else(missing)
    }

    /// What a controller's `/metrics` say now.
    pub async fn metrics(&self, id: &str) -> Result<Metrics, Error> {
        let tls = https_tls(&self.credentials()?)?;
        Metrics::scrape(&self.controller(id)?.https, &tls).await
    }

    pub fn member(&self, id: &str) -> Result<Member, Error> {
        let missing = || Error::Invalid(format!("cluster.json has no member {id}"));
        self.layout()?.member(id).ok_or_else(missing)
    }

    pub fn context(&self) -> Result<Context, Error> {
        Context::read(&self.layout()?.context)
    }

    pub fn credentials(&self) -> Result<Credentials, Error> {
        self.context()?.credentials()
    }

    /// The gRPC addresses of all controllers.
    pub fn addresses(&self) -> Result<Vec<String>, Error> {
        Ok(self
            .layout()?
            .controllers
            .into_iter()
            .map(|controller| controller.grpc)
            .collect())
    }

    pub async fn status(&self) -> Result<Status, Error> {
        Status::ask(&self.cli).await
    }

    /// Waits until there is a leader, and says who.
    pub async fn leader(&self) -> Result<String, Error> {
        waiting::leader(&self.cli, "").await
    }

    /// Starts a member again that was killed, and waits for its process.
    pub async fn restart(&self, id: &str) -> Result<(), Error> {
        // `dev` hears of an end a little later than the one who caused it.
        wait::until_now(&format!("dev to miss {id}"), ELECTED, || {
            let pid = self.member(id).map_err(|error| error.to_string())?.pid;
            match pid {
                None => Ok(()),
                Some(pid) => Err(format!("cluster.json still says pid {pid}")),
            }
        })
        .await?;
        let directory = self.directory();
        self.cli
            .expect(&["dev", "start", id, "--dir", &directory.to_string_lossy()])
            .await?;
        wait::until_now(&format!("a process of {id}"), ELECTED, || {
            let member = self.member(id).map_err(|error| error.to_string())?;
            match member.pid.is_some_and(process::Process::is_alive) {
                true => Ok(()),
                false => Err(format!(
                    "{id} is not running; its log ends: {}",
                    tail(&member.log)
                )),
            }
        })
        .await
    }

    /// Waits until every controller answers and all agents are connected and ready.
    pub async fn until_whole(&self) -> Result<Status, Error> {
        let Options {
            controllers,
            agents,
            ..
        } = self.options;
        waiting::whole(&self.cli, controllers as usize, agents as usize).await
    }

    /// Waits until this many agents are ready for work.
    pub async fn until_agents_ready(&self, wanted: usize) -> Result<(), Error> {
        waiting::agents_ready(&self.cli, wanted).await
    }

    /// Ends everything as Ctrl-C does, and waits for it.
    pub async fn stop(mut self) -> Result<ExitStatus, Error> {
        self.pause().await
    }

    /// The same, with everything left in place for [`Cluster::resume`].
    pub async fn pause(&mut self) -> Result<ExitStatus, Error> {
        interrupt(&self.dev)?;
        let ended = tokio::time::timeout(ORDERLY, self.dev.wait()).await;
        let status = match ended {
            Ok(status) => status.map_err(Error::io("waiting for quorate dev"))?,
            Err(_elapsed) => {
                return Err(Error::Timeout {
                    what: "quorate dev to end after Ctrl-C".to_owned(),
                    waited: ORDERLY,
                    last: self.dev_output(),
                });
            }
        };
        match process::living_in(self.workspace.path()).as_slice() {
            [] => Ok(status),
            left => Err(Error::Broken(format!(
                "{} processes outlived quorate dev",
                left.len()
            ))),
        }
    }

    /// `quorate dev` once more on the same directory, until all of it works again.
    pub async fn resume(&mut self) -> Result<(), Error> {
        self.dev = spawn_dev(&self.cli, &self.options, &self.directory())?;
        self.until_ready().await
    }

    /// Gives every process the same signal, `dev` left out: what a power button does to them.
    pub fn signal_controllers(&self, signal: Signal) -> Result<Vec<i32>, Error> {
        let pids: Vec<i32> = self
            .layout()?
            .controllers
            .iter()
            .filter_map(|controller| controller.pid)
            .collect();
        for pid in &pids {
            process::send(*pid, signal)
                .map_err(|errno| Error::Invalid(format!("{signal} to {pid}: {errno}")))?;
        }
        Ok(pids)
    }

    async fn until_ready(&mut self) -> Result<(), Error> {
        let file = self.directory().join("cluster.json");
        let dev = &mut self.dev;
        wait::until_now("cluster.json", READY, || match dev.try_wait() {
            // No use waiting for a process that ended.
            Ok(Some(status)) => Ok(Err(format!("quorate dev ended with {status}"))),
            _ if file.is_file() => Ok(Ok(())),
            _ => Err("it is not written yet"),
        })
        .await?
        .map_err(Error::Broken)?;
        self.until_whole().await.map(drop)
    }

    fn dev_output(&self) -> String {
        tail(&self.workspace.path().join("dev.err"))
    }
}

impl Members for Cluster {
    fn member(&self, id: &str) -> Result<Member, Error> {
        Cluster::member(self, id)
    }

    fn directory(&self) -> PathBuf {
        Cluster::directory(self)
    }
}

fn spawn_dev(cli: &Cli, options: &Options, directory: &Path) -> Result<Child, Error> {
    let beside = directory.parent().unwrap_or(directory);
    let file = |name: &str| -> Result<Stdio, Error> {
        let path = beside.join(name);
        Ok(Stdio::from(
            std::fs::File::create(&path).map_err(Error::file("creating", &path))?,
        ))
    };
    let (controllers, agents) = (options.controllers.to_string(), options.agents.to_string());
    let (slots, directory) = (
        options.slots.to_string(),
        directory.to_string_lossy().into_owned(),
    );
    let arguments = [
        ["--dir", &directory],
        ["--base-port", "0"],
        ["--controllers", &controllers],
        ["--agents", &agents],
        ["--slots", &slots],
    ];
    cli.command(["dev"].into_iter().chain(arguments.into_iter().flatten()))
        .args(options.backends.iter().flat_map(|url| ["--backend", url]))
        .env_remove("QUORATE_CONTEXT")
        .envs(options.environment.iter().cloned())
        .stdout(file("dev.out")?)
        .stderr(file("dev.err")?)
        .spawn()
        .map_err(Error::io("starting quorate dev"))
}

/// The end of a log, for an error.
pub fn tail(path: &Path) -> String {
    const BYTES: usize = 2_000;
    let text = std::fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&text[text.len().saturating_sub(BYTES)..]).into_owned()
}
