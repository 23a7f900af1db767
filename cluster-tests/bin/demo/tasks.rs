//! Runs the work: so many tasks in flight at a time, each submitted, waited for, and its result kept.
//!
//! Hashing a file takes milliseconds, so whatever is broken in the middle of it has mostly ended a moment
//! before. Tasks behind a [`Gate`] end only when it is opened: what is broken before that hits work.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cluster_tests::cluster::Cluster;
use cluster_tests::traffic::{self, Caller};
use cluster_tests::{Error, wait};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinSet;
use wire::v1;

/// More than both agents can run at once, so that neither is ever idle.
const IN_FLIGHT: usize = 16;
/// For one answer. A lost agent's tasks run again once its lease of 15 s is over.
const PATIENCE: Duration = Duration::from_secs(90);
/// Without a terminal, a line at each tenth of the way.
const LINES: usize = 10;

/// One file's task, ended.
pub struct Done {
    pub file: PathBuf,
    pub task: v1::Task,
}

/// A file that appears when tasks may go on.
#[derive(Debug, Clone)]
pub struct Gate(PathBuf);

impl Gate {
    /// By this name a task behind a gate is found again.
    const NAME: &str = "behind-the-gate";

    /// Closed, as long as there is nothing at `path`.
    pub fn at(path: PathBuf) -> Gate {
        Gate(path)
    }

    pub fn open(&self) -> Result<(), Error> {
        fs::write(&self.0, "").map_err(Error::file("writing", &self.0))
    }

    /// An agent that works on a task behind the gate, and will until it is opened.
    pub async fn agent_at_work(&self, cluster: &Cluster) -> Result<String, Error> {
        wait::until("a task behind the gate to run", PATIENCE, || async {
            let running = ["task", "list", "--state", "running"];
            let list = cluster.cli().json(&running).await;
            let list = list.map_err(|error| error.to_string())?;
            let mut items = list["items"].as_array().into_iter().flatten();
            let ours = items.find(|task| task["name"] == Gate::NAME);
            let agent = ours.and_then(|task| task["agent"].as_str());
            agent.map(str::to_owned).ok_or_else(|| list.to_string())
        })
        .await
    }

    fn hold(&self, spec: v1::TaskSpec) -> v1::TaskSpec {
        const SCRIPT: &str = "until [ -e \"$0\" ]; do sleep 0.1; done; exec \"$@\"";
        let gate = self.0.to_string_lossy().into_owned();
        let words = ["sh".to_owned(), "-c".to_owned(), SCRIPT.to_owned(), gate];
        let command = spec.process.unwrap_or_default().command;
        v1::TaskSpec {
            name: Gate::NAME.to_owned(),
            ..traffic::process(words.into_iter().chain(command))
        }
    }
}

/// The work under way.
pub struct Running {
    workers: JoinSet<Result<Vec<Done>, Error>>,
}

impl Running {
    pub fn start(caller: &Caller, files: &[PathBuf], gate: Option<&Gate>, bar: &Bar) -> Running {
        let queue = Arc::new(Mutex::new(files.to_vec()));
        let mut workers = JoinSet::new();
        for _ in 0..IN_FLIGHT {
            let (caller, queue) = (caller.clone(), Arc::clone(&queue));
            let (gate, bar) = (gate.cloned(), bar.clone());
            workers.spawn(async move {
                let mut ended = Vec::new();
                while let Some(file) = take(&queue) {
                    let task = run(&caller, &file, gate.as_ref()).await?;
                    bar.advance();
                    ended.push(Done { file, task });
                }
                Ok(ended)
            });
        }
        Running { workers }
    }

    pub async fn finish(mut self) -> Result<Vec<Done>, Error> {
        let mut all = Vec::new();
        while let Some(ended) = self.workers.join_next().await {
            all.extend(ended.map_err(|error| Error::Invalid(error.to_string()))??);
        }
        Ok(all)
    }
}

fn take(queue: &Mutex<Vec<PathBuf>>) -> Option<PathBuf> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).pop()
}

async fn run(caller: &Caller, file: &Path, gate: Option<&Gate>) -> Result<v1::Task, Error> {
    let name = file.to_string_lossy().into_owned();
    let spec = traffic::process(["sha256sum".to_owned(), name.clone()]);
    let spec = match gate {
        Some(gate) => gate.hold(spec),
        None => spec,
    };
    let gave_up = |failure| Error::Broken(format!("sha256sum {name}: {failure}"));
    let accepted = caller.submit(&traffic::submit(spec), PATIENCE).await;
    let task = accepted.map_err(gave_up)?.task.unwrap_or_default().id;
    caller.wait(task, PATIENCE).await.map_err(gave_up)
}

/// A progress bar on a terminal, plain lines elsewhere.
#[derive(Clone)]
pub struct Bar {
    bar: ProgressBar,
    total: usize,
}

impl Bar {
    pub fn new(total: usize) -> Bar {
        let bar = ProgressBar::new(total as u64);
        let style = ProgressStyle::with_template("  {bar:40} {pos}/{len} tasks  {elapsed}  {msg}");
        if let Ok(style) = style {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        Bar { bar, total }
    }

    /// Something that happened, above the bar.
    pub fn say(&self, text: &str) {
        match self.bar.is_hidden() {
            true => println!("  {text}"),
            false => self.bar.println(format!("  {text}")),
        }
    }

    pub fn close(&self) {
        self.bar.finish_and_clear();
    }

    fn advance(&self) {
        self.bar.inc(1);
        let done = usize::try_from(self.bar.position()).unwrap_or(self.total);
        if self.bar.is_hidden() && done.is_multiple_of(self.total.div_ceil(LINES)) {
            println!("  {done}/{} tasks", self.total);
        }
    }
}
