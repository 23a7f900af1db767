//! Books of who holds what, kept from replies and events alone.
//!
//! They do not look into the state: who is registered, closed, lost, and how many attempts it holds is counted here once
//! more, so that a mistake in the state's own counting does not excuse itself.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use model::{
    AddRule, AgentId, AgentProfile, Command, Disposition, Event, Fence, Incarnation, Op, Rejected,
    Reply, SetNamespace, StateName, Submit, TaskId, TaskSpec, Timestamp, Verdict,
};

use super::Step;
use super::book::Book;
use super::lines::{Asker, Lines};
use super::machine::Machine;
use super::orders::Orders;
use super::quotas::Quotas;
use crate::checkers::violation::{Invariant, Kind, Violation};
use crate::history::{History, Moment, Operation};

#[derive(Debug)]
pub struct Ledger {
    tasks: BTreeMap<TaskId, Known>,
    agents: BTreeMap<AgentId, Machine>,
    requests: BTreeMap<(String, String, String), TaskId>,
    /// Tasks that were never assigned.
    lines: Lines,
    quotas: Quotas,
    orders: Orders,
    /// When a submit was asked for and when it was answered, by its task.
    known_since: BTreeMap<TaskId, (Moment, Moment)>,
    assigned: BTreeMap<(u64, u64), AgentId>,
    at_most_once: BTreeSet<u64>,
}

/// What an entry was told that its events only name.
#[derive(Default)]
struct Told<'a> {
    profiles: VecDeque<&'a AgentProfile>,
    settings: VecDeque<&'a SetNamespace>,
    rules: VecDeque<&'a AddRule>,
}

impl<'a> Told<'a> {
    fn take(&mut self, command: &'a Command) {
        match command {
            Command::RegisterAgent(profile) => self.profiles.push_back(profile),
            Command::SetNamespace(said) => self.settings.push_back(said),
            Command::AddRule(asked) => self.rules.push_back(asked),
            _ => {}
        }
    }
}

#[derive(Debug)]
struct Known {
    asker: Asker,
    /// State time of its submit.
    since: Timestamp,
    /// `None` once it has ended.
    spec: Option<Arc<TaskSpec>>,
    live: Option<u64>,
    /// 0 before the first.
    last_epoch: u64,
    accepted: Option<u64>,
    ended: Option<StateName>,
    /// The leader wanted to assign it, and could not.
    tried: bool,
}

impl Ledger {
    pub fn new(history: &History) -> Ledger {
        let times = |it: &Operation| {
            let (_, task) = it.submitted()?;
            Some((TaskId(task.id), (it.invoked, it.answered?)))
        };
        let mut known_since: BTreeMap<TaskId, (Moment, Moment)> = BTreeMap::new();
        for (task, (invoked, answered)) in history.operations.iter().filter_map(times) {
            // Sent again it was known since the first answer, and asked for since the first request.
            let entry = known_since.entry(task).or_insert((invoked, answered));
            *entry = (entry.0.min(invoked), entry.1.min(answered));
        }
        Ledger {
            tasks: BTreeMap::new(),
            agents: BTreeMap::new(),
            requests: BTreeMap::new(),
            lines: Lines::default(),
            quotas: Quotas::default(),
            orders: Orders::default(),
            known_since,
            assigned: BTreeMap::new(),
            at_most_once: BTreeSet::new(),
        }
    }

    pub fn into_assigned(self) -> (BTreeMap<(u64, u64), AgentId>, BTreeSet<u64>) {
        (self.assigned, self.at_most_once)
    }

    pub fn take(&mut self, step: &Step<'_>, book: &mut Book) {
        let mut told = Told::default();
        for (op, reply) in step.ops.iter().zip(&step.applied.replies) {
            match (op, reply) {
                (Op::Client { command, .. }, Ok(_)) => told.take(command),
                (Op::Client { .. } | Op::System(_), _) => {}
            }
            self.replied(op, reply, step, book);
        }
        for event in &step.applied.events {
            self.happened(event, &mut told, step, book);
        }
    }

    fn replied(
        &mut self,
        op: &Op,
        reply: &Result<Reply, Rejected>,
        step: &Step<'_>,
        book: &mut Book,
    ) {
        match (op, reply) {
            (
                Op::Client {
                    principal,
                    command: Command::SubmitTask(submit),
                    placement,
                    ..
                },
                Ok(Reply::Submitted { task, duplicate }),
            ) => {
                let by = &principal.name;
                self.submitted((by, submit), (*task, *duplicate), step, book);
                if placement.is_some()
                    && let Some(known) = self.tasks.get_mut(task)
                {
                    known.tried = true;
                }
            }
            (
                Op::Client {
                    command: Command::FinishAttempt(Verdict { fence, .. }),
                    ..
                },
                Ok(Reply::Finished {
                    disposition: Disposition::Accepted,
                    ..
                }),
            ) => self.accepted(*fence, step.index, book),
            (Op::System(command), Err(_)) if let Some(assignment) = command.assignment() => {
                if let Some(known) = self.tasks.get_mut(&assignment.task) {
                    known.tried = true;
                }
            }
            (Op::Client { .. } | Op::System(_), _) => {}
        }
    }

