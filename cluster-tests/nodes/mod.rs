//! A cluster whose nodes the harness starts itself, each where its network puts it.
//!
//! `quorate dev` keeps all members on one loopback interface and starts them its own way. Here each node is a
//! child of the harness: in a namespace of its own, behind proxies, or plainly, on a small disk or with a clock
//! of its own where that was asked for. Who died stays dead until [`Nodes::restart`]. When the value goes,
//! everything goes: processes, network, directories; when the harness dies, the nodes see their standard input
//! end.
//!
//! Left out: what breaks nodes ([`crate::faults`]) and what asks them ([`crate::traffic`]).

mod asking;
mod node;
mod prepare;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio_rustls::rustls::ClientConfig;
use wire::v1;
use wire::v1::tasks_client::TasksClient;

pub use asking::Seat;
pub use node::Node;
pub use prepare::zone;

use crate::checkers::{self, Final};
use crate::cluster::{
    self, Ask, Cli, Completed, Context, Member, Members, Metrics, Status, Workspace,
};
use crate::faults::clock::Clock;
use crate::faults::disk::SmallDisk;
use crate::faults::{self, process};
use crate::log::Log;
use crate::network::{Backend, CLIENT, Namespace, Network, Service};
use crate::traffic::{self, Caller};
use crate::{Error, binary, wait};
use asking::Askers;
use prepare::Plan;

/// For a command line to have become a process of ours.
const STARTED: Duration = Duration::from_secs(10);
/// For a controller to open what it has on its disk, and its ports.
const UP: Duration = Duration::from_secs(60);

/// What to start.
#[derive(Debug, Clone)]
pub struct Options {
    /// Part of the directory's name, for the person who finds it.
    pub name: String,
    pub backend: Backend,
    pub controllers: usize,
    pub agents: usize,
    pub slots: u32,
    /// Gives every node a wall clock that can be set; needs libfaketime.
    pub has_clocks: bool,
    /// MiB of a disk of its own for every controller; needs root and loop devices.
    pub disks: Option<u32>,
    /// What a process writes to its disk can be held back.
    pub has_throttle: bool,
    /// Entries after which controllers take a snapshot, where that is not as usual.
    pub snapshot_every: Option<u64>,
    /// Entries that stay in the log behind one.
    pub keep_behind_snapshot: Option<u64>,
    /// The binary can be told where to die.
    pub has_failpoints: bool,
    /// For every node.
    pub environment: Vec<(String, String)>,
}

impl Options {
    /// Three controllers and two agents.
    pub fn new(name: &str, backend: Backend) -> Options {
        Options {
            name: name.to_owned(),
            backend,
            controllers: 3,
            agents: 2,
            slots: 4,
            has_clocks: false,
            disks: None,
            has_throttle: false,
            snapshot_every: None,
            keep_behind_snapshot: None,
            has_failpoints: false,
            environment: Vec::new(),
        }
    }

    #[must_use]
    pub fn controllers(self, controllers: usize) -> Options {
        Options {
            controllers,
            ..self
        }
    }

    #[must_use]
    pub fn agents(self, agents: usize) -> Options {
        Options { agents, ..self }
    }
}

/// A running cluster.
#[derive(Debug)]
pub struct Nodes {
    // The order is the order in which they go.
    nodes: BTreeMap<String, Node>,
    network: Network,
    cli: Cli,
    context: Context,
    askers: Askers,
    tls: Arc<ClientConfig>,
    https: Arc<ClientConfig>,
    options: Options,
    workspace: Workspace,
}

