//! Tasks: the service, with submit and cancel. What is longer has a file of its own.

use std::pin::Pin;
use std::time::Duration;

use dispatch::Refusal;
use failpoint::Point;
use futures::Stream;
use model::{Command, Principal, Rejected, RequestId, Submit, TaskId};
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};
use wire::status::{Code, Failure};
use wire::v1;

use super::found::Found;
use super::request::Hop;
use super::{Deadline, Gateway, failure};
use crate::callers::Caller;
use crate::dispatcher::{Accepted, Answer as Answered};
use crate::hub::Wants;
use crate::limit;

type Answer<T> = Result<Response<T>, Status>;
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl v1::tasks_server::Tasks for Gateway {
    type LogsStream = Answers<v1::LogChunk>;
    type SubmitAllStream = Answers<v1::SubmitAllReply>;
    type WatchStream = Answers<v1::TaskReply>;

    async fn submit(&self, request: Request<v1::SubmitRequest>) -> Answer<v1::SubmitReply> {
        self.0.metrics.submits.inc();
        let caller = self.0.caller(&request)?;
        let alarm = Deadline::set(request.metadata());
        let message = request.into_inner();
        Ok(self.submit_task(&caller, alarm, message).await?)
    }

    async fn submit_all(
        &self,
        request: Request<Streaming<v1::SubmitRequest>>,
    ) -> Answer<Self::SubmitAllStream> {
        Ok(self.submit_tasks(request)?)
    }

    async fn get(&self, request: Request<v1::GetTaskRequest>) -> Answer<v1::TaskReply> {
        Ok(self.get_task(request).await?)
    }

    async fn list(&self, request: Request<v1::ListTasksRequest>) -> Answer<v1::ListTasksReply> {
        Ok(self.list_tasks(request).await?)
    }

    async fn wait(&self, request: Request<v1::WaitTaskRequest>) -> Answer<v1::TaskReply> {
        Ok(self.wait_task(request).await?)
    }

    async fn cancel(&self, request: Request<v1::CancelTaskRequest>) -> Answer<v1::TaskReply> {
        Ok(self.cancel_task(request).await?)
    }

    async fn why(&self, request: Request<v1::WhyRequest>) -> Answer<v1::WhyReply> {
        Ok(self.why_task(request).await?)
    }

    async fn plan(&self, request: Request<v1::PlanRequest>) -> Answer<v1::WhyReply> {
        Ok(self.plan_task(request).await?)
    }

    async fn logs(&self, request: Request<v1::LogsRequest>) -> Answer<Self::LogsStream> {
        Ok(self.task_logs(request).await?)
    }

    async fn watch(&self, request: Request<v1::WatchTaskRequest>) -> Answer<Self::WatchStream> {
        Ok(self.watch_task(request).await?)
    }
}

/// The spec that a request has to carry.
pub(super) fn spec_of(spec: Option<v1::TaskSpec>) -> Result<model::TaskSpec, Failure> {
    let spec = spec.ok_or_else(|| Failure::new(Code::Invalid, "the spec is missing"))?;
    Ok(model::TaskSpec::try_from(spec)?)
}

impl Gateway {
    async fn get_task(
        &self,
        request: Request<v1::GetTaskRequest>,
    ) -> Result<Response<v1::TaskReply>, Failure> {
        self.reader(&request)?;
        let deadline = Deadline::of(request.metadata());
        let v1::GetTaskRequest { id, stale } = *request.get_ref();
        let id = TaskId(id);
        if !stale {
            return self.reply_now(id, deadline).await;
        }
        let (state, position) = self.stale();
        let task = Some(self.shown(&state, id).await?);
        Ok(Response::new(v1::TaskReply {
            position: Some(position),
            task,
        }))
    }

    /// One submit, by a call of its own or on a stream. `alarm`: when its caller gives up, where it said so.
    pub(super) async fn submit_task(
        &self,
        caller: &Caller,
        alarm: Option<Deadline>,
        mut message: v1::SubmitRequest,
    ) -> Result<Response<v1::SubmitReply>, Failure> {
        let deadline = alarm.unwrap_or(Deadline::within(limit::PATIENCE));
        let wait = Duration::from_millis(message.wait_ms).min(limit::WAIT_MAX);
        let spec = spec_of(message.spec.clone())?;
        let named_here = message.request_id.is_empty();
        if named_here {
            message.request_id = uuid::Uuid::new_v4().to_string();
        }
        // Whoever passes it on waits itself: its wait outlives the leader.
        message.wait_ms = 0;
        let submit = Submit {
            spec,
            request_id: Some(RequestId(message.request_id.clone())),
        };
        if submit.spec.inference.is_none() && submit.spec.blobs.bulk.is_some() {
            let text = "only the request of an inference may be put beside its spec";
            return Err(Failure::new(Code::Invalid, text));
        }
        let command = Command::SubmitTask(submit);
        model::access::allows(&caller.principal, &command)?;
        command.validate()?;
        let done = self
            .led(
                caller,
                deadline,
                || self.submit_here(caller.principal.clone(), command.clone()),
                |hop| submit_there(hop, caller, deadline, message.clone()),
            )
            .await;
        let mut reply = done.map_err(|failure| failure.with_request_id(&message.request_id))?;
        // Its own name can't have been used before; a repetition of ours has no meaning outside.
        reply.get_mut().duplicate &= !named_here;
        if !wait.is_zero() {
            // That may take long, and they may be large.
            drop((command, message));
            let until = Instant::now() + wait;
            // What was accepted is told in time, however long it was to be waited for.
            let until = alarm.map_or(until, |alarm| alarm.0.min(until));
            self.wait_submitted(reply.get_mut(), until).await;
        }
        Ok(reply)
    }

