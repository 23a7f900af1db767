//! Lists of tasks: newest first, filtered, in pages.
//!
//! A page ends at its limit, at so many bytes, or after so many records looked at; whichever it
//! was, `next` says from where to go on. So a page may be short, even empty, and not the last.

use model::{Namespace, State, StateName, Task, TaskId, TaskRecord, Timestamp};
use tonic::{Request, Response};
use wire::status::{Code, Failure};
use wire::v1;

use super::found::Found;
use super::{Deadline, Gateway, failure};
use crate::limit;

/// What a caller wants to see.
struct Filter {
    request: v1::ListTasksRequest,
    states: Vec<v1::TaskState>,
}

impl Gateway {
    pub(super) async fn list_tasks(
        &self,
        request: Request<v1::ListTasksRequest>,
    ) -> Result<Response<v1::ListTasksReply>, Failure> {
        self.reader(&request)?;
        let deadline = Deadline::of(request.metadata());
        let filter = Filter::of(request.into_inner())?;
        let reply = if filter.request.stale {
            let (state, position) = self.stale();
            self.page(&state, position, &filter).await?
        } else {
            let (state, position) = self.read(deadline).await?;
            self.page(&state, position, &filter).await?
        };
        Ok(Response::new(reply))
    }

    async fn page(
        &self,
        state: &State,
        position: v1::Position,
        filter: &Filter,
    ) -> Result<v1::ListTasksReply, Failure> {
        let is_running = |task: &Task| self.0.hub.is_running(task);
        let mut page = Page::new(filter, limit::SCAN_MAX);
        let mut before = filter.before();
        if let Some(below) = before.take_if(|_| filter.is_of_live_tasks()) {
            // None of them is in the archive.
            page.add(state, filter, below, None, Vec::new(), is_running);
        }
        while let Some(below) = before {
            let most = limit::ARCHIVE_PAGE;
            let archived = self.0.cluster.archived_tasks(state, below, most).await;
            let archived = archived.map_err(|error| failure::of_raft(&error))?;
            // Older tasks in memory come after those that the archive has beyond this page.
            let raft::TasksPage { tasks, floor } = archived;
            let more = page.add(state, filter, below, floor, tasks, is_running);
            before = floor.filter(|_| more == More::Wanted);
        }
        let mut tasks = Vec::with_capacity(page.tasks.len());
        for found in &page.tasks {
            let mut row = self.row(state, found);
            self.0.fill(&mut row).await;
            tasks.push(row);
        }
        Ok(v1::ListTasksReply {
            position: Some(position),
            tasks,
            next: page.next.map_or(0, |id| id.0),
        })
    }
}

struct Page<'s> {
    tasks: Vec<Found<'s>>,
    /// Only tasks older than this were not looked at.
    next: Option<TaskId>,
    last: Option<TaskId>,
    /// Tasks, bytes, and records looked at, that it still has room for.
    room: (usize, usize, usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum More {
    Wanted,
    Full,
}

impl<'s> Page<'s> {
    fn new(filter: &Filter, scan: usize) -> Page<'s> {
        Page {
            tasks: Vec::new(),
            next: None,
            last: None,
            room: (filter.limit(), limit::PAGE_MAX_BYTES, scan),
        }
    }

    /// Adds the tasks between `floor` and `below`, the newest first, wherever they are.
    fn add(
        &mut self,
        state: &'s State,
        filter: &Filter,
        below: TaskId,
        floor: Option<TaskId>,
        archived: Vec<TaskRecord>,
        is_running: impl Fn(&Task) -> bool,
    ) -> More {
        let archived = archived.into_iter().map(Box::new);
        let mut archived = archived.map(Found::Archived).peekable();
        let in_memory = state
            .tasks_newest_first(Some(below))
            .take_while(|task| floor.is_none_or(|floor| task.id >= floor));
        let mut in_memory = in_memory.map(Found::InMemory).peekable();
        loop {
            let newer = |one: &Found<'_>, other: &Found<'_>| one.task().id > other.task().id;
            let next = match (in_memory.peek(), archived.peek()) {
                (Some(one), Some(other)) if newer(other, one) => archived.next(),
                (Some(_), _) => in_memory.next(),
                (None, _) => archived.next(),
            };
            let Some(found) = next else {
                return More::Wanted;
            };
            let (tasks, bytes, scan) = self.room;
            if tasks == 0 || bytes == 0 || scan == 0 {
                self.next = self.last;
                return More::Full;
            }
            self.room.2 -= 1;
            self.last = Some(found.task().id);
            if filter.admits(state, &found, is_running(found.task())) {
                self.room.0 -= 1;
                self.room.1 = bytes.saturating_sub(size(state, &found));
                self.tasks.push(found);
            }
        }
    }
}