impl Nodes {
    /// Starts one, and waits until it has a leader and every agent is ready.
    pub async fn start(options: Options) -> Result<Nodes, Error> {
        let binary = tokio::task::spawn_blocking(binary::find)
            .await
            .map_err(|error| Error::Invalid(format!("looking for the binary: {error}")))??;
        let workspace = Workspace::create(&options.name)?;
        let directory = workspace.path().join("nodes");
        std::fs::create_dir_all(&directory).map_err(Error::file("creating", &directory))?;
        let (controllers, agents) = (ids('c', options.controllers), ids('a', options.agents));
        let network = Network::create(options.backend, &controllers, &agents).await?;
        let cli = Cli::new(&binary, &directory.join("context.toml"), workspace.path());
        let cli = match network.entrance(CLIENT) {
            Some(path) => cli.entering(Namespace::enter(&path).into()),
            None => cli,
        };
        let plan = Plan {
            directory: &directory,
            network: &network,
            controllers: &controllers,
            agents: &agents,
            slots: options.slots,
            snapshot_every: options.snapshot_every,
            keep_behind_snapshot: options.keep_behind_snapshot,
        };
        let mut nodes = plan.carry_out(&cli).await?;
        equip(&mut nodes, &options, workspace.path())?;
        let context = Context::read(&directory.join("outside.toml"))?;
        let credentials = context.credentials()?;
        let tls = cluster::grpc_tls(&credentials)?;
        let machines = controllers.iter().map(|id| {
            let dialled = network.dial_from_outside(id, Service::Grpc);
            (id, dialled, network.listen(id))
        });
        let askers = Askers::new(machines, &tls);
        let mut nodes = Nodes {
            nodes,
            network,
            cli,
            askers,
            context,
            tls,
            https: cluster::https_tls(&credentials)?,
            options,
            workspace,
        };
        let up = nodes.bring_up().await;
        up.map_err(|error| {
            nodes.workspace.keep();
            Error::Broken(format!("the cluster did not come up: {error}"))
        })?;
        Ok(nodes)
    }

    async fn bring_up(&self) -> Result<(), Error> {
        for node in self.nodes.values() {
            node.start(&self.cli, self.network.namespace(&node.id))
                .await?;
        }
        self.until_whole().await.map(drop)
    }

    pub fn network(&self) -> &Network {
        &self.network
    }

    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The command line as a person at the client's machine has it.
    pub fn cli(&self) -> &Cli {
        &self.cli
    }

    /// A place for a test's own files, on the same disk.
    pub fn scratch(&self) -> &Path {
        self.workspace.path()
    }

    pub fn keep_files(&mut self) {
        self.workspace.keep();
    }

    pub fn controllers(&self) -> Vec<String> {
        ids('c', self.options.controllers)
    }

    pub fn agents(&self) -> Vec<String> {
        ids('a', self.options.agents)
    }

    pub fn node(&self, id: &str) -> Result<&Node, Error> {
        let missing = || Error::Invalid(format!("there is no node {id}"));
        self.nodes.get(id).ok_or_else(missing)
    }

    /// The gRPC addresses of all controllers, as the harness itself dials them.
    pub fn addresses(&self) -> Vec<String> {
        self.context.addresses.clone()
    }

