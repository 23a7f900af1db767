//! What must hold, looked for while it happens and at the end.
//!
//! Everything is seen from outside: events and hashes of each controller, starts and ends of processes, replies and
//! reads of clients. The judge has no state of the cluster's own to compare with but what the controllers
//! themselves agree on; that they do is the first thing that it looks for.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;

use agent::parts::{Attempt, Exit};
use model::{AgentId, Demand, Event, Fence, Gpus, Op, State, TaskId, Timestamp};
use raft::parts::{Batch, NodeId, Payload, payloads_of};
use raft::{AppliedBatch, BatchKind};

use crate::again::{self, Entries};
use crate::books::{Asked, Books, Entry, Plans};
use crate::controller::MORNING;
use crate::report::Counts;
use crate::trace::{Trace, lock};

/// A promise that was not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Microseconds of virtual time.
    pub at: u64,
    pub rule: &'static str,
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.at / 1_000_000;
        write!(f, "{} at {seconds} s: {}", self.rule, self.what)
    }
}

/// Those after the first ones are mostly their consequences.
const VIOLATIONS_MAX: usize = 20;

/// Between two looks of the invariants at the whole state, in entries.
const CHECK_EVERY: u64 = 97;

/// One process of a controller.
pub type Life = (NodeId, u64);

pub struct Judge {
    trace: std::sync::Arc<Trace>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    violations: Vec<Violation>,
    counts: Counts,
    /// What each entry did, as whoever applied it first told.
    events: BTreeMap<u64, Vec<Event>>,
    /// What came to any disk, by term and index, until it is known which of it was decided.
    written: BTreeMap<(u64, u64), Payload>,
    entries: Entries,
    /// Whose submit became which task.
    submits: BTreeMap<TaskId, Asked>,
    plans: Plans,
    /// When a process of an attempt began, and for how many milliseconds it ran.
    began: BTreeMap<Fence, u64>,
    /// What has to end before an attempt begins.
    yielding: BTreeMap<Fence, Vec<Fence>>,
    ran: BTreeMap<Fence, u64>,
    hashes: BTreeMap<u64, ([u8; 32], NodeId)>,
    /// How far each process has told.
    told: BTreeMap<Life, u64>,
    leaders: BTreeMap<u64, NodeId>,
    /// The last entry that was told of, and its stamp.
    stamped: Option<(u64, Timestamp)>,
    checked: u64,
    /// Processes that run, by task.
    running: BTreeMap<TaskId, (Fence, AgentId)>,
    /// What they take of their agents.
    using: BTreeMap<AgentId, BTreeMap<Fence, (Demand, Gpus)>>,
    starts: BTreeMap<TaskId, Vec<Fence>>,
    /// The highest index that any client has seen.
    frontier: u64,
    /// Accepted submits, by request id.
    accepted: BTreeMap<String, TaskId>,
    /// Reports that their agents were told to be accepted, and the entries that accepted them.
    acknowledged: Vec<(Fence, u64)>,
}

impl Judge {
    pub fn new(trace: std::sync::Arc<Trace>) -> Judge {
        Judge {
            trace,
            seen: Mutex::default(),
        }
    }

    pub fn found(&self, rule: &'static str, what: String) {
        self.trace.say(format_args!("VIOLATION {rule}: {what}"));
        self.note(&mut lock(&self.seen), rule, what);
    }

    fn note(&self, seen: &mut Seen, rule: &'static str, what: String) {
        let at = self.trace.micros();
        if seen.violations.len() < VIOLATIONS_MAX {
            seen.violations.push(Violation { at, rule, what });
        }
    }

    pub fn count(&self, what: &'static str) {
        *lock(&self.seen).counts.entry(what).or_default() += 1;
    }

    /// A controller leads a term: nobody else does.
    pub fn leads(&self, id: NodeId, term: u64) {
        let mut seen = lock(&self.seen);
        *seen.counts.entry("terms led").or_default() += 1;
        let first = *seen.leaders.entry(term).or_insert(id);
        if first != id {
            let what = format!("c{first} and c{id} both lead term {term}");
            self.note(&mut seen, "one leader", what);
        }
    }

