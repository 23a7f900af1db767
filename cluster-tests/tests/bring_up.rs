//! The README's way to a real cluster, walked with its very commands.
//!
//! What the section has in its blocks is run line by line: certificates are carried to where their
//! comments say, each server is started on the machine that its comment names. Only what one machine
//! cannot be is changed: the addresses 10.0.0.x become ones of the loopback network that nobody else
//! uses, and each machine's /var/lib is a directory.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use cluster_tests::cluster::{Cli, Status, Workspace, finish, tail};
use cluster_tests::faults::process;
use cluster_tests::report::Progress;
use cluster_tests::{Error, binary, wait};
use nix::sys::signal::Signal;
use tokio::process::{Child, Command};
use tokio::test;

const SECTION: &str = "## For real";
/// The network of the README's machines.
const NETWORK: &str = "10.0.0.";
/// Where it looks for everything on each.
const VAR_LIB: &str = "/var/lib/quorate";
/// The machine that everything begins on.
const FIRST: &str = "10.0.0.1";
/// For three controllers to vote, and an agent to be ready.
const READY: Duration = Duration::from_secs(60);
/// For an orderly end.
const STOPPED: Duration = Duration::from_secs(20);

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn the_way_to_a_real_cluster_is_as_the_readme_has_it() {
    let progress = Progress::new("bring-up");
    let mut site = Machines::new();
    for line in lines(include_str!("../../README.md")) {
        progress.say(&line.text);
        match line.words().as_slice() {
            ["cd", to] => site.here = PathBuf::from(site.moved(FIRST, to)),
            ["quorate", "controller", "run", ..] => {
                let machine = line.comment_after("on ").expect("its machine").to_owned();
                site.serve(&machine, &line);
            }
            ["quorate", "agent", "run", ..] => {
                let worker = site.worker.clone().expect("a certificate for it");
                site.serve(&worker, &line);
            }
            ["quorate", "context", ..] => {
                site.until_whole().await;
                site.run(&line).await;
            }
            ["quorate", "task", "run", ..] => {
                let printed = site.run(&line).await;
                let own = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
                assert_eq!(printed, own);
            }
            ["quorate", ..] => drop(site.run(&line).await),
            other => panic!("the README has a command that this test can't do: {other:?}"),
        }
    }
    site.stop().await;
}

/// A command with its comment.
struct Line {
    text: String,
}

/// What stands in the blocks of the section.
fn lines(readme: &str) -> Vec<Line> {
    let section = readme.lines().skip_while(|line| !line.starts_with(SECTION));
    let section = section.skip(1).take_while(|line| !line.starts_with("## "));
    let (mut lines, mut within) = (Vec::new(), false);
    for text in section {
        if text.starts_with("```") {
            within = !within;
        } else if within && !text.is_empty() {
            let text = text.to_owned();
            lines.push(Line { text });
        }
    }
    assert!(lines.len() > 8, "the README lost its section {SECTION:?}");
    lines
}

impl Line {
    fn words(&self) -> Vec<&str> {
        let command = self.text.split('#').next().unwrap_or_default();
        command.split_whitespace().collect()
    }

    fn comment_after(&self, mark: &str) -> Option<&str> {
        let (_, comment) = self.text.split_once('#')?;
        Some(comment.split_once(mark)?.1.trim())
    }
}

/// All machines in one directory.
struct Machines {
    cli: Cli,
    network: String,
    /// Where the person is.
    here: PathBuf,
    /// The machine of the one agent.
    worker: Option<String>,
    /// Name, process.
    servers: Vec<(String, Child)>,
    // Removed last.
    workspace: Workspace,
}

impl Machines {
    fn new() -> Machines {
        let workspace = Workspace::create("bring-up").unwrap();
        // By a path in there, so that whoever cleans up knows them by their command lines.
        let program = workspace.path().join("quorate");
        std::os::unix::fs::symlink(binary::find().unwrap(), &program).unwrap();
        Machines {
            cli: Cli::new(&program, Path::new(""), workspace.path()),
            network: free_network(),
            here: workspace.path().to_owned(),
            worker: None,
            servers: Vec::new(),
            workspace,
        }
    }

    /// A word of the README as this machine would have it.
    fn moved(&self, machine: &str, word: &str) -> String {
        let own = self.workspace.path().join(machine);
        word.replace(NETWORK, &self.network)
            .replace(VAR_LIB, &own.to_string_lossy())
    }

