//! A task where it is: in memory, or in the archive. Every verb looks here, so that nobody can tell from an answer
//! which of the two it was.

use model::{Archived, State, Task, TaskId, TaskRecord};
use wire::status::Failure;
use wire::v1;

use super::{Gateway, failure};

/// A task that was looked for and is there.
pub enum Found<'s> {
    InMemory(&'s Task),
    Archived(Box<TaskRecord>),
}

impl Found<'_> {
    pub fn task(&self) -> &Task {
        match self {
            Found::InMemory(task) => task,
            Found::Archived(record) => &record.task,
        }
    }
}

impl Gateway {
    pub(super) async fn find<'s>(
        &self,
        state: &'s State,
        id: TaskId,
    ) -> Result<Found<'s>, Failure> {
        if let Some(task) = state.task(id) {
            return Ok(Found::InMemory(task));
        }
        let record = self.archived(state, id).await?;
        record
            .map(Found::Archived)
            .ok_or_else(|| failure::no_task(id))
    }

    /// Only where it left this state.
    pub(super) async fn archived(
        &self,
        state: &State,
        id: TaskId,
    ) -> Result<Option<Box<TaskRecord>>, Failure> {
        let record = self.0.cluster.archived_task(state, id).await;
        record.map_err(|error| failure::of_raft(&error))
    }

    /// Its message, with what is kept beside the log.
    pub(super) async fn show(&self, state: &State, found: &Found<'_>) -> v1::Task {
        let mut shown = self.row(state, found);
        self.0.fill(&mut shown).await;
        match found {
            Found::InMemory(task) => {
                if let Some(spec) = state.spec(task.id) {
                    self.0.fill_spec(&mut shown, &spec).await;
                }
            }
            Found::Archived(record) => self.0.fill_spec(&mut shown, &record.spec).await,
        }
        shown
    }

    /// What of it is in memory, or in its record.
    pub(super) fn row(&self, state: &State, found: &Found<'_>) -> v1::Task {
        match found {
            Found::InMemory(task) => self.0.task(state, task),
            Found::Archived(record) => wire::convert::archived_task(record),
        }
    }

    /// A task's message, wherever the task is.
    pub(super) async fn shown(&self, state: &State, id: TaskId) -> Result<v1::Task, Failure> {
        let found = self.find(state, id).await?;
        Ok(self.show(state, &found).await)
    }
}

/// What is in the archive has ended.
pub fn has_ended(state: &State, id: TaskId) -> bool {
    match state.task(id) {
        Some(task) => task.is_terminal(),
        None => state.archived(id) == Archived::Left,
    }
}
