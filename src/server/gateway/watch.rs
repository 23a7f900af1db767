//! Watching a task: as it is now, then at every change, until it is terminal.
//!
//! A stream reads the state when its bell rings, so a reader that is slow sees fewer steps, and
//! always the last one.

use std::pin::Pin;

use futures::Stream;
use model::TaskId;
use tonic::{Request, Response, Status};
use wire::status::Failure;
use wire::v1;

use super::found::{Found, has_ended};
use super::request::position_of;
use super::{Deadline, Gateway, failure};
use crate::hub::{Interest, Wants};

type Replies = Pin<Box<dyn Stream<Item = Result<v1::TaskReply, Status>> + Send>>;

struct Watch {
    gateway: Gateway,
    id: TaskId,
    interest: Interest,
    /// It is known to exist there; before, it may not be applied yet.
    index: u64,
    /// What the reader has: the entry that changed it last, and whether it runs.
    shown: Option<(u64, bool)>,
    over: bool,
}

impl Gateway {
    pub(super) async fn watch_task(
        &self,
        request: Request<v1::WatchTaskRequest>,
    ) -> Result<Response<Replies>, Failure> {
        self.reader(&request)?;
        let deadline = Deadline::of(request.metadata());
        let id = TaskId(request.get_ref().id);
        let interest = self.0.hub.watch(id, Wants::Change);
        let (state, position) = self.read(deadline).await?;
        self.find(&state, id).await?;
        let watch = Watch {
            gateway: self.clone(),
            id,
            interest,
            index: position.log_index,
            shown: None,
            over: false,
        };
        let replies = futures::stream::unfold(watch, |mut watch| async move {
            let reply = watch.next().await?;
            Some((reply, watch))
        });
        Ok(Response::new(Box::pin(replies)))
    }
}

impl Watch {
    async fn next(&mut self) -> Option<Result<v1::TaskReply, Status>> {
        while !self.over {
            match self.change().await {
                Ok(Some(reply)) => return Some(Ok(reply)),
                Ok(None) => {}
                Err(failure) => return self.fail(failure),
            }
            tokio::select! {
                () = self.interest.rung() => {}
                () = self.gateway.0.stopping.cancelled() => return self.fail(failure::stopping()),
            }
        }
        None
    }

    /// The task, where it is not as the reader has it.
    async fn change(&mut self) -> Result<Option<v1::TaskReply>, Failure> {
        let controller = &self.gateway.0;
        let state = controller.cluster.view();
        let task = match state.task(self.id) {
            Some(task) => task,
            None if has_ended(&state, self.id) => {
                self.over = true;
                let task = Some(self.gateway.shown(&state, self.id).await?);
                let position = Some(position_of(&state));
                return Ok(Some(v1::TaskReply { position, task }));
            }
            None if state.last_applied() >= self.index => return Err(failure::no_task(self.id)),
            None => return Ok(None),
        };
        let now = (task.last_index, controller.hub.is_running(task));
        if self.shown == Some(now) {
            return Ok(None);
        }
        self.shown = Some(now);
        self.over = task.is_terminal();
        let task = Some(self.gateway.show(&state, &Found::InMemory(task)).await);
        Ok(Some(v1::TaskReply {
            position: Some(position_of(&state)),
            task,
        }))
    }

    fn fail(&mut self, failure: Failure) -> Option<Result<v1::TaskReply, Status>> {
        self.over = true;
        Some(Err(failure.into()))
    }
}