impl Filter {
    fn of(request: v1::ListTasksRequest) -> Result<Filter, Failure> {
        let mut states = Vec::with_capacity(request.states.len());
        for number in &request.states {
            let state = v1::TaskState::try_from(*number);
            states.push(state.map_err(|_| {
                Failure::new(
                    Code::Invalid,
                    format!("{number} is not the state of a task"),
                )
            })?);
        }
        Ok(Filter { request, states })
    }

    /// Only older tasks are wanted.
    /// Whether only tasks are wanted that have not ended.
    fn is_of_live_tasks(&self) -> bool {
        let live = |state: &v1::TaskState| {
            matches!(
                state,
                v1::TaskState::Queued | v1::TaskState::Assigned | v1::TaskState::Running
            )
        };
        !self.states.is_empty() && self.states.iter().all(live)
    }

    fn before(&self) -> Option<TaskId> {
        match self.request.page {
            0 => Some(TaskId(u64::MAX)),
            page => Some(TaskId(page)),
        }
    }

    fn limit(&self) -> usize {
        match self.request.limit {
            0 => limit::PAGE_DEFAULT,
            given => usize::try_from(given).map_or(limit::PAGE_MAX, |n| n.min(limit::PAGE_MAX)),
        }
    }

    fn admits(&self, state: &State, found: &Found<'_>, running: bool) -> bool {
        let task = found.task();
        let wanted = |given: &str, is: &str| given.is_empty() || given == is;
        let latest = task
            .latest
            .as_ref()
            .map_or("", |attempt| attempt.agent.as_str());
        self.admits_state(task.state(), running)
            && wanted(&self.request.user, &task.user)
            && wanted(&self.request.kind, task.kind.as_str())
            && wanted(&self.request.agent, latest)
            && task.submitted_at >= Timestamp(self.request.since)
            && (self.request.namespace.is_empty()
                || namespace_of(state, found)
                    .is_some_and(|it| it.as_str() == self.request.namespace))
    }

    fn admits_state(&self, state: StateName, running: bool) -> bool {
        self.states.is_empty()
            || self.states.iter().any(|wanted| match wanted {
                v1::TaskState::Running => running,
                v1::TaskState::Assigned => state == StateName::Assigned && !running,
                other => wire::convert::states(*other).contains(&state),
            })
    }
}

fn namespace_of(state: &State, found: &Found<'_>) -> Option<Namespace> {
    match found {
        Found::InMemory(task) => state.spec(task.id).map(|spec| spec.namespace.clone()),
        Found::Archived(record) => Some(record.spec.namespace.clone()),
    }
}

/// About how many bytes a task takes in an answer.
fn size(state: &State, found: &Found<'_>) -> usize {
    // What is filled in from beside the log counts, too.
    let shown = |outcome: &model::Outcome| {
        let blobs = outcome.blob_refs().map(|blob| blob.size);
        let filled: u64 = blobs.filter(|size| *size <= limit::FILLED_BYTES).sum();
        outcome.size() + usize::try_from(filled).unwrap_or(usize::MAX)
    };
    let (spec, result) = match found {
        Found::InMemory(task) => {
            let spec = state.spec(task.id).map_or(0, |spec| spec.size());
            (spec, state.result(task.id).map_or(0, |it| shown(&it)))
        }
        Found::Archived(record) => {
            let result = record.result.as_ref();
            (record.spec.size(), result.map_or(0, shown))
        }
    };
    256 + spec + result
}

#[cfg(test)]
mod tests {
    use model::{
        Command, Entry, Generation, Op, Principal, Role, Stamped, Submit, SystemCommand, TaskSpec,
    };

    use super::*;

