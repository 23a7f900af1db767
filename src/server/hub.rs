//! Wakes those who wait for a task, and remembers which attempts run.
//!
//! Whoever waits registers under its one task, so an applied event costs one look-up and wakes
//! only those that asked for it. A bell that rings says "look again", never what happened: the
//! waiter reads the applied state, so no ring can be lost, repeated or stale.
//!
//! Which attempts run is soft state that agents report to every controller; the log knows only
//! assignments and ends. An entry leaves with the event that ends its attempt. What is reported
//! before its assignment was applied here waits apart, bounded for each agent, and counts once the
//! assignment is applied: so nobody can make up what runs.
//!
//! A snapshot that replaces the state brings no events. [`Hub::recheck`] finds what was missed then.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::{AgentId, Epoch, Event, Fence, State, TaskId};
use tokio::sync::Notify;

/// Reports of one agent that are ahead of the log here: one for each attempt that it could begin
/// while a follower is behind.
const AHEAD_MAX: usize = 1_024;

/// What a waiter wants to be woken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wants {
    /// The end of the task.
    End,
    /// Every step of it.
    Change,
}

#[derive(Debug)]
struct Waiter {
    wants: Wants,
    bell: Arc<Notify>,
}

/// Waiters by task, and the attempts that run.
#[derive(Debug, Default)]
pub struct Hub {
    waiters: Mutex<HashMap<TaskId, Vec<Waiter>>>,
    /// Told of the first waiter after a time without any.
    awaited: Notify,
    running: Mutex<Running>,
}

#[derive(Debug, Default)]
struct Running {
    /// Live attempts that were reported to run.
    live: HashMap<TaskId, Epoch>,
    /// Reports of attempts that were not applied here yet.
    ahead: HashMap<AgentId, HashMap<TaskId, Epoch>>,
}

/// A registration; it ends when dropped.
#[derive(Debug)]
pub struct Interest {
    hub: Arc<Hub>,
    task: TaskId,
    bell: Arc<Notify>,
}

impl Interest {
    /// Until the bell has rung since the last call (or since the registration).
    pub async fn rung(&self) {
        self.bell.notified().await;
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        let mut waiters = locked(&self.hub.waiters);
        if let Entry::Occupied(mut entry) = waiters.entry(self.task) {
            entry
                .get_mut()
                .retain(|waiter| !Arc::ptr_eq(&waiter.bell, &self.bell));
            if entry.get().is_empty() {
                entry.remove();
            }
        }
    }
}

/// Waiting.
impl Hub {
    /// Registers first, so that the caller may then look at the state without missing a step.
    pub fn watch(self: &Arc<Hub>, task: TaskId, wants: Wants) -> Interest {
        let bell = Arc::new(Notify::new());
        let waiter = Waiter {
            wants,
            bell: Arc::clone(&bell),
        };
        let first = {
            let mut waiters = locked(&self.waiters);
            let first = waiters.is_empty();
            waiters.entry(task).or_default().push(waiter);
            first
        };
        if first {
            self.awaited.notify_one();
        }
        Interest {
            hub: Arc::clone(self),
            task,
            bell,
        }
    }

    /// After `events` were applied.
    pub fn applied(&self, events: &[Event]) {
        self.follow_attempts(events);
        let waiters = locked(&self.waiters);
        if waiters.is_empty() {
            return;
        }
        for event in events {
            if let Some((task, happened)) = step_of(event) {
                ring(&waiters, task, happened);
            }
        }
    }

    /// Rings for every task that has ended and for all that want changes. For what was applied
    /// without events.
    pub fn recheck(&self, state: &State) {
        for (task, waiters) in locked(&self.waiters).iter() {
            let ended = state.task(*task).is_none_or(model::Task::is_terminal);
            let due = waiters
                .iter()
                .filter(|waiter| ended || waiter.wants == Wants::Change);
            due.for_each(|waiter| waiter.bell.notify_one());
        }
        locked(&self.running).recheck(state);
    }

    pub fn waiting(&self) -> usize {
        locked(&self.waiters).len()
    }

    /// Until somebody waits, where nobody did. For one caller, who looks at `waiting` before.
    pub async fn awaited(&self) {
        self.awaited.notified().await;
    }
}

