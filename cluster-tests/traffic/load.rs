//! A steady load: so many submits in flight, each followed to its result, all of it written down.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tonic::Code;
use wire::v1;

use crate::Error;
use crate::checkers::{Final, Outcome, Record};
use crate::traffic::{Caller, Failure, submit};

/// What a load makes: the spec of its n-th task.
pub type Spec = Arc<dyn Fn(u64) -> v1::TaskSpec + Send + Sync>;

/// How much, of what, and how patient its clients are.
#[derive(Clone)]
pub struct Load {
    pub in_flight: u32,
    pub spec: Spec,
    /// For a submit, and again for its result.
    pub patience: Duration,
}

/// A load that runs until it is asked to finish.
pub struct Running {
    workers: JoinSet<Vec<Record>>,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    finished: Arc<AtomicU64>,
}

impl Load {
    pub fn start(self, caller: &Caller) -> Running {
        let mut running = Running {
            workers: JoinSet::new(),
            stop: Arc::new(AtomicBool::new(false)),
            acknowledged: Arc::new(AtomicU64::new(0)),
            finished: Arc::new(AtomicU64::new(0)),
        };
        let numbers = Arc::new(AtomicU64::new(0));
        for _ in 0..self.in_flight {
            let worker = Worker {
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

    /// Submits no more, waits for the results of what was submitted, and gives the record of it all.
    pub async fn finish(mut self) -> Result<Vec<Record>, Error> {
        self.stop.store(true, Ordering::Relaxed);
        let mut records = Vec::new();
        while let Some(done) = self.workers.join_next().await {
            let done = done.map_err(|error| Error::Invalid(format!("a client died: {error}")))?;
            records.extend(done);
        }
        Ok(records)
    }
}

struct Worker {
    load: Load,
    caller: Caller,
    numbers: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    finished: Arc<AtomicU64>,
}

impl Worker {
    async fn run(self) -> Vec<Record> {
        let mut records = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            let number = self.numbers.fetch_add(1, Ordering::Relaxed);
            records.push(self.one((self.load.spec)(number)).await);
        }
        records
    }

    async fn one(&self, spec: v1::TaskSpec) -> Record {
        let request = submit(spec);
        let outcome = match self.caller.submit(&request, self.load.patience).await {
            Ok(reply) => Outcome::Acknowledged {
                task: reply.task.unwrap_or_default().id,
            },
            Err(failure) => unanswered(&failure),
        };
        let mut result = None;
        if let Outcome::Acknowledged { task } = outcome {
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
            // A result that did not come in time is judged at the end, from the controllers' states.
            if let Ok(task) = self.caller.wait(task, self.load.patience).await {
                self.finished.fetch_add(1, Ordering::Relaxed);
                result = Some(result_of(&task));
            }
        }
        Record {
            request_id: request.request_id,
            outcome,
            result,
        }
    }
}

fn unanswered(failure: &Failure) -> Outcome {
    match failure.is_unknown || failure.status.code() == Code::Ok {
        true => Outcome::Unknown,
        false => Outcome::Refused,
    }
}

/// State and result as one comparable text.
fn result_of(task: &v1::Task) -> String {
    let state = task.state().as_str_name();
    let Some(result) = &task.result else {
        return state.to_owned();
    };
    let ended = match (result.exit_code, result.signal) {
        (Some(code), _) => format!("code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "no exit".to_owned(),
    };
    let stdout = String::from_utf8_lossy(&result.stdout);
    format!(
        "{state} epoch {} {ended} stdout {stdout:?} of {}",
        task.epoch, result.stdout_bytes
    )
}

/// Tasks as a controller lists them, in the checker's terms.
pub fn finals(tasks: &[v1::Task]) -> Vec<Final> {
    tasks
        .iter()
        .map(|task| Final {
            task: task.id,
            request_id: task.request_id.clone(),
            submit_index: task.submit_index,
            last_index: task.last_index,
            attempts: task.attempt,
            epoch: task.epoch,
            result: super::caller::is_terminal(task).then(|| result_of(task)),
            at_most_once: task.spec.as_ref().is_some_and(|spec| spec.at_most_once),
        })
        .collect()
}
