//! Waiting for the end of a task, by its events.

use model::{StateName, TaskId};
use tokio::time::Instant;
use tonic::{Request, Response};
use wire::status::Failure;
use wire::v1;

use super::found::has_ended;
use super::request::position_of;
use super::{Deadline, Gateway, failure};
use crate::hub::{Interest, Wants};
use crate::limit;

impl Gateway {
    pub(super) async fn wait_task(
        &self,
        request: Request<v1::WaitTaskRequest>,
    ) -> Result<Response<v1::TaskReply>, Failure> {
        self.reader(&request)?;
        let v1::WaitTaskRequest { id, timeout_ms } = *request.get_ref();
        let wait = match timeout_ms {
            0 => limit::WAIT_DEFAULT,
            given => std::time::Duration::from_millis(given),
        };
        let deadline = Deadline::waiting(request.metadata(), wait);
        // With time left for a last look, whose answer is no error.
        let last_look = limit::LAST_LOOK.min(deadline.left() / 4);
        let until = (deadline.0 - last_look).min(Instant::now() + wait.min(limit::WAIT_MAX));
        let id = TaskId(id);
        let interest = self.0.hub.watch(id, Wants::End);
        if let Some(reply) = self.settled(id).await {
            return Ok(Response::new(reply));
        }
        let (state, position) = self.read(deadline.soon()).await?;
        let found = self.find(&state, id).await?;
        let over = found.task().is_terminal();
        if !over && self.ended(id, position.log_index, &interest, until).await? {
            return self.now(id).await;
        }
        // Either it had ended as one whose end may still be settled, or the time is up.
        if over {
            let task = Some(self.show(&state, &found).await);
            return Ok(Response::new(v1::TaskReply {
                position: Some(position),
                task,
            }));
        }
        self.reply_now(id, deadline.soon()).await
    }

    /// The task where its end is final: that can't have changed since it was applied here, so it
    /// needs no quorum.
    async fn settled(&self, id: TaskId) -> Option<v1::TaskReply> {
        let state = self.0.cluster.view();
        let found = self.find(&state, id).await.ok()?;
        match found.task().state() {
            StateName::Succeeded | StateName::Failed | StateName::Cancelled => {}
            StateName::Queued
            | StateName::Assigned
            | StateName::Unknown
            | StateName::DeadLetter => return None,
        }
        let position = Some(position_of(&state));
        Some(v1::TaskReply {
            position,
            task: Some(self.show(&state, &found).await),
        })
    }

    /// Whether the task, which exists at `index`, ended before `until`.
    pub(super) async fn ended(
        &self,
        id: TaskId,
        index: u64,
        interest: &Interest,
        until: Instant,
    ) -> Result<bool, Failure> {
        loop {
            {
                let state = self.0.cluster.view();
                match state.task(id) {
                    _ if has_ended(&state, id) => return Ok(true),
                    None if state.last_applied() >= index => return Err(failure::no_task(id)),
                    // Not ended, or not applied here yet.
                    Some(_) | None => {}
                }
            }
            tokio::select! {
                () = interest.rung() => {}
                () = tokio::time::sleep_until(until) => return Ok(false),
                () = self.0.stopping.cancelled() => return Err(failure::stopping()),
            }
        }
    }

    async fn now(&self, id: TaskId) -> Result<Response<v1::TaskReply>, Failure> {
        let state = self.0.cluster.view();
        let task = Some(self.shown(&state, id).await?);
        Ok(Response::new(v1::TaskReply {
            position: Some(position_of(&state)),
            task,
        }))
    }

    /// The task as it is now, by a quorum.
    pub(super) async fn reply_now(
        &self,
        id: TaskId,
        deadline: Deadline,
    ) -> Result<Response<v1::TaskReply>, Failure> {
        let (state, position) = self.read(deadline).await?;
        let task = Some(self.shown(&state, id).await?);
        Ok(Response::new(v1::TaskReply {
            position: Some(position),
            task,
        }))
    }
}