/// Running.
impl Hub {
    /// An agent says that this attempt runs. `view` gives the newest applied state; it is read
    /// under our lock, so that the event that ends the attempt can't come in between.
    pub fn started(&self, agent: &AgentId, fence: Fence, view: impl FnOnce() -> Arc<State>) {
        let fresh = {
            let mut running = locked(&self.running);
            if running.live.get(&fence.task) == Some(&fence.epoch) {
                return;
            }
            running.report(&view(), agent, fence)
        };
        if fresh {
            ring(&locked(&self.waiters), fence.task, Wants::Change);
        }
    }

    /// Whether the task's live attempt is known to run. Its assignment may be in the state whose task this
    /// is, and its event not have been heard here.
    pub fn is_running(&self, task: &model::Task) -> bool {
        let Some(live) = task.live() else {
            return false;
        };
        let running = locked(&self.running);
        let ahead = running.ahead.get(&live.agent);
        let reported = [
            running.live.get(&task.id),
            ahead.and_then(|of_agent| of_agent.get(&task.id)),
        ];
        reported.contains(&Some(&live.epoch))
    }

    pub fn running(&self) -> usize {
        locked(&self.running).live.len()
    }

    fn follow_attempts(&self, events: &[Event]) {
        let mut running = None;
        for event in events {
            match event {
                Event::TaskAssigned { fence, agent, .. } => {
                    let running = running.get_or_insert_with(|| locked(&self.running));
                    running.assigned(agent, *fence);
                }
                Event::AttemptEnded { fence, .. } => {
                    let running = running.get_or_insert_with(|| locked(&self.running));
                    running.ended(*fence);
                }
                Event::TaskQueued { .. }
                | Event::TaskRequeued { .. }
                | Event::CancelRequested { .. }
                | Event::Preempted { .. }
                | Event::TaskEnded { .. }
                | Event::AgentRegistered { .. }
                | Event::AgentLost { .. }
                | Event::AgentCordoned { .. }
                | Event::AgentUncordoned { .. }
                | Event::AgentDraining { .. }
                | Event::DrainExpired { .. }
                | Event::AgentRemoved { .. }
                | Event::BackendSet { .. }
                | Event::NamespaceSet { .. }
                | Event::PolicySet { .. }
                | Event::RuleSet { .. }
                | Event::RuleRemoved { .. }
                | Event::RuleExpired { .. }
                | Event::SegmentDropped { .. } => {}
            }
        }
    }
}

impl Running {
    /// True where it is news that an attempt runs: the agent's own live one.
    fn report(&mut self, state: &State, agent: &AgentId, fence: Fence) -> bool {
        if fence.generation != state.generation() {
            return false;
        }
        if is_live(state, agent, fence.task, fence.epoch) {
            self.live.insert(fence.task, fence.epoch);
            return true;
        }
        let applied = Epoch(state.last_applied());
        if fence.epoch > applied {
            let ahead = self.ahead.entry(agent.clone()).or_default();
            if ahead.len() >= AHEAD_MAX {
                // What the log has passed was no assignment, or has ended.
                ahead.retain(|_, epoch| *epoch > applied);
            }
            if ahead.len() < AHEAD_MAX {
                ahead.insert(fence.task, fence.epoch);
            }
        }
        false
    }

    fn assigned(&mut self, agent: &AgentId, fence: Fence) {
        let Some(ahead) = self.ahead.get_mut(agent) else {
            return;
        };
        if ahead.get(&fence.task) == Some(&fence.epoch) {
            ahead.remove(&fence.task);
            self.live.insert(fence.task, fence.epoch);
        }
        if ahead.is_empty() {
            self.ahead.remove(agent);
        }
    }

    fn ended(&mut self, fence: Fence) {
        if self.live.get(&fence.task) == Some(&fence.epoch) {
            self.live.remove(&fence.task);
        }
    }

    /// The state was replaced: what was missed is taken from it.
    fn recheck(&mut self, state: &State) {
        self.live.retain(|task, epoch| {
            state
                .live_fence(*task)
                .is_some_and(|live| live.epoch == *epoch)
        });
        for (agent, ahead) in &mut self.ahead {
            for (task, epoch) in ahead.iter() {
                if is_live(state, agent, *task, *epoch) {
                    self.live.insert(*task, *epoch);
                }
            }
            ahead.retain(|_, epoch| *epoch > Epoch(state.last_applied()));
        }
        self.ahead.retain(|_, ahead| !ahead.is_empty());
    }
}

fn is_live(state: &State, agent: &AgentId, task: TaskId, epoch: Epoch) -> bool {
    let live = state.task(task).and_then(model::Task::live);
    live.is_some_and(|live| live.epoch == epoch && live.agent == *agent)
}