    fn submitted(
        &mut self,
        (by, submit): (&str, &Submit),
        (task, duplicate): (TaskId, bool),
        step: &Step<'_>,
        book: &mut Book,
    ) {
        let spec = &submit.spec;
        if let Some(id) = &submit.request_id {
            let key = (spec.namespace.to_string(), by.to_owned(), id.0.clone());
            let known = self.requests.get(&key).copied();
            let index = step.index;
            let note = match (known, duplicate) {
                (None, false) => None,
                (Some(other), false) => {
                    let seen = format!("request {} is two tasks: {other} and {task}", id.0);
                    Some((Kind::Doubled, seen))
                }
                (Some(other), true) if other == task => None,
                (other, true) => {
                    let is = other.map_or_else(|| "none".to_owned(), |it| it.to_string());
                    let seen = format!(
                        "at index {index} request {} was taken for {task}, and it is {is}",
                        id.0
                    );
                    Some((Kind::OtherTask, seen))
                }
            };
            book.saw(Invariant::I5, 1);
            if let Some((kind, seen)) = note {
                book.note(Violation::new(kind, seen).entry(index));
            }
            self.requests.entry(key).or_insert(task);
        }
        if duplicate {
            return;
        }
        if spec.at_most_once {
            self.at_most_once.insert(task.0);
        }
        let asker = (spec.namespace.clone(), by.to_owned());
        if spec.blobs.is_empty() {
            self.lines.join(&asker, spec, task);
        }
        let known = Known {
            asker,
            since: step.now,
            spec: Some(Arc::new(spec.clone())),
            live: None,
            last_epoch: 0,
            accepted: None,
            ended: None,
            tried: false,
        };
        self.tasks.insert(task, known);
    }

    fn accepted(&mut self, fence: Fence, index: u64, book: &mut Book) {
        book.saw(Invariant::I2, 1);
        let (id, epoch) = (fence.task, fence.epoch.0);
        let Some(known) = self.tasks.get_mut(&id) else {
            let seen = format!("entry {index} accepts a result of {id}, which nobody submitted");
            book.note(Violation::new(Kind::SecondResult, seen).entry(index));
            return;
        };
        let open = match known.ended {
            None => known.live,
            // The late result of one whose end nobody saw.
            Some(StateName::Unknown) => Some(known.last_epoch),
            Some(_) => None,
        };
        let seen = if known.accepted == Some(epoch) {
            Some(format!(
                "entry {index} accepts a second result of {id} under epoch {epoch}"
            ))
        } else if open != Some(epoch) {
            let is = open.map_or_else(|| "none is live".to_owned(), |it| format!("{it} is live"));
            Some(format!(
                "entry {index} accepts a result of {id} under epoch {epoch}, while {is}"
            ))
        } else {
            None
        };
        known.accepted = Some(epoch);
        if let Some(seen) = seen {
            let violation = Violation::new(Kind::SecondResult, seen);
            book.note(violation.entry(epoch).entry(index));
        }
    }

    fn happened(&mut self, event: &Event, told: &mut Told<'_>, step: &Step<'_>, book: &mut Book) {
        match event {
            Event::TaskAssigned {
                fence,
                agent,
                incarnation,
            } => self.assigned(*fence, (agent, *incarnation), step, book),
            Event::AttemptEnded { fence, agent } => self.freed(*fence, agent),
            Event::Preempted { fence, agent, by } => {
                self.preempted((*fence, agent), *by, step.index, book);
            }
            Event::TaskEnded { task, state } => self.ended(*task, *state, step.index, book),
            Event::TaskRequeued { task } => self.requeued(*task, step.index, book),
            Event::AgentRegistered { agent } => {
                let profiles = &mut told.profiles;
                let at = profiles.iter().position(|profile| profile.id == *agent);
                if let Some(profile) = at.and_then(|at| profiles.remove(at)) {
                    self.registered(profile);
                }
            }
            Event::AgentLost { agent, incarnation } => {
                let machine = self.agents.get_mut(agent);
                if let Some(machine) = machine.filter(|it| it.profile.incarnation == *incarnation) {
                    machine.is_lost = true;
                }
            }
            Event::AgentCordoned { agent } | Event::AgentDraining { agent } => {
                self.close(agent, true);
            }
            Event::AgentUncordoned { agent } => self.close(agent, false),
            Event::AgentRemoved { agent, .. } => drop(self.agents.remove(agent)),
            Event::TaskQueued { task } => self.queued(*task, step.index, book),
            Event::NamespaceSet { namespace } => {
                let settings = &mut told.settings;
                let at = settings
                    .iter()
                    .position(|said| said.namespace == *namespace);
                if let Some(said) = at.and_then(|at| settings.remove(at)) {
                    self.quotas.set(said);
                }
            }
            Event::RuleSet { rule } => {
                self.orders
                    .set(*rule, &mut told.rules, (step.index, step.now))
            }
            Event::RuleRemoved { rule } | Event::RuleExpired { rule } => {
                self.orders.remove(*rule, step.index)
            }
            Event::CancelRequested { .. }
            | Event::SegmentDropped { .. }
            | Event::DrainExpired { .. }
            | Event::BackendSet { .. }
            | Event::PolicySet { .. } => {}
        }
    }