    fn command(&self, machine: &str, line: &Line) -> Command {
        let words = line.words();
        let words = words[1..].iter().map(|word| self.moved(machine, word));
        let mut command = self.cli.command(words);
        // What is each machine's own by default.
        for (name, default) in [("CONTROLLER", "controller"), ("AGENT", "agent")] {
            let data_dir = self.moved(machine, &format!("{VAR_LIB}/{default}"));
            command.env(format!("QUORATE_{name}__DATA_DIR"), data_dir);
        }
        if machine.starts_with(NETWORK) {
            command.env("QUORATE_CONTROLLER__LISTEN", self.moved(machine, machine));
        }
        command
    }

    /// Runs a command of the first machine to its end, and carries to another what it is meant for.
    async fn run(&mut self, line: &Line) -> String {
        let mut command = self.command(FIRST, line);
        let child = command.current_dir(&self.here).spawn().unwrap();
        let done = finish(line.text.clone(), child).await.unwrap();
        let done = done.success().unwrap();
        if let Some(goal) = line.comment_after("→ ") {
            let (machine, path) = goal.split_once(':').expect("MACHINE:PATH");
            let words = line.words();
            let out = words.iter().position(|word| *word == "--out").unwrap() + 1;
            carry(
                &self.here.join(words[out]),
                Path::new(&self.moved(machine, path)),
            );
            if words.contains(&"agent") {
                self.worker = Some(machine.to_owned());
            }
        }
        done.text()
    }

    fn serve(&mut self, machine: &str, line: &Line) {
        let log = self.log(machine);
        let mut command = self.command(machine, line);
        command.stdout(Stdio::null());
        command.stderr(fs::File::create(log).unwrap());
        self.servers
            .push((machine.to_owned(), command.spawn().unwrap()));
    }

    fn log(&self, machine: &str) -> PathBuf {
        self.workspace.path().join(format!("{machine}.log"))
    }

    /// Until three controllers vote and the agent is ready.
    async fn until_whole(&self) {
        let context = self.moved(FIRST, &format!("{VAR_LIB}/controller/admin/context.toml"));
        let admin = self.cli.with_context(Path::new(&context));
        let whole = wait::until("the cluster", READY, || async {
            let status = Status::ask(&admin)
                .await
                .map_err(|error| error.to_string())?;
            let agents = admin.json(&["agent", "list"]).await;
            let agents = agents.map_err(|error| error.to_string())?;
            let votes = status
                .members
                .iter()
                .filter(|member| member.role == "voter");
            if votes.count() == 3 && agents["items"][0]["state"] == "ready" {
                Ok(())
            } else {
                Err(format!("{}; {agents}", status.describe()))
            }
        });
        if let Err(error) = whole.await {
            let logs = self.servers.iter();
            let logs = logs.map(|(machine, _)| format!("{machine}: {}", tail(&self.log(machine))));
            panic!("{error}\n{}", logs.collect::<Vec<_>>().join("\n"));
        }
    }

    /// As a service manager does it: the last that was started first.
    async fn stop(self) {
        for (machine, mut child) in self.servers.into_iter().rev() {
            let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap();
            process::send(pid, Signal::SIGTERM).unwrap();
            let ended = tokio::time::timeout(STOPPED, child.wait()).await;
            let ended = ended.expect("an orderly end").unwrap();
            assert!(ended.success(), "{machine}: {ended}");
        }
    }
}

/// What `scp -r` does.
fn carry(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let file = entry.unwrap().path();
        fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
    }
}

/// Three addresses with the usual ports free, such as `127.77.5.`: by chance one that no other test has.
pub fn free_network() -> String {
    const TRIES: usize = 50;
    let free = |network: &String| {
        let machines = (1..=3).flat_map(|host| (7400..7403).map(move |port| (host, port)));
        let bound =
            machines.map(|(host, port)| TcpListener::bind(format!("{network}{host}:{port}")));
        bound.collect::<Result<Vec<_>, _>>().map(drop)
    };
    let mut why = None;
    for _ in 0..TRIES {
        let [a, b] = rand::random::<[u8; 2]>();
        let network = format!("127.{}.{b}.", a.max(1));
        match free(&network) {
            Ok(()) => return network,
            Err(error) => why = Some(error),
        }
    }
    panic!(
        "{}",
        Error::Invalid(format!("ports 7400 to 7402 are in use: {why:?}"))
    );
}
