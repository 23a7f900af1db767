//! Runs attempts through their executor, on a runtime of its own.
//!
//! Of its own, because tasks may print a lot, and renewing the lease must not wait for its turn among
//! them. Nothing on it waits for a disk: a thread that did would not hear that the lease is lost.

use std::collections::{BTreeMap, HashMap};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use model::{BackendSettings, Fence, Kind};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;
use tokio::task::{Id, JoinSet};

use crate::clock;
use crate::error::Error;
use crate::executor::{Attempt, Executor, Exit, Hands, Urgency};
use crate::journal::{Journal, ProcessMark};
use crate::openai::OpenAi;
use crate::output::{Captured, Logs};
use crate::process::{Processes, Settings};
use crate::worker::Ended;

/// Threads that copy output and wait for processes; the work itself is done by the processes.
const THREADS: usize = 2;
/// How long dropped attempts may take to die when the agent ends.
const LAST_RITES: Duration = Duration::from_secs(2);

pub(crate) struct Runner {
    runtime: Option<Runtime>,
    processes: Processes,
    inferences: OpenAi,
    logs: Arc<Logs>,
    journal: Journal,
    /// Told when a process runs.
    started: UnboundedSender<Fence>,
    running: JoinSet<Box<Ended>>,
    fences: HashMap<Id, Fence>,
    stops: HashMap<Fence, watch::Sender<Urgency>>,
}

impl Runner {
    pub fn new(
        settings: Settings,
        inferences: OpenAi,
        logs: Arc<Logs>,
        journal: Journal,
        started: UnboundedSender<Fence>,
    ) -> Result<Runner, Error> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("run")
            .enable_all()
            .build()
            .map_err(Error::Thread)?;
        // Ends with the runtime.
        drop(runtime.spawn(inferences.watch()));
        Ok(Runner {
            runtime: Some(runtime),
            processes: Processes::new(settings)?,
            inferences,
            logs,
            journal,
            started,
            running: JoinSet::new(),
            fences: HashMap::new(),
            stops: HashMap::new(),
        })
    }

    /// How limits are enforced.
    pub fn limits(&self) -> &'static str {
        self.processes.limits()
    }

    /// What administrators set for the back ends.
    pub fn set_backends(&self, settings: &BTreeMap<String, BackendSettings>) {
        self.inferences.set(settings);
    }

    pub fn start(&mut self, attempt: Attempt) {
        let Some(runtime) = &self.runtime else { return };
        let fence = attempt.fence;
        let (stop, stopped) = watch::channel(Urgency::None);
        let output = self.logs.open(fence);
        let (journal, told) = (self.journal.clone(), self.started.clone());
        let started = move |process: Option<ProcessMark>| {
            if let Some(process) = process {
                journal.running(fence, process);
            }
            if told.send(fence).is_err() {
                tracing::debug!(%fence, "started while the agent ends");
            }
        };
        let hands = Hands {
            output: Arc::clone(&output),
            started: Box::new(started),
            stop: stopped,
        };
        let run = match attempt.spec.kind() {
            Kind::Process => self.processes.run(attempt, hands),
            Kind::Inference => self.inferences.run(attempt, hands),
        };
        let attempt = async move {
            let started_at = clock::wall();
            let exit = run.await;
            let captured = output.end();
            Box::new(Ended {
                exit,
                captured,
                started_at,
                finished_at: clock::wall(),
            })
        };
        let id = self.running.spawn_on(attempt, runtime.handle()).id();
        self.fences.insert(id, fence);
        self.stops.insert(fence, stop);
    }

    pub fn end(&self, fence: Fence, urgency: Urgency) {
        if let Some(stop) = self.stops.get(&fence) {
            stop.send_modify(|told| *told = urgency.max(*told));
        }
    }

    /// The next attempt that ended. Never ready where none runs. Cancel-safe.
    pub async fn next(&mut self) -> (Fence, Box<Ended>) {
        loop {
            let Some(joined) = self.running.join_next_with_id().await else {
                pending().await
            };
            let (id, ended) = match joined {
                Ok((id, ended)) => (id, ended),
                Err(error) => {
                    tracing::error!(%error, "an executor failed");
                    (error.id(), failed())
                }
            };
            if let Some(fence) = self.fences.remove(&id) {
                self.stops.remove(&fence);
                return (fence, ended);
            }
        }
    }

    /// Kills whatever still runs, and ends the threads.
    pub async fn shutdown(mut self) {
        self.fences
            .values()
            .for_each(|fence| self.end(*fence, Urgency::AtOnce));
        let all = async { while self.running.join_next().await.is_some() {} };
        if tokio::time::timeout(LAST_RITES, all).await.is_err() {
            tracing::error!("left attempts behind that could not be killed");
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        // A runtime may not be dropped where it could block.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A panic of ours: the sweeper ends what it left.
fn failed() -> Box<Ended> {
    Box::new(Ended {
        exit: Exit::Lost("a fault of the agent ended it".to_owned()),
        captured: Captured::default(),
        started_at: clock::wall(),
        finished_at: clock::wall(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_ours_is_the_agents_trouble_and_no_end_of_the_task() {
        assert!(matches!(failed().exit, Exit::Lost(_)));
    }
}