    fn registered(&mut self, profile: &AgentProfile) {
        let machine = self
            .agents
            .entry(profile.id.clone())
            .or_insert_with(|| Machine::new(profile));
        machine.profile = profile.clone();
        machine.is_lost = false;
    }

    fn close(&mut self, agent: &AgentId, closed: bool) {
        if let Some(machine) = self.agents.get_mut(agent) {
            machine.is_closed = closed;
        }
    }

    fn assigned(
        &mut self,
        fence: Fence,
        (agent, incarnation): (&AgentId, Incarnation),
        step: &Step<'_>,
        book: &mut Book,
    ) {
        let index = step.index;
        let (id, epoch) = (fence.task, fence.epoch.0);
        self.assigned.insert((id.0, epoch), agent.clone());
        book.saw(Invariant::I3, 1);
        book.saw(Invariant::I4, 1);
        self.overtakes(id, step, book);
        let mut wrong = Vec::new();
        let mut spec = None;
        if let Some(known) = self.tasks.get_mut(&id) {
            wrong.extend(known.may_be_assigned(id, epoch, index));
            if known.spec.as_ref().is_some_and(|spec| spec.at_most_once) && known.last_epoch > 0 {
                let first = known.last_epoch;
                let seen = format!(
                    "{id} is at-most-once, was assigned by entry {first}, and again by {index}"
                );
                wrong.push((Kind::RanAgain, seen));
            }
            spec.clone_from(&known.spec);
            known.live = Some(epoch);
            known.last_epoch = epoch;
            let kept = self.quotas.begun(&known.asker.0, id);
            book.saw(Invariant::I11, u64::from(kept.is_some()));
            let over = kept.and_then(Result::err);
            wrong.extend(over.map(|seen| (Kind::OverQuota, seen)));
        }
        match self.agents.get_mut(agent) {
            Some(machine) => {
                wrong.extend(machine.may_take(id, spec.as_deref(), incarnation));
                let held = machine.held.values().flatten().map(AsRef::as_ref);
                let against = spec
                    .as_ref()
                    .and_then(|spec| self.orders.forbid(spec, &machine.profile, held, step.now));
                if let Some(rule) = against {
                    let seen = format!("{id} was assigned to {agent}, against a rule: {rule}");
                    wrong.push((Kind::AgainstRule, seen));
                }
                machine.held.insert(id, spec);
            }
            None => {
                let seen = format!("{id} was assigned to {agent}, which is not registered");
                wrong.push((Kind::OnUnfit, seen));
            }
        }
        for (kind, seen) in wrong {
            book.note(Violation::new(kind, seen).entry(index));
        }
    }

    /// Whether one that has to go before it, and was there before, is passed over.
    fn overtakes(&mut self, id: TaskId, step: &Step<'_>, book: &mut Book) {
        let index = step.index;
        let Some(known) = self.tasks.get(&id) else {
            return;
        };
        let (Some(spec), asker) = (known.spec.clone(), known.asker.clone()) else {
            return;
        };
        if !self.lines.leave(&asker, &spec, id) {
            return;
        }
        let Some((asked, _)) = self.known_since.get(&id).copied() else {
            return;
        };
        // It may have been starved, and have risen.
        let risen = spec.class().after(step.now.since(known.since));
        book.saw(Invariant::I12, 1);
        for older in self.lines.before(&asker, &spec, id) {
            let known = self.tasks.get(&older);
            let waits = known.is_some_and(|known| {
                let held_up = known.asker != asker && self.quotas.holds_up(&known.asker.0);
                let told_apart = known
                    .spec
                    .as_ref()
                    .is_some_and(|it| self.orders.tell_apart(it, &spec, index));
                let has_risen = known
                    .spec
                    .as_ref()
                    .is_some_and(|it| it.class() < spec.class() && it.class() >= risen);
                !(known.tried || held_up || told_apart || has_risen)
            });
            let since = self.known_since.get(&older);
            if waits && since.is_some_and(|(_, answered)| *answered < asked) {
                let seen = format!(
                    "{older} waited in the queue when {id}, which was asked for after {older} had been \
                     acknowledged and requires the same, was assigned by entry {index}"
                );
                book.note(Violation::new(Kind::Overtook, seen).entry(index).at(asked));
                return;
            }
        }
    }

