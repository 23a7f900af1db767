//! Lists of tasks: newest first, filtered, in pages.
//!
//! A page ends at its limit, at so many bytes, or after so many records looked at; whichever it
//! was, `next` says from where to go on. So a page may be short, even empty, and not the last.

use model::{State, StateName, Task, TaskId, Timestamp};
use tonic::{Request, Response};
use wire::status::{Code, Failure};
use wire::v1;

use super::{Deadline, Gateway};
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
            self.page(&state, position, &filter)
        } else {
            let (state, position) = self.read(deadline).await?;
            self.page(&state, position, &filter)
        };
        Ok(Response::new(reply))
    }

    fn page(&self, state: &State, position: v1::Position, filter: &Filter) -> v1::ListTasksReply {
        let is_running = |task: &Task| self.0.hub.is_running(task);
        let page = Page::of(state, filter, is_running, limit::SCAN_MAX);
        let tasks = page
            .tasks
            .iter()
            .map(|task| self.0.task(state, task))
            .collect();
        v1::ListTasksReply {
            position: Some(position),
            tasks,
            next: page.next.map_or(0, |id| id.0),
        }
    }
}

struct Page<'s> {
    tasks: Vec<&'s Task>,
    /// Only tasks older than this were not looked at.
    next: Option<TaskId>,
}

impl<'s> Page<'s> {
    fn of(
        state: &'s State,
        filter: &Filter,
        is_running: impl Fn(&Task) -> bool,
        scan: usize,
    ) -> Page<'s> {
        let before = Some(filter.request.page)
            .filter(|page| *page > 0)
            .map(TaskId);
        let mut page = Page {
            tasks: Vec::new(),
            next: None,
        };
        let mut bytes = 0;
        let mut last = None;
        for (looked_at, task) in state.tasks_newest_first(before).enumerate() {
            let full = page.tasks.len() >= filter.limit() || bytes >= limit::PAGE_MAX_BYTES;
            if full || looked_at >= scan {
                page.next = last;
                break;
            }
            last = Some(task.id);
            if filter.admits(state, task, is_running(task)) {
                bytes += size(state, task);
                page.tasks.push(task);
            }
        }
        page
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

    fn limit(&self) -> usize {
        match self.request.limit {
            0 => limit::PAGE_DEFAULT,
            given => usize::try_from(given).map_or(limit::PAGE_MAX, |n| n.min(limit::PAGE_MAX)),
        }
    }

    fn admits(&self, state: &State, task: &Task, running: bool) -> bool {
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
                || state
                    .spec(task.id)
                    .is_some_and(|spec| spec.namespace.as_str() == self.request.namespace))
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

/// About how many bytes a task takes in an answer.
fn size(state: &State, task: &Task) -> usize {
    let spec = state.spec(task.id).map_or(0, |spec| spec.size());
    let result = state.result(task.id);
    256 + spec + result.map_or(0, |outcome| outcome.stdout.len() + outcome.stderr.len())
}

#[cfg(test)]
mod tests {
    use model::{
        Command, Entry, Generation, Namespace, Op, Principal, Role, Stamped, Submit, SystemCommand,
        TaskSpec,
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
            state.apply(&Stamped {
                index,
                term: 1,
                entry: &entry,
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
        page.tasks.iter().map(|task| task.id.0).collect()
    }

    #[test]
    fn pages_follow_each_other_without_gap_or_overlap_until_none_is_left() {
        let state = ten();
        let mut seen = Vec::new();
        let mut page = 0;
        loop {
            let filter = filter(|request| (request.limit, request.page) = (3, page));
            let found = Page::of(&state, &filter, |_| false, 100);
            seen.push(ids(&found));
            match found.next {
                Some(next) => page = next.0,
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
        let found = |filter: Filter| ids(&Page::of(&state, &filter, |task| task.id.0 == 4, 100));
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
        let found = Page::of(&state, &request, |_| false, 4);
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
