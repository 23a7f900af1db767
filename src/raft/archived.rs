//! What left memory, through the handle of a member: reads of the archive, off the caller's thread, and the task
//! that completes it after a start.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use model::{Archived, State, TaskId, TaskRecord};
use openraft::Raft;
use openraft_rt_tokio::TokioRuntime;

use crate::archive::{Archive, EventsPage};
use crate::cluster::Cluster;
use crate::consensus::Types;
use crate::error::Error;
use crate::machine::{Machine, Published};
use crate::membership::{effective, others};
use crate::network::segments::Fetcher;

/// Pause before what the archive lacks is looked for again.
const PAUSE: Duration = Duration::from_secs(5);

/// Some of the archive's tasks, the newest first.
#[derive(Debug)]
pub struct TasksPage {
    pub tasks: Vec<TaskRecord>,
    /// There may be older ones than this.
    pub floor: Option<TaskId>,
}

impl Cluster {
    /// A task that is not in this state any more, if the archive still has it. Whatever left a state that was
    /// published is found.
    pub async fn archived_task(
        &self,
        state: &State,
        id: TaskId,
    ) -> Result<Option<Box<TaskRecord>>, Error> {
        match state.archived(id) {
            Archived::Never => Ok(None),
            Archived::Left => {
                let state = state.clone();
                self.look(move |archive| archive.task(&state, id)).await
            }
        }
    }

    /// Archived tasks older than `before`, the newest first, of at most `limit` that were looked at. Those that
    /// are still in the state that is asked with, which is a little older than the archive, are left out.
    pub async fn archived_tasks(
        &self,
        state: &State,
        before: TaskId,
        limit: usize,
    ) -> Result<TasksPage, Error> {
        let state = state.clone();
        self.look(move |archive| {
            let found = archive.tasks_below(&state, before, limit)?;
            let floor = found.last().map(|record| record.task.id);
            let floor = floor.filter(|_| found.len() >= limit);
            let mut tasks = found;
            tasks.retain(|record| state.task(record.task.id).is_none());
            Ok(TasksPage { tasks, floor })
        })
        .await
    }

    /// Events of entries from `from` on that are applied here, at most `limit` entries with events; `None`
    /// where some of them are not kept any more.
    pub async fn events(&self, from: u64, limit: usize) -> Result<Option<EventsPage>, Error> {
        let state = self.view();
        if from < state.archived_from() {
            return Ok(None);
        }
        self.look(move |archive| archive.events(&state, from, limit))
            .await
    }

    /// Until the entry at `index` is applied here, however long that takes.
    pub async fn reached(&self, index: u64) -> Result<(), Error> {
        let mut applied = self.published().applied();
        let reached = applied.wait_for(|at| at.is_some_and(|id| id.index >= index));
        reached.await.map(|_| ()).map_err(|_| Error::stopping())
    }

    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Archive) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let archive = self.archive();
        let looked = tokio::task::spawn_blocking(move || look(&archive)).await;
        let found = looked.map_err(|_| Error::stopping())?;
        // Not here yet, or not readable: another member has the same.
        found.map_err(|error| Error::busy(error.to_string()))
    }
}

/// What a lost or damaged file took from the archive comes from another member.
pub async fn keep_whole(
    segments: Fetcher,
    raft: Raft<Types<TokioRuntime>, Machine<TokioRuntime>>,
    published: Arc<Published>,
) {
    loop {
        let lacks = segments.archive.lacks(&published.view().state);
        if lacks.is_empty() {
            // Told, or by itself: what is told may come before the view that names it.
            tokio::time::timeout(PAUSE, segments.archive.lost())
                .await
                .ok();
            continue;
        }
        let others = others(&effective(&raft), segments.dialer.me().id, None);
        if let Err(error) = segments.repair(lacks, &others).await {
            tracing::warn!(%error, "the archive is not complete here");
        }
        if !segments.archive.lacks(&published.view().state).is_empty() {
            tokio::time::sleep(PAUSE).await;
        }
    }
}
