//! A steady load: so many submits in flight, each followed to its result, all of it written down.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tonic::Code;
use wire::v1;

use crate::Error;
use crate::checkers::Final;
use crate::history::{Action, Answer, History, Pending, Recorder, TaskSeen};
use crate::traffic::{Caller, Failure, submit};

/// What a load makes: the spec of its n-th task.
pub type Spec = Arc<dyn Fn(u64) -> v1::TaskSpec + Send + Sync>;

/// How much, of what, and how patient its clients are.
#[derive(Clone)]
pub struct Load {
    /// Of its clients, with a number behind it.
    pub name: &'static str,
    pub in_flight: u32,
    pub spec: Spec,
    /// For a submit, and again for its result.
    pub patience: Duration,
    /// Of each client after a result.
    pub pause: Duration,
}

/// A load that runs until it is asked to finish.
pub struct Running {
    workers: JoinSet<()>,
    recorder: Recorder,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    finished: Arc<AtomicU64>,
}

impl Load {
    pub fn start(self, caller: &Caller) -> Running {
        self.start_with(caller, &Recorder::new())
    }

    /// The same into a history that others write to as well.
    pub fn start_with(self, caller: &Caller, recorder: &Recorder) -> Running {
        let mut running = Running {
            workers: JoinSet::new(),
            recorder: recorder.clone(),
            stop: Arc::new(AtomicBool::new(false)),
            acknowledged: Arc::new(AtomicU64::new(0)),
            finished: Arc::new(AtomicU64::new(0)),
        };
        let numbers = Arc::new(AtomicU64::new(0));
        for client in 1..=self.in_flight {
            let worker = Worker {
                client: format!("{}-{client}", self.name),
                recorder: recorder.clone(),
                load: self.clone(),
                caller: caller.clone(),
                numbers: Arc::clone(&numbers),
                stop: Arc::clone(&running.stop),
                acknowledged: Arc::clone(&running.acknowledged),
                finished: Arc::clone(&running.finished),
            };
            running.workers.spawn(worker.run());
        }
        running
    }
}

impl Running {
    /// Submits acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Tasks whose result came back so far.
    pub fn finished(&self) -> u64 {
        self.finished.load(Ordering::Relaxed)
    }

    /// Submits no more, waits for the results of what was submitted, and gives all that is in the history by then.
    pub async fn finish(mut self) -> Result<History, Error> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(done) = self.workers.join_next().await {
            done.map_err(|error| Error::Invalid(format!("a client died: {error}")))?;
        }
        Ok(self.recorder.history())
    }
}

struct Worker {
    client: String,
    recorder: Recorder,
    load: Load,
    caller: Caller,
    numbers: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    finished: Arc<AtomicU64>,
}

impl Worker {
    async fn run(self) {
        while !self.stop.load(Ordering::Relaxed) {
            let number = self.numbers.fetch_add(1, Ordering::Relaxed);
            if let Some(task) = self.submit((self.load.spec)(number)).await {
                self.wait(task).await;
            }
            tokio::time::sleep(self.load.pause).await;
        }
    }

    async fn submit(&self, spec: v1::TaskSpec) -> Option<u64> {
        let request = submit(spec);
        let action = Action::submit(&request);
        let pending = self.recorder.begin(&self.client, action);
        match self.caller.submit(&request, self.load.patience).await {
            Ok(reply) => {
                pending.ok(Answer::submitted(&reply));
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
                Some(reply.task.unwrap_or_default().id)
            }
            Err(failure) => {
                unanswered(pending, &failure);
                None
            }
        }
    }

    async fn wait(&self, task: u64) {
        let pending = self.recorder.begin(&self.client, Action::Wait { task });
        // A result that did not come in time is judged at the end, from the controllers' states.
        match self.caller.wait_reply(task, self.load.patience).await {
            Ok(reply) => {
                pending.ok(Answer::task(&reply));
                self.finished.fetch_add(1, Ordering::Relaxed);
            }
            Err(failure) => unanswered(pending, &failure),
        }
    }
}

/// Takes down an operation that was not done, or of which nobody knows.
pub fn unanswered(pending: Pending, failure: &Failure) {
    let told = wire::status::Failure::read(&failure.status);
    let code = told.code.as_str();
    match failure.is_unknown || failure.status.code() == Code::Ok {
        true => pending.unknown(code, &told.message),
        false => pending.refused(code, &told.message),
    }
}

/// Tasks as a controller lists them, in the checker's terms.
pub fn finals(tasks: &[v1::Task]) -> Vec<Final> {
    tasks
        .iter()
        .map(|task| Final {
            task: TaskSeen::of(task),
            at_most_once: task.spec.as_ref().is_some_and(|spec| spec.at_most_once),
        })
        .collect()
}
