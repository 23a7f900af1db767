//! What an agent runs a kind of task with. One trait, one file or folder per executor.

use std::sync::Arc;

use futures::future::BoxFuture;
use model::{Fence, Gpus, TaskSpec, Usage};
use tokio::sync::watch;

use crate::inputs::Staged;
use crate::journal::ProcessMark;
use crate::output::AttemptLog;

/// An attempt that is to run now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    pub fence: Fence,
    /// Counted from 1, for the task to see.
    pub number: u32,
    /// Its GPUs, by their places among the agent's.
    pub gpus: Gpus,
    pub spec: Arc<TaskSpec>,
    /// For its directory.
    pub files: Option<Arc<Staged>>,
}

/// How urgently an attempt has to end; it only ever rises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Let it run.
    None,
    /// Ask it to end, and end it after the grace.
    Gently,
    /// The lease is gone: not one instruction more.
    AtOnce,
}

/// How an attempt ended, as its executor saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    Exited(i32),
    Signalled(i32),
    TimedOut,
    /// A back end gave its whole answer, and counted its tokens if it does.
    Answered(Option<Usage>),
    /// It failed without a code, in plain words; another try may do better.
    Failed(String),
    /// It can't be done, however often it is tried, in plain words.
    Impossible(String),
    /// It was told to, through [`Urgency`].
    Stopped,
    /// The task can't be started, in plain words.
    NotStarted(String),
    /// The agent can't start anything, in plain words. Nothing of it ran.
    Unable(String),
    /// What it needs could not be had, in plain words. Nothing of it ran; it need not be tried at once.
    Unfetched(String),
    /// It was told to end before anything of it ran.
    Prevented,
    /// It ran, or may have, and the agent can't say how it ended, in plain words: its own trouble, too.
    Lost(String),
}

/// What an executor is given with an attempt.
pub(crate) struct Hands {
    pub output: Arc<AttemptLog>,
    /// Called once, when it runs: with its process, where it has one.
    pub started: Box<dyn FnOnce(Option<ProcessMark>) + Send>,
    pub stop: watch::Receiver<Urgency>,
}

/// Runs attempts of one kind.
pub(crate) trait Executor: Send + Sync {
    /// Comes back when nothing of the attempt runs any more.
    fn run(&self, attempt: Attempt, hands: Hands) -> BoxFuture<'static, Exit>;
}
