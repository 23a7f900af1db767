//! The executor of inferences: any OpenAI-compatible server that this agent reaches.
//!
//! ```text
//!  discover ──► Backends (what each offers, how busy it is) ──► the cluster, when that changes
//!                  │ one with the model: by its share, within its limit, not while it is left alone
//!                  ▼
//!  attempt ──► request ──► answer, chunk by chunk ──► the attempt's stdout (kept, and read with offsets)
//!                                     └──► tokens used ──► the verdict
//! ```
//!
//! An answer is output like any other: whoever follows it can go on at another controller, and it never goes through
//! the log. Left out: choosing between agents (the scheduler does), and trying again (the cluster does).

mod answer;
mod api;
mod backends;
mod balance;
mod discover;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use model::{Backend, BackendSettings};
use tokio::sync::watch;

use crate::config::{BackendConfig, Invalid};
use crate::executor::{Attempt, Executor, Exit, Hands, Urgency};

use self::backends::Backends;
use self::balance::Told;

#[derive(Clone)]
pub(crate) struct OpenAi {
    backends: Arc<Backends>,
}

impl OpenAi {
    /// Nothing is asked before [`OpenAi::watch`] runs.
    pub fn new(configs: &[BackendConfig]) -> Result<OpenAi, Invalid> {
        let backends = Arc::new(Backends::new(configs)?);
        Ok(OpenAi { backends })
    }

    /// Looks at what the back ends offer, until it is dropped.
    pub fn watch(&self) -> impl Future<Output = ()> + Send + 'static {
        discover::watch_all(Arc::clone(&self.backends))
    }

    /// Whether some run on this machine.
    pub fn are_here(&self) -> bool {
        self.backends.are_here()
    }

    /// What administrators set for them.
    pub fn set(&self, settings: &BTreeMap<String, BackendSettings>) {
        self.backends.set(settings);
    }

    /// What the cluster is told of them, as it changes.
    pub fn offered(&self) -> watch::Receiver<Vec<Backend>> {
        self.backends.offered()
    }
}

impl Executor for OpenAi {
    fn run(&self, attempt: Attempt, hands: Hands) -> BoxFuture<'static, Exit> {
        Box::pin(run(Arc::clone(&self.backends), attempt, hands))
    }
}

async fn run(backends: Arc<Backends>, attempt: Attempt, hands: Hands) -> Exit {
    let Hands {
        output,
        started,
        mut stop,
    } = hands;
    let Some(inference) = &attempt.spec.inference else {
        return Exit::Impossible("it is not an inference".to_owned());
    };
    if *stop.borrow() > Urgency::None {
        return Exit::Prevented;
    }
    let limit = attempt
        .spec
        .timeout
        .map(|span| Duration::from_millis(span.0));
    // It has not begun, so its time does not run; and it does not fail for having to wait.
    let chosen = tokio::select! {
        biased;
        _ = stop.wait_for(|urgency| *urgency > Urgency::None) => return Exit::Prevented,
        chosen = backends.choose(&inference.model) => chosen,
    };
    let Some(mut chosen) = chosen else {
        // Nothing was asked. The cluster is told that it is not offered any more, if it was not yet.
        tracing::info!(model = %inference.model, "no back end offers it any more");
        return Exit::Prevented;
    };
    started(None);
    // What is dropped closes its connection, by which a back end hears that nobody waits for the answer.
    let exit = tokio::select! {
        biased;
        // The sender goes only with the runner.
        _ = stop.wait_for(|urgency| *urgency > Urgency::None) => Exit::Stopped,
        () = after(limit) => Exit::TimedOut,
        exit = answer::ask(&chosen, inference, &output) => exit,
    };
    chosen.tell(told_by(&exit));
    exit
}

/// What the end of a request tells of its back end. That it refused one says nothing of how it is; nor does the time limit of
/// a task, which whoever submits it may set as short as he likes.
fn told_by(exit: &Exit) -> Told {
    match exit {
        Exit::Answered(_) => Told::Answered,
        Exit::Failed(_) => Told::Failed,
        Exit::Exited(_)
        | Exit::Signalled(_)
        | Exit::TimedOut
        | Exit::Impossible(_)
        | Exit::Stopped
        | Exit::NotStarted(_)
        | Exit::Unable(_)
        | Exit::Prevented
        | Exit::Unfetched(_)
        | Exit::Lost(_) => Told::Nothing,
    }
}

async fn after(limit: Option<Duration>) {
    match limit {
        Some(limit) => tokio::time::sleep(limit).await,
        None => std::future::pending().await,
    }
}