    /// Ten tasks, `t1` to `t10`, of two users in turn, in a namespace that goes with the user.
    fn ten() -> State {
        let submit = |n: u64| {
            let (user, namespace) = if n.is_multiple_of(2) {
                ("eve", "even")
            } else {
                ("odo", "odd")
            };
            let namespace = Namespace::new(namespace).unwrap();
            let spec = TaskSpec::process(namespace, vec!["true".into()]);
            Op::Client {
                principal: Principal {
                    name: user.into(),
                    role: Role::Client,
                    fingerprint: [0; 32],
                },
                command: Command::SubmitTask(Submit {
                    spec,
                    request_id: None,
                }),
                placement: None,
                held: None,
            }
        };
        let found = SystemCommand::Found {
            cluster_id: "q1".into(),
            generation: Generation(1),
        };
        let mut state = State::default();
        for (index, op) in [Op::System(found)]
            .into_iter()
            .chain((1..=10).map(submit))
            .enumerate()
        {
            let index = index as u64 + 1;
            let at = Timestamp(index * 1_000);
            let entry = Entry {
                stamp: at,
                wall: at,
                ops: vec![op],
            };
            state.apply(Stamped {
                index,
                term: 1,
                membership: 0,
                entry,
            });
        }
        assert_eq!(state.task_count(), 10);
        state
    }

    fn filter(change: impl FnOnce(&mut v1::ListTasksRequest)) -> Filter {
        let mut request = v1::ListTasksRequest::default();
        change(&mut request);
        Filter::of(request).unwrap()
    }

    fn ids(page: &Page<'_>) -> Vec<u64> {
        page.tasks.iter().map(|found| found.task().id.0).collect()
    }

    fn page<'s>(
        state: &'s State,
        filter: &Filter,
        is_running: impl Fn(&Task) -> bool,
        scan: usize,
    ) -> Page<'s> {
        let mut page = Page::new(filter, scan);
        let before = filter.before().unwrap();
        page.add(state, filter, before, None, Vec::new(), is_running);
        page
    }

    #[test]
    fn pages_follow_each_other_without_gap_or_overlap_until_none_is_left() {
        let state = ten();
        let mut seen = Vec::new();
        let mut from = 0;
        loop {
            let filter = filter(|request| (request.limit, request.page) = (3, from));
            let found = page(&state, &filter, |_| false, 100);
            seen.push(ids(&found));
            match found.next {
                Some(next) => from = next.0,
                None => break,
            }
        }
        assert_eq!(
            seen,
            [vec![10, 9, 8], vec![7, 6, 5], vec![4, 3, 2], vec![1]]
        );
    }

    #[test]
    fn filters_are_joined_by_and() {
        let state = ten();
        let found = |filter: Filter| ids(&page(&state, &filter, |task| task.id.0 == 4, 100));
        assert_eq!(
            found(filter(|request| request.user = "eve".into())),
            [10, 8, 6, 4, 2]
        );
        assert_eq!(
            found(filter(|request| request.namespace = "odd".into())),
            [9, 7, 5, 3, 1]
        );
        assert!(
            found(filter(|request| {
                request.user = "eve".into();
                request.namespace = "odd".into();
            }))
            .is_empty()
        );
        assert_eq!(found(filter(|request| request.since = 10_000)), [10, 9]);
        assert_eq!(
            found(filter(|request| request.kind = "process".into())).len(),
            10
        );
        assert!(found(filter(|request| request.agent = "a1".into())).is_empty());
        let running = v1::TaskState::Running.into();
        assert_eq!(found(filter(|request| request.states = vec![running])), [4]);
        let queued = v1::TaskState::Queued.into();
        assert_eq!(
            found(filter(|request| request.states = vec![queued])).len(),
            10
        );
    }

    #[test]
    fn a_long_search_stops_and_says_where_to_go_on() {
        let state = ten();
        let request = filter(|request| request.user = "nobody".into());
        let found = page(&state, &request, |_| false, 4);
        assert!(found.tasks.is_empty());
        assert_eq!(found.next, Some(TaskId(7)));
    }

    #[test]
    fn a_state_that_does_not_exist_is_refused_and_a_limit_is_capped() {
        let request = v1::ListTasksRequest {
            states: vec![99],
            ..Default::default()
        };
        assert!(Filter::of(request).is_err());
        assert_eq!(
            filter(|request| request.limit = 5_000_000).limit(),
            limit::PAGE_MAX
        );
        assert_eq!(filter(|_| ()).limit(), limit::PAGE_DEFAULT);
    }
}