    /// What an entry did, as this process saw it.
    pub fn applied(&self, life: Life, batch: &AppliedBatch, state: &State) {
        let mut seen = lock(&self.seen);
        let before = seen.told.insert(life, batch.index);
        if batch.kind == BatchKind::Snapshot {
            *seen.counts.entry("snapshots installed").or_default() += 1;
            return;
        }
        if before.is_some_and(|before| before + 1 != batch.index) {
            let what = format!("c{} told of entry {} after {before:?}", life.0, batch.index);
            self.note(&mut seen, "I8 events without a gap", what);
        }
        match seen.events.get(&batch.index) {
            None => {
                seen.events.insert(batch.index, batch.events.clone());
                *seen.counts.entry("entries").or_default() += 1;
                if !batch.events.is_empty() {
                    self.trace
                        .say(format_args!("#{} {:?}", batch.index, batch.events));
                }
                if !seen.decided(batch, state) {
                    let what = format!("entry {} is applied, and on no disk", batch.index);
                    self.note(&mut seen, "decided once it is written", what);
                }
                self.check_stamp(&mut seen, batch);
                seen.note_preempted(batch);
                self.check_assignments(&mut seen, batch, state);
            }
            Some(first) if *first != batch.events => {
                let what = format!(
                    "entry {}: c{} says {:?}, somebody else said {first:?}",
                    batch.index, life.0, batch.events
                );
                self.note(&mut seen, "I6 the same everywhere", what);
            }
            Some(_) => {}
        }
    }

    /// A controller writes this to its log.
    pub fn wrote(&self, batch: &Batch) {
        let mut seen = lock(&self.seen);
        for (term, index, payload) in payloads_of(batch) {
            if !seen.events.contains_key(&index) {
                seen.written.entry((term, index)).or_insert(payload);
            }
        }
    }

    /// A leader proposes this, as the state is now.
    pub fn proposed(&self, ops: &[Op], state: &State) {
        lock(&self.seen).plans.note(ops, state);
    }

    /// State time never goes back; it follows the clocks, but for 1 % and for 5 s at each election.
    fn check_stamp(&self, seen: &mut Seen, batch: &AppliedBatch) {
        let (index, stamp) = (batch.index, batch.stamp);
        let before = seen.stamped.filter(|(before, _)| before + 1 == index);
        if seen.stamped.is_none_or(|(before, _)| before < index) {
            seen.stamped = Some((index, stamp));
        }
        let passed = self.trace.micros() / 1_000;
        let ahead = passed / 50 + 5_000 * batch.term + 1_000;
        let latest = Timestamp(MORNING + passed + ahead);
        let back = before.is_some_and(|(_, before)| stamp < before);
        if back || stamp > latest {
            let what = format!(
                "entry {index} of term {}: {}, after {before:?}, at {passed} ms",
                batch.term, stamp.0
            );
            self.note(seen, "state time", what);
        }
    }

    /// Exact where the state is that of this very entry.
    fn check_assignments(&self, seen: &mut Seen, batch: &AppliedBatch, state: &State) {
        for event in &batch.events {
            let Event::TaskAssigned { fence, agent, .. } = event else {
                continue;
            };
            if fence.epoch.0 != batch.index {
                let what = format!("{fence} was assigned by entry {}", batch.index);
                self.note(seen, "I3 epochs", what);
            }
            if state.last_applied() != batch.index {
                continue;
            }
            // In the same entry, it was given a task first.
            let closed = |event: &Event| match event {
                Event::AgentLost { agent: lost, .. } => lost == agent,
                Event::AgentCordoned { agent: shut } | Event::AgentDraining { agent: shut } => {
                    shut == agent
                }
                _ => false,
            };
            if batch.events.iter().any(closed) {
                continue;
            }
            let known = state.agent(agent);
            let open = known.is_some_and(|known| {
                known.state == model::AgentState::Ready && known.is_open().is_ok()
            });
            if !open {
                let what = format!("{fence} went to {agent}, which is cordoned or lost");
                self.note(seen, "I4 only fit agents", what);
            }
        }
    }

    /// The state as a controller has it now.
    pub fn looked(&self, id: NodeId, state: &State) {
        let index = state.last_applied();
        let mut seen = lock(&self.seen);
        let (hash, first) = *seen.hashes.entry(index).or_insert((state.hash(), id));
        if hash != state.hash() {
            let what = format!("c{first} and c{id} differ at entry {index}");
            self.note(&mut seen, "I6 equal hashes", what);
        }
        for agent in state.agents() {
            let (busy, slots) = (state.slots_taken(&agent.profile.id), agent.profile.slots);
            if busy > slots + model::PREFETCH_MAX {
                let what = format!(
                    "{} has {slots} slots and {busy} attempts at entry {index}",
                    agent.profile.id
                );
                self.note(&mut seen, "I4 capacity", what);
            }
        }
        if index >= seen.checked + CHECK_EVERY {
            seen.checked = index;
            drop(seen);
            self.check_state(state);
        }
    }

    pub fn check_state(&self, state: &State) {
        for broken in model::invariant::check(state) {
            let what = format!("at entry {}: {broken}", state.last_applied());
            self.found("invariants of the state", what);
        }
        if state.recompute_hash() != state.hash() {
            let what = format!("at entry {}", state.last_applied());
            self.found("the hash is the sum of the records", what);
        }
    }