    pub fn tls(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.tls)
    }

    pub fn caller(&self) -> Caller {
        Caller::new(&self.context.addresses, &self.tls)
    }

    /// What a controller's `/metrics` say now.
    pub async fn metrics(&self, id: &str) -> Result<Metrics, Error> {
        let address = self.network.dial_from_outside(id, Service::Https);
        Metrics::scrape(&address, &self.https).await
    }

    /// What a controller says that knows a leader with a quorum behind it; else what another one says. Members are
    /// called by their machines.
    pub async fn status(&self) -> Result<Status, Error> {
        self.askers.status().await
    }

    /// An agent as a controller shows it.
    pub async fn agent(&self, id: &str) -> Result<v1::Agent, Error> {
        self.askers.agent(id).await
    }

    /// What the cluster itself calls the controller on this machine.
    pub async fn member_id(&self, machine: &str) -> Result<String, Error> {
        let seats = self.askers.seats().await?;
        let its = |seat: &Seat| seat.machine.as_deref() == Some(machine);
        let missing = || Error::Invalid(format!("no member of the cluster is on {machine}"));
        let seat = seats.into_iter().find(its).ok_or_else(missing)?;
        Ok(seat.id)
    }

    /// Who belongs to the cluster, as the controller on this machine shows it.
    pub async fn seats_seen_by(&self, machine: &str) -> Result<Vec<Seat>, Error> {
        self.askers.seats_seen_by(machine).await
    }

    /// Waits until there is a leader, and says who. Those that are cut off may think otherwise.
    pub async fn leader(&self) -> Result<String, Error> {
        cluster::leader(&self.askers, "").await
    }

    /// The same, for when the one that led can't any more and some may not know yet.
    pub async fn leader_other_than(&self, former: &str) -> Result<String, Error> {
        cluster::leader(&self.askers, former).await
    }

    /// Waits until every controller answers and all agents are connected and ready.
    pub async fn until_whole(&self) -> Result<Status, Error> {
        let Options {
            controllers,
            agents,
            ..
        } = self.options;
        cluster::whole(&self.askers, controllers, agents).await
    }

    /// Waits until an agent has a lease, again or still.
    pub async fn until_back(&self, agent: &str) -> Result<(), Error> {
        let what = format!("{agent} to be back");
        wait::until(&what, UP, || async {
            let seen = self.agent(agent).await;
            let state = seen.map_err(|error| error.to_string())?.state;
            match state == "lost" {
                true => Err(state),
                false => Ok(()),
            }
        })
        .await
    }

    /// Waits until every controller's process answers, whether it has a leader or not.
    pub async fn until_up(&self) -> Result<(), Error> {
        for id in self.controllers() {
            let what = format!("{id} to answer");
            wait::until(&what, UP, || async {
                let metrics = self.metrics(&id).await;
                metrics.map(drop).map_err(|error| error.to_string())
            })
            .await?;
        }
        Ok(())
    }

    /// Waits until every controller answers, wherever the agents are.
    pub async fn until_controllers_back(&self) -> Result<Status, Error> {
        cluster::whole(&self.askers, self.options.controllers, 0).await
    }

    /// Waits until all members have applied the same entries.
    pub async fn until_converged(&self, patience: Duration) -> Result<Status, Error> {
        wait::until("all members at the same index", patience, || async {
            let status = self.status().await.map_err(|error| error.to_string())?;
            match checkers::is_converged(&status) {
                true => Ok(status),
                false => Err(status.describe()),
            }
        })
        .await
    }

    /// Waits until no task waits or runs any more.
    pub async fn until_all_ended(&self, patience: Duration) -> Result<(), Error> {
        let ids = self.controllers();
        let first = ids.first().map_or("", String::as_str);
        wait::until("all tasks to end", patience, || async {
            let all = self.finals_of(first).await;
            let all = all.map_err(|error| error.to_string())?;
            let mut open = all.iter().filter(|it| !it.task.state.is_terminal());
            match open.next() {
                None => Ok(()),
                Some(it) => Err(format!("t{} is {}", it.task.id, it.task.state.as_str())),
            }
        })
        .await
    }

    /// A controller's own list of tasks.
    pub async fn finals_of(&self, id: &str) -> Result<Vec<Final>, Error> {
        let address = self.network.dial_from_outside(id, Service::Grpc);
        let mut client = TasksClient::new(cluster::channel(&address, &self.tls));
        let tasks = Caller::list_own(&mut client).await;
        Ok(traffic::finals(&tasks.map_err(Error::call("Tasks.List"))?))
    }

    /// Waits until a task that is submitted now has run. Its id.
    pub async fn until_serving(&self, patience: Duration) -> Result<u64, Error> {
        let failed = |what: &str, failure: traffic::Failure| {
            Error::Broken(format!("the cluster does not serve: {what}: {failure}"))
        };
        let caller = self.caller();
        let request = traffic::submit(traffic::process(["true"]));
        let reply = caller.submit(&request, patience).await;
        let reply = reply.map_err(|failure| failed("submit", failure))?;
        let id = reply.task.unwrap_or_default().id;
        let ended = caller.wait(id, patience).await;
        ended.map_err(|failure| failed("wait", failure))?;
        Ok(id)
    }

    /// SIGTERM, and waits for the end, whose status it gives.
    pub async fn terminate(&self, id: &str) -> Result<Option<ExitStatus>, Error> {
        let node = self.node(id)?;
        let pid = faults::running(self, id)?;
        process::send(pid, Signal::SIGTERM)
            .map_err(|errno| Error::Invalid(format!("SIGTERM to {id}: {errno}")))?;
        node.ended().await
    }

    /// Kills a node's process, which may end by itself at that moment, or have ended, and waits for its end.
    pub async fn put_down(&self, id: &str) -> Result<(), Error> {
        let node = self.node(id)?;
        let killed = match node.fallen().await {
            Some(_) => Ok(()),
            None => faults::kill(self, id).await.map(drop),
        };
        // One that is just going can't be killed any more.
        let ended = node.ended().await.map(drop);
        ended.map_err(|error| killed.err().unwrap_or(error))
    }

    /// Starts a node again whose process has ended, or is about to, and waits for nothing: it may refuse to run.
    pub async fn try_start(&self, id: &str) -> Result<i32, Error> {
        let namespace = self.network.namespace(id);
        self.node(id)?.start(&self.cli, namespace).await
    }

    /// The same for one that is to run; waits for the process, and for nothing that it does.
    pub async fn restart(&self, id: &str) -> Result<i32, Error> {
        let node = self.node(id)?;
        let pid = self.try_start(id).await?;
        // What mounts its disk comes first.
        wait::until(&format!("a process of {id}"), STARTED, || async {
            let running = faults::running(self, id).map_err(|error| error.to_string());
            match node.fallen().await {
                Some(status) => Ok(Err(Error::Broken(format!("{id} ended at once: {status}")))),
                None => running.map(Ok),
            }
        })
        .await?
        .map(|_| pid)
    }

    /// What is in the log of a controller that does not run.
    pub async fn dumped_log(&self, id: &str) -> Result<Log, Error> {
        let node = self.node(id)?;
        let (binary, data_dir) = (self.cli.binary(), &node.data_dir);
        let (binary, data_dir) = (binary.to_string_lossy(), data_dir.to_string_lossy());
        let words = [&*binary, "data-dir", "log", &data_dir, "-o", "json"];
        let printed = self.run_on_its_disk(node, &words).await?.stdout;
        Log::parse(printed.as_slice()).map_err(|reason| Error::format(&node.data_dir, reason))
    }

    /// Leaves nothing in the data directory of a node that does not run.
    pub async fn empty(&self, id: &str) -> Result<(), Error> {
        let node = self.node(id)?;
        let data_dir = node.data_dir.to_string_lossy();
        let words = ["find", &data_dir, "-mindepth", "1", "-delete"];
        self.run_on_its_disk(node, &words).await.map(drop)
    }

    async fn run_on_its_disk(&self, node: &Node, words: &[&str]) -> Result<Completed, Error> {
        let argv = words.iter().map(|word| (*word).to_owned());
        let argv = node.on_its_disk(argv.collect());
        let child = self.cli.program(&argv[0], &argv[1..]).spawn();
        let child = child.map_err(Error::io("looking at a node's disk"))?;
        cluster::finish(words.join(" "), child).await?.success()
    }

    /// Nodes whose process has ended, and how, whether that was meant or not.
    pub async fn fallen(&self) -> Vec<(String, ExitStatus)> {
        let mut fallen = Vec::new();
        for node in self.nodes.values() {
            if let Some(status) = node.fallen().await {
                fallen.push((node.id.clone(), status));
            }
        }
        fallen
    }
}

impl Members for Nodes {
    fn member(&self, id: &str) -> Result<Member, Error> {
        self.node(id).map(Node::as_member)
    }

    fn directory(&self) -> PathBuf {
        self.workspace.path().join("nodes")
    }
}

fn ids(letter: char, count: usize) -> Vec<String> {
    (1..=count)
        .map(|number| format!("{letter}{number}"))
        .collect()
}

/// Clocks and disks, where they were asked for.
fn equip(
    nodes: &mut BTreeMap<String, Node>,
    options: &Options,
    scratch: &Path,
) -> Result<(), Error> {
    for node in nodes.values_mut() {
        node.environment.clone_from(&options.environment);
        if options.has_clocks {
            let shift = scratch.join(format!("{}.clock", node.id));
            node.clock = Some(Clock::create(&shift).map_err(Error::Invalid)?);
        }
        if let Some(mebibytes) = options.disks.filter(|_| node.id.starts_with('c')) {
            let image = scratch.join(format!("{}.img", node.id));
            let disk = SmallDisk::format(&node.data_dir, &image, mebibytes);
            node.disk = Some(disk.map_err(Error::Invalid)?);
        }
    }
    Ok(())
}