    async fn submit_here(
        &self,
        principal: Principal,
        command: Command,
    ) -> Result<v1::SubmitReply, Failure> {
        let accepted = self.submitted(principal, command).await?;
        failpoint::at(Point::ReplyBefore);
        let (id, duplicate) = match accepted.reply {
            model::Reply::Submitted { task, duplicate } => (task, duplicate),
            other => return Err(unexpected(&other)),
        };
        let state = self.0.cluster.view();
        let shown = self.shown(&state, id).await;
        let task = Some(shown.map_err(|failure| match failure.code {
            // Else it would look as if it had never been accepted.
            Code::NoSuchTask => failure::no_record(id),
            _ => failure,
        })?);
        Ok(v1::SubmitReply {
            position: Some(position_of(&accepted)),
            task,
            duplicate,
        })
    }

    /// Where the voters changed after those of before were asked for what the task needs, those of now are asked.
    async fn submitted(&self, principal: Principal, command: Command) -> Result<Accepted, Failure> {
        let mut tries = 0;
        loop {
            let held = self.0.submittable(command.clone()).await?;
            let done = self.0.inputs.request(principal.clone(), held).await;
            tries += 1;
            match done {
                Err(Refusal::Rejected(Rejected::NotHeld)) if tries < limit::HOLD_TRIES => {}
                done => return self.counted(done),
            }
        }
    }

    /// Puts the task's end into the reply if it comes in time. The submit stands whatever happens
    /// here, so nothing here is an error.
    async fn wait_submitted(&self, reply: &mut v1::SubmitReply, until: Instant) {
        let Some(submitted) = &reply.task else { return };
        let (id, index, seen) = (
            TaskId(submitted.id),
            submitted.submit_index,
            submitted.last_index,
        );
        let interest = self.0.hub.watch(id, Wants::End);
        let _ended_or_not = self.ended(id, index, &interest, until).await;
        let state = self.0.cluster.view();
        // The leader may have told more than this controller has applied.
        if let Ok(task) = self.shown(&state, id).await
            && task.last_index >= seen
        {
            reply.task = Some(task);
        }
    }

    async fn cancel_task(
        &self,
        request: Request<v1::CancelTaskRequest>,
    ) -> Result<Response<v1::TaskReply>, Failure> {
        self.ordered(
            request,
            |asked| {
                let task = TaskId(asked.id);
                let reason = asked.reason.clone();
                Ok((task, Command::CancelTask { task, reason }))
            },
            |task, principal, command| self.cancel_here(principal, task, command),
            |hop, asked| async move { hop.tasks().cancel(asked).await },
        )
        .await
    }

    async fn cancel_here(
        &self,
        principal: Principal,
        id: TaskId,
        command: Command,
    ) -> Result<v1::TaskReply, Failure> {
        let accepted = match self.proposed(principal, command).await {
            Err(failure) if failure.code == Code::NoSuchTask => {
                return self.cancel_archived(id, failure).await;
            }
            accepted => accepted?,
        };
        let id = match accepted.reply {
            model::Reply::Cancelled { task } => task,
            other => return Err(unexpected(&other)),
        };
        let state = self.0.cluster.view();
        let task = Some(self.shown(&state, id).await?);
        Ok(v1::TaskReply {
            position: Some(position_of(&accepted)),
            task,
        })
    }

    /// What `apply` would have answered, had the task not left memory.
    async fn cancel_archived(&self, id: TaskId, none: Failure) -> Result<v1::TaskReply, Failure> {
        let state = self.0.cluster.view();
        let record = self.archived(&state, id).await?.ok_or(none)?;
        match record.task.state() {
            model::StateName::Cancelled => Ok(v1::TaskReply {
                position: Some(super::request::position_of(&state)),
                task: Some(self.show(&state, &Found::Archived(record)).await),
            }),
            ended => {
                let state = ended.as_str().to_owned();
                Err(model::Rejected::AlreadyEnded { task: id, state }.into())
            }
        }
    }

    pub(super) async fn proposed(
        &self,
        principal: Principal,
        command: Command,
    ) -> Result<Accepted, Failure> {
        let answer = self.0.inputs.request(principal, (command, None)).await;
        self.counted(answer)
    }

    /// The same of a command that is answered with nothing but that it is done.
    pub(super) async fn done(
        &self,
        principal: Principal,
        command: Command,
    ) -> Result<Accepted, Failure> {
        let accepted = self.proposed(principal, command).await?;
        match accepted.reply {
            model::Reply::Done => Ok(accepted),
            other => Err(unexpected(&other)),
        }
    }

    fn counted(&self, answer: Answered) -> Result<Accepted, Failure> {
        answer.map_err(|refusal| {
            if matches!(refusal, Refusal::Rejected(_)) {
                self.0.metrics.rejections.inc();
            }
            failure::of_refusal(refusal)
        })
    }
}

async fn submit_there(
    hop: Hop,
    caller: &Caller,
    deadline: Deadline,
    message: v1::SubmitRequest,
) -> Answer<v1::SubmitReply> {
    hop.tasks()
        .submit(Hop::pass_on(caller, deadline, message))
        .await
}

pub(super) fn position_of(accepted: &Accepted) -> v1::Position {
    v1::Position {
        log_index: accepted.index,
        term: accepted.term,
        stale: false,
    }
}

/// `apply` answers every command with its own reply.
pub(super) fn unexpected(reply: &model::Reply) -> Failure {
    Failure::new(
        Code::Internal,
        format!("the reply {reply:?} is of another command"),
    )
}