fn ring(waiters: &HashMap<TaskId, Vec<Waiter>>, task: TaskId, happened: Wants) {
    for waiter in waiters.get(&task).into_iter().flatten() {
        if happened == Wants::End || waiter.wants == Wants::Change {
            waiter.bell.notify_one();
        }
    }
}

/// The task that an event is about, and whether it ended.
fn step_of(event: &Event) -> Option<(TaskId, Wants)> {
    match event {
        Event::TaskEnded { task, .. } => Some((*task, Wants::End)),
        Event::TaskQueued { task } | Event::TaskRequeued { task } => Some((*task, Wants::Change)),
        Event::TaskAssigned { fence, .. }
        | Event::CancelRequested { fence, .. }
        | Event::Preempted { fence, .. } => Some((fence.task, Wants::Change)),
        Event::AttemptEnded { .. }
        | Event::AgentRegistered { .. }
        | Event::AgentLost { .. }
        | Event::AgentCordoned { .. }
        | Event::AgentUncordoned { .. }
        | Event::AgentDraining { .. }
        | Event::DrainExpired { .. }
        | Event::AgentRemoved { .. }
        | Event::BackendSet { .. }
        | Event::NamespaceSet { .. }
        | Event::PolicySet { .. }
        | Event::RuleSet { .. }
        | Event::RuleRemoved { .. }
        | Event::RuleExpired { .. }
        | Event::SegmentDropped { .. } => None,
    }
}

