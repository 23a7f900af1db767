//! Runs the work: so many tasks in flight at a time, each submitted, waited for, and its result kept.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cluster_tests::traffic::{self, Caller};
use cluster_tests::{Error, wait};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::watch;
use tokio::task::JoinSet;
use wire::v1;

/// More than both agents can run at once, so that each always has some when it is killed.
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

/// The work under way.
pub struct Running {
    done: watch::Receiver<usize>,
    workers: JoinSet<Result<Vec<Done>, Error>>,
}

impl Running {
    pub fn start(caller: &Caller, files: &[PathBuf], bar: &Bar) -> Running {
        let queue = Arc::new(Mutex::new(files.to_vec()));
        let (count, done) = watch::channel(0);
        let count = Arc::new(count);
        let mut workers = JoinSet::new();
        for _ in 0..IN_FLIGHT {
            let (caller, queue) = (caller.clone(), Arc::clone(&queue));
            let (count, bar) = (Arc::clone(&count), bar.clone());
            workers.spawn(async move {
                let mut ended = Vec::new();
                while let Some(file) = take(&queue) {
                    let task = run(&caller, &file).await?;
                    count.send_modify(|done| *done += 1);
                    bar.advance();
                    ended.push(Done { file, task });
                }
                Ok(ended)
            });
        }
        Running { done, workers }
    }

    /// Waits until so many have ended.
    pub async fn until(&self, wanted: usize) -> Result<(), Error> {
        wait::until_now(&format!("{wanted} results"), PATIENCE, || {
            let done = *self.done.borrow();
            if done >= wanted {
                Ok(())
            } else {
                Err(format!("{done}"))
            }
        })
        .await
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

async fn run(caller: &Caller, file: &Path) -> Result<v1::Task, Error> {
    let name = file.to_string_lossy().into_owned();
    let request = traffic::submit(traffic::process(["sha256sum".to_owned(), name.clone()]));
    let gave_up = |failure| Error::Broken(format!("sha256sum {name}: {failure}"));
    let accepted = caller.submit(&request, PATIENCE).await.map_err(gave_up)?;
    let task = accepted.task.unwrap_or_default().id;
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