    fn freed(&mut self, fence: Fence, agent: &AgentId) {
        if let Some(machine) = self.agents.get_mut(agent) {
            machine.free(fence.task);
        }
        let known = self.tasks.get_mut(&fence.task);
        if let Some(known) = known.filter(|known| known.live == Some(fence.epoch.0)) {
            known.live = None;
            self.quotas.over(fence.task, &known.asker.0);
        }
    }

    /// It takes nothing of its agent any more, and is live until it has ended.
    fn preempted(
        &mut self,
        (fence, agent): (Fence, &AgentId),
        by: TaskId,
        index: u64,
        book: &mut Book,
    ) {
        let id = fence.task;
        let spec = |id| self.tasks.get(&id).and_then(|known| known.spec.as_ref());
        let may = match (spec(id), spec(by)) {
            (Some(victim), Some(winner)) => victim.preemptible && winner.class() < victim.class(),
            _ => false,
        };
        let machine = self.agents.get_mut(agent);
        let was_held = machine.is_some_and(|it| it.yields(id, by));
        book.saw(Invariant::I12, 1);
        if !may || !was_held {
            let seen = format!("entry {index} gives {by} the place of {id} on {agent}");
            book.note(Violation::new(Kind::PreemptedWrongly, seen).entry(index));
        }
    }

    fn queued(&mut self, id: TaskId, index: u64, book: &mut Book) {
        let Some(known) = self.tasks.get(&id) else {
            return;
        };
        let kept = self.quotas.submitted(&known.asker.0, id);
        book.saw(Invariant::I11, u64::from(kept.is_some()));
        if let Some(Err(seen)) = kept {
            book.note(Violation::new(Kind::OverQuota, seen).entry(index));
        }
    }

    fn requeued(&mut self, id: TaskId, index: u64, book: &mut Book) {
        let Some(known) = self.tasks.get(&id) else {
            return;
        };
        self.quotas.queued_again(&known.asker.0, id);
        if let Some(state) = known.ended {
            let state = state.as_str();
            let seen = format!("{id} had ended as {state}, and entry {index} queues it again");
            book.note(Violation::new(Kind::AfterEnd, seen).entry(index));
        }
    }

    fn ended(&mut self, id: TaskId, state: StateName, index: u64, book: &mut Book) {
        let Some(known) = self.tasks.get_mut(&id) else {
            return;
        };
        let before = known.ended.replace(state);
        if let Some(spec) = &known.spec {
            self.lines.leave(&known.asker, spec, id);
        }
        self.quotas.over(id, &known.asker.0);
        if state != StateName::Unknown {
            known.spec = None;
        }
        if let Some(before) = before.filter(|before| *before != StateName::Unknown) {
            let (before, now) = (before.as_str(), state.as_str());
            let seen = format!("{id} had ended as {before}, and entry {index} ends it as {now}");
            book.note(Violation::new(Kind::AfterEnd, seen).entry(index));
        }
    }
}

impl Known {
    fn may_be_assigned(&self, id: TaskId, epoch: u64, index: u64) -> Vec<(Kind, String)> {
        let mut wrong = Vec::new();
        if let Some(live) = self.live {
            let seen = format!("entry {index} assigns {id}, whose epoch {live} is still live");
            wrong.push((Kind::TwoEpochs, seen));
        }
        if epoch <= self.last_epoch {
            let last = self.last_epoch;
            let seen = format!("entry {index} gives {id} the epoch {epoch}, after {last}");
            wrong.push((Kind::EpochFell, seen));
        }
        if epoch != index {
            let seen = format!("entry {index} gives {id} the epoch {epoch}");
            wrong.push((Kind::EpochTooLow, seen));
        }
        if let Some(state) = self.ended {
            let state = state.as_str();
            let seen = format!("entry {index} assigns {id}, which had ended as {state}");
            wrong.push((Kind::AfterEnd, seen));
        }
        wrong
    }
}
