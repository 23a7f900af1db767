//! A new task. The request id makes it idempotent: the same id gives the same task for as long as
//! that task's record is kept, and the same id with another spec is refused.

use mutant::Mutant;
use sha2::{Digest, Sha256};

use crate::apply::{Outcome, Step};
use crate::command::{Command, Placement, Reply, RequestId, Submit};
use crate::entry::encode;
use crate::event::Event;
use crate::id::{Namespace, TaskId};
use crate::limit;
use crate::principal::Principal;
use crate::rejected::Rejected;
use crate::requests::{Known, RequestKey};
use crate::spec::TaskSpec;
use crate::state::State;
use crate::task::{Phase, Task};
use crate::time::Timestamp;
use crate::version::StateVersion;

impl State {
    pub(super) fn submit(
        &mut self,
        principal: &Principal,
        submit: Submit,
        placement: Option<Placement>,
        step: &mut Step<'_>,
    ) -> Outcome {
        let Submit { spec, request_id } = submit;
        let request = request_id
            .as_ref()
            .map(|id| request_of(principal, id, &spec));
        if let Some((key, spec)) = &request
            && let Some(known) = self.requests.get(key)
            && !mutant::is(Mutant::NoDedupe)
        {
            return same_request(&known, *spec, request_id.as_ref());
        }
        if !mutant::is(Mutant::QueuedQuotaUnchecked) {
            self.may_queue(&spec.namespace)?;
        }
        self.has_room_for(&spec)?;
        self.has_room_for_blobs(&spec)?;
        if request.is_some() && self.requests.len() >= limit::REQUESTS_MAX {
            return Err(Rejected::over(
                "the window of request ids",
                limit::REQUESTS_MAX,
                "request ids",
            ));
        }
        let id = TaskId(self.meta.last_task.0 + 1);
        self.meta.last_task = id;
        if let Some((key, spec)) = request {
            self.requests.put(key, Known { task: id, spec });
        }
        let mut task = new_task(id, principal, (&spec, request_id), step);
        if self.meta.state_version >= StateVersion::CLASSES {
            task.waits_since = step.now;
        }
        self.write_spec(id, spec);
        step.events.push(Event::TaskQueued { task: id });
        if let Some(placement) = placement {
            // The submit stands whatever becomes of the assignment: it then waits in the queue.
            let _refused_or_done = self.place(&mut task, placement, step);
        }
        self.write_task(task);
        Ok(Reply::Submitted {
            task: id,
            duplicate: false,
        })
    }

    /// Whether this submit, or another one under its request id, was accepted before.
    pub fn knows_request(&self, principal: &Principal, command: &Command) -> bool {
        let Command::SubmitTask(Submit { spec, request_id }) = command else {
            return false;
        };
        let key = |id: &RequestId| request_key(&spec.namespace, &principal.name, &id.0);
        let id = request_id.as_ref();
        id.is_some_and(|id| self.requests.get(&key(id)).is_some())
    }

    fn has_room_for(&self, spec: &TaskSpec) -> Result<(), Rejected> {
        if self.tasks.len() >= limit::TASKS_MAX {
            return Err(Rejected::over(
                "the number of kept tasks",
                limit::TASKS_MAX,
                "tasks",
            ));
        }
        if self.kept_bytes() + spec.size() as u64 > limit::KEPT_MAX_BYTES as u64 {
            return Err(Rejected::over(
                "the size of all kept specs and results",
                limit::KEPT_MAX_BYTES,
                "bytes",
            ));
        }
        Ok(())
    }
}

/// The key under which a task's request id is known.
pub(crate) fn request_of_task(task: &Task, namespace: &Namespace) -> Option<RequestKey> {
    let id = task.request_id.as_ref()?;
    Some(request_key(namespace, &task.user, id))
}

fn same_request(known: &Known, spec: [u8; 16], id: Option<&RequestId>) -> Outcome {
    if known.spec == spec {
        Ok(Reply::Submitted {
            task: known.task,
            duplicate: true,
        })
    } else {
        Err(Rejected::RequestIdReused {
            request_id: id.map(|id| id.0.clone()).unwrap_or_default(),
            task: known.task,
        })
    }
}

fn request_of(principal: &Principal, id: &RequestId, spec: &TaskSpec) -> (RequestKey, [u8; 16]) {
    let key = request_key(&spec.namespace, &principal.name, &id.0);
    (key, spec.identity())
}

impl TaskSpec {
    /// What a request id stands for: the same for the same spec, whatever of it stands beside the log.
    pub fn identity(&self) -> [u8; 16] {
        match &self.blobs.bulk {
            Some(bulk) => bulk.whole,
            None => self.digest(),
        }
    }

    pub(crate) fn digest(&self) -> [u8; 16] {
        half(Sha256::digest(encode(1, self)).into())
    }
}

/// The parts are prefixed by their lengths, so that no two triples run together.
fn request_key(namespace: &Namespace, user: &str, id: &str) -> RequestKey {
    let mut hasher = Sha256::new();
    for part in [namespace.as_str(), user, id] {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    RequestKey(half(hasher.finalize().into()))
}

fn half(digest: [u8; 32]) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&digest[..16]);
    half
}

fn new_task(
    id: TaskId,
    principal: &Principal,
    (spec, request_id): (&TaskSpec, Option<RequestId>),
    step: &Step<'_>,
) -> Task {
    Task {
        id,
        kind: spec.kind(),
        class: spec.class(),
        user: principal.name.as_str().into(),
        phase: Phase::Queued {
            not_before: None,
            reason: String::new(),
        },
        submit_index: step.index,
        last_index: step.index,
        submitted_at: step.wall,
        started_at: None,
        finished_at: None,
        deadline: spec.deadline.map(|span| step.now.plus(span)),
        ended: None,
        attempts: 0,
        failures: 0,
        lost_agents: [].into(),
        settled: None,
        latest: None,
        trace: None,
        request_id: request_id.map(|id| id.0.into()),
        waits_since: Timestamp::default(),
        preemptions: 0,
    }
}