    /// A process of an attempt starts: nothing else of its task runs, and it never ran under this fence.
    pub fn started(&self, agent: &AgentId, attempt: &Attempt) {
        let fence = attempt.fence;
        self.trace.say(format_args!("{agent} starts {fence}"));
        let mut seen = lock(&self.seen);
        *seen.counts.entry("processes started").or_default() += 1;
        if let Some((other, on)) = seen.running.get(&fence.task).cloned() {
            let what = format!("{fence} starts on {agent} while {other} runs on {on}");
            self.note(&mut seen, "I3 one live attempt", what);
        }
        let victims = seen.yielding.remove(&fence).unwrap_or_default();
        for victim in victims {
            if seen
                .running
                .get(&victim.task)
                .is_some_and(|(runs, _)| *runs == victim)
            {
                let what =
                    format!("{fence} starts on {agent} while {victim}, which it preempted, runs");
                self.note(&mut seen, "I4 what is preempted ends first", what);
            }
        }
        for what in seen.uses(agent, attempt) {
            self.note(&mut seen, "I4 nothing is used twice", what);
        }
        seen.running.insert(fence.task, (fence, agent.clone()));
        seen.began.insert(fence, self.trace.micros());
        let starts = seen.starts.entry(fence.task).or_default();
        let again = starts.contains(&fence);
        let before = starts.len();
        starts.push(fence);
        if again {
            let what = format!("{fence} started twice, the second time on {agent}");
            self.note(&mut seen, "fence starts once", what);
        }
        if attempt.spec.at_most_once && before > 0 {
            let what = format!("at-most-once {} started {} times", fence.task, before + 1);
            self.note(&mut seen, "I9 at most once", what);
        }
    }

    pub fn ended(&self, agent: &AgentId, fence: Fence, exit: &Exit) {
        self.trace
            .say(format_args!("{agent} ends {fence}: {exit:?}"));
        let mut seen = lock(&self.seen);
        if let Some(began) = seen.began.remove(&fence) {
            let ran = (self.trace.micros() - began) / 1_000;
            seen.ran.insert(fence, ran);
        }
        if let Some(using) = seen.using.get_mut(agent) {
            using.remove(&fence);
        }
        if !matches!(exit, Exit::Exited(_)) {
            *seen.counts.entry("processes cut short").or_default() += 1;
        }
        if seen
            .running
            .get(&fence.task)
            .is_some_and(|(runs, _)| *runs == fence)
        {
            seen.running.remove(&fence.task);
        }
    }

    /// A client asks now; whatever it is told has to be no older than this.
    pub fn asks(&self) -> u64 {
        lock(&self.seen).frontier
    }

    /// And is answered, as of an entry.
    pub fn answered(&self, frontier: u64, index: u64, what: impl fmt::Display) {
        let mut seen = lock(&self.seen);
        seen.frontier = seen.frontier.max(index);
        if index < frontier {
            let what = format!("{what}: as of entry {index}, after {frontier} had been seen");
            self.note(&mut seen, "I5 linearizable", what);
        }
    }

    /// A submit was accepted: the same id is the same task for ever.
    pub fn accepted(&self, request: &str, task: TaskId) {
        let mut seen = lock(&self.seen);
        let first = *seen.accepted.entry(request.to_owned()).or_insert(task);
        if first != task {
            let what = format!("{request} became {first} and {task}");
            self.note(&mut seen, "one task for a request id", what);
        }
    }

    /// An agent is told that its report was accepted: by an entry, which is known once that is applied.
    pub fn acknowledged(&self, fence: Fence, entry: Option<u64>) {
        let mut seen = lock(&self.seen);
        match entry {
            Some(entry) => seen.acknowledged.push((fence, entry)),
            None => {
                let what = format!("the report of {fence} is acknowledged before it is applied");
                self.note(&mut seen, "acknowledged once applied", what);
            }
        }
    }

    /// An agent ends an attempt, for a leader said that it is not the live one. A leader that had not applied the entry
    /// that assigned it can't know.
    pub fn gave_up(&self, agent: &AgentId, fence: Fence, as_of: u64) {
        if as_of < fence.epoch.0 {
            let what = format!("{agent} ends {fence} for a leader that stands at entry {as_of}");
            self.found("only leaders that know end attempts", what);
        }
    }

    pub fn accepted_tasks(&self) -> BTreeMap<String, TaskId> {
        lock(&self.seen).accepted.clone()
    }