/// Nothing that holds these locks can panic half-way through a change.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use futures::FutureExt;
    use model::{Generation, Incarnation, StateName};

    use super::*;

    const TASK: TaskId = TaskId(7);

    fn fence(epoch: u64) -> Fence {
        Fence {
            task: TASK,
            generation: Generation(0),
            epoch: Epoch(epoch),
        }
    }

    fn agent() -> AgentId {
        AgentId::new("a1").unwrap()
    }

    fn ended() -> Event {
        Event::TaskEnded {
            task: TASK,
            state: StateName::Succeeded,
        }
    }

    fn rang(interest: &Interest) -> bool {
        interest.rung().now_or_never().is_some()
    }

    #[test]
    fn a_bell_rings_for_its_own_task_and_only_for_what_was_wanted() {
        let hub = Arc::new(Hub::default());
        let end = hub.watch(TASK, Wants::End);
        let change = hub.watch(TASK, Wants::Change);
        let other = hub.watch(TaskId(8), Wants::Change);
        hub.applied(&[Event::TaskRequeued { task: TASK }]);
        assert!(!rang(&end) && rang(&change) && !rang(&other));
        hub.applied(&[ended()]);
        assert!(rang(&end) && rang(&change) && !rang(&other));
        assert!(!rang(&end), "one event rings once");
    }

    #[test]
    fn a_ring_before_the_wait_is_not_lost() {
        let hub = Arc::new(Hub::default());
        let end = hub.watch(TASK, Wants::End);
        hub.applied(&[ended()]);
        assert!(rang(&end));
    }

    #[test]
    fn the_first_waiter_is_told_of_also_where_nobody_listens_yet() {
        let hub = Arc::new(Hub::default());
        let told = || hub.awaited().now_or_never().is_some();
        assert!(!told());
        let first = hub.watch(TASK, Wants::End);
        let second = hub.watch(TASK, Wants::End);
        assert!(told() && !told());
        drop((first, second));
        let _third = hub.watch(TASK, Wants::End);
        assert!(told());
    }

    #[test]
    fn a_dropped_interest_leaves_nothing_behind() {
        let hub = Arc::new(Hub::default());
        let first = hub.watch(TASK, Wants::End);
        let second = hub.watch(TASK, Wants::End);
        drop(first);
        assert_eq!(hub.waiting(), 1);
        drop(second);
        assert_eq!(hub.waiting(), 0);
    }

    /// Its assignment, as the log tells it.
    fn assigned(epoch: u64) -> Event {
        Event::TaskAssigned {
            fence: fence(epoch),
            agent: agent(),
            incarnation: Incarnation::default(),
        }
    }

    fn report(hub: &Hub, epoch: u64) {
        hub.started(&agent(), fence(epoch), || Arc::new(State::default()));
    }

    #[test]
    fn an_attempt_that_was_reported_ahead_of_the_log_runs_once_it_is_applied() {
        let hub = Arc::new(Hub::default());
        report(&hub, 5);
        assert_eq!(hub.running(), 0);
        hub.applied(&[assigned(5)]);
        assert_eq!(hub.running(), 1);
    }

    /// A state in which `agent()` holds task 1 under epoch 2.
    fn held() -> State {
        let profile = model::AgentProfile {
            id: agent(),
            incarnation: Incarnation::default(),
            slots: 1,
            labels: BTreeMap::new(),
            version: String::new(),
            limits: String::new(),
            backends: Vec::new(),
            protocol: model::AgentProtocol::FIRST,
            supply: None,
        };
        let principal = |name: &str, role| model::Principal {
            name: name.into(),
            role,
            fingerprint: [0; 32],
        };
        let namespace = model::Namespace::new("default").unwrap();
        let submit = model::Submit {
            spec: model::TaskSpec::process(namespace, vec!["true".into()]),
            request_id: None,
        };
        let placement = model::Placement {
            estimate: None,
            agent: agent(),
            incarnation: Incarnation::default(),
            trace: Arc::new(model::TraceRecord::Open(model::Trace {
                policy_version: 1,
                winner: model::Scored {
                    agent: agent(),
                    score: 0,
                    terms: vec![],
                },
                runners_up: vec![],
                refusals: vec![],
            })),
        };
        let register = model::Op::Client {
            principal: principal("a1", model::Role::Agent),
            command: model::Command::RegisterAgent(profile),
            placement: None,
            held: None,
        };
        let submit = model::Op::Client {
            principal: principal("ada", model::Role::Client),
            command: model::Command::SubmitTask(submit),
            placement: Some(placement),
            held: None,
        };
        let mut state = State::default();
        for (index, op) in [(1, register), (2, submit)] {
            let entry = model::Entry {
                stamp: model::Timestamp(1),
                wall: model::Timestamp(1),
                ops: vec![op],
            };
            let stamped = model::Stamped {
                index,
                term: 1,
                membership: 0,
                entry,
            };
            state.apply(stamped);
        }
        state
    }

    #[test]
    fn an_attempt_runs_for_who_looks_before_its_assignment_was_heard_of() {
        let (hub, state) = (Arc::new(Hub::default()), held());
        let task = state.task(TaskId(1)).unwrap();
        let live = state.live_fence(task.id).unwrap();
        assert!(!hub.is_running(task));
        let earlier = || Arc::new(State::default());
        hub.started(&agent(), live, earlier);
        assert!(hub.is_running(task));
        let other = AgentId::new("liar").unwrap();
        let hub = Arc::new(Hub::default());
        hub.started(&other, live, earlier);
        assert!(!hub.is_running(task), "only its own agent's word counts");
    }

    #[test]
    fn an_attempt_that_has_ended_does_not_run_again_because_of_a_late_report() {
        let hub = Arc::new(Hub::default());
        report(&hub, 5);
        hub.applied(&[assigned(5)]);
        let attempt_ended = Event::AttemptEnded {
            fence: fence(5),
            agent: agent(),
        };
        hub.applied(&[attempt_ended]);
        assert_eq!(hub.running(), 0);
        let mut later = State::default();
        later.note_index(9, 1);
        hub.started(&agent(), fence(5), || Arc::new(later));
        assert_eq!(hub.running(), 0);
    }

    #[test]
    fn fences_that_an_agent_makes_up_are_bounded_and_hide_nothing_of_others() {
        let hub = Arc::new(Hub::default());
        report(&hub, 5);
        hub.applied(&[assigned(5)]);
        let liar = AgentId::new("liar").unwrap();
        for task in 0..2 * AHEAD_MAX as u64 {
            let made_up = Fence {
                task: TaskId(task),
                ..fence(u64::MAX)
            };
            hub.started(&liar, made_up, || Arc::new(State::default()));
        }
        assert_eq!(hub.running(), 1);
        let running = locked(&hub.running);
        assert_eq!(running.ahead[&liar].len(), AHEAD_MAX);
        assert_eq!(running.live[&TASK], Epoch(5));
    }

    #[test]
    fn what_ended_without_events_is_found_by_a_recheck() {
        let hub = Arc::new(Hub::default());
        let end = hub.watch(TASK, Wants::End);
        report(&hub, 5);
        hub.applied(&[assigned(5)]);
        let mut installed = State::default();
        installed.note_index(100, 1);
        hub.recheck(&installed);
        assert!(rang(&end));
        assert_eq!(hub.running(), 0);
    }
}