    /// What all entries together did, in their order. Entries that nobody told of leave holes, after which nothing
    /// is assumed.
    pub fn close(&self) {
        let mut seen = lock(&self.seen);
        let events = std::mem::take(&mut seen.events);
        let mut books = Books::default();
        for (index, events) in &events {
            books.enter(&Entry {
                index: *index,
                ops: match seen.entries.get(index) {
                    Some((_, Some(entry))) => &entry.ops,
                    Some((_, None)) | None => &[],
                },
                events,
                submits: &seen.submits,
                plans: &seen.plans,
                ran: &seen.ran,
            });
        }
        let entries = std::mem::take(&mut seen.entries);
        let hash_of = |index| seen.hashes.get(&index).map(|(hash, _)| *hash);
        let (broken, decided) = again::decide(entries, hash_of);
        for (rule, what) in books.broken.into_iter().chain(broken) {
            self.note(&mut seen, rule, what);
        }
        for (what, count) in books.looked.into_iter().chain(decided) {
            *seen.counts.entry(what).or_default() += count;
        }
        for (fence, index) in std::mem::take(&mut seen.acknowledged) {
            if let Some(events) = events.get(&index)
                && !settles(events, fence)
            {
                let what =
                    format!("entry {index} accepted a report of {fence}, and ended {events:?}");
                self.note(&mut seen, "a report counts for its attempt", what);
            }
        }
    }

    pub fn result(&self) -> (Vec<Violation>, Counts) {
        let seen = lock(&self.seen);
        (seen.violations.clone(), seen.counts.clone())
    }
}

impl Seen {
    /// A process begins to use what its attempt has of its agent: what of it is more than there is, or another's.
    fn uses(&mut self, agent: &AgentId, attempt: &Attempt) -> Vec<String> {
        let using = self.using.entry(agent.clone()).or_default();
        let (fence, demand) = (attempt.fence, attempt.spec.demand());
        using.insert(fence, (demand, attempt.gpus.clone()));
        let supply = crate::agents::supply();
        let all = || using.values();
        let cpu: u64 = all().map(|(it, _)| u64::from(it.cpu_milli)).sum();
        let memory: u64 = all().map(|(it, _)| it.memory_mib).sum();
        let mut wrong = Vec::new();
        if cpu > supply.cpu_milli.into() && demand.cpu_milli > 0 {
            wrong.push(format!(
                "{fence} on {agent}: {cpu} of {} processors",
                supply.cpu_milli
            ));
        }
        if memory > supply.memory_mib && demand.memory_mib > 0 {
            wrong.push(format!(
                "{fence} on {agent}: {memory} of {} MiB",
                supply.memory_mib
            ));
        }
        for place in &attempt.gpus {
            let on = || all().filter(|(_, gpus)| gpus.contains(place));
            let whole = on().any(|(it, _)| it.gpus > 0);
            if whole && on().count() > 1 {
                wrong.push(format!("{fence} on {agent}: GPU {place} is another's"));
            }
        }
        wrong
    }

    fn note_preempted(&mut self, batch: &AppliedBatch) {
        for event in &batch.events {
            if let Event::Preempted { fence, by, .. } = event {
                let winner = Fence {
                    task: *by,
                    generation: fence.generation,
                    epoch: model::Epoch(batch.index),
                };
                self.yielding.entry(winner).or_default().push(*fence);
                *self.counts.entry("attempts preempted").or_default() += 1;
            }
        }
    }

    /// What an entry asked for, and what its submits became. False where it did something, and nobody has written it.
    fn decided(&mut self, batch: &AppliedBatch, state: &State) -> bool {
        let written = self.written.remove(&(batch.term, batch.index));
        let entry = written.and_then(|payload| payload.take_entry().ok());
        let is_written = entry.is_some() || batch.events.is_empty();
        self.entries.insert(batch.index, (batch.term, entry));
        for event in &batch.events {
            if let Event::TaskQueued { task: id } = event
                && let (Some(task), Some(spec)) = (state.task(*id), state.spec(*id))
            {
                let asked = Asked {
                    user: task.user.to_string(),
                    request: task.request_id.as_deref().map(str::to_owned),
                    spec,
                };
                self.submits.insert(*id, asked);
            }
        }
        is_written
    }
}

/// Whether these events of one entry may be what a report of this attempt did. Of a task whose outcome was unknown no
/// attempt is live.
fn settles(events: &[Event], of: Fence) -> bool {
    let mut ended = events.iter().filter_map(|event| match event {
        Event::AttemptEnded { fence, .. } if fence.task == of.task => Some(*fence),
        _ => None,
    });
    let settled = |event: &Event| matches!(event, Event::TaskEnded { task, .. } | Event::TaskRequeued { task } if *task == of.task);
    match ended.next() {
        Some(first) => first == of || ended.any(|fence| fence == of),
        None => events.iter().any(settled),
    }
}
