//! The hot state: tables, counters, and the questions that others ask of them.
//!
//! Cloning costs O(1) (persistent maps), so a reader takes a whole consistent state and keeps it.
//! Writes are in `apply/`; every one goes through [`State::write_task`] or a table's `put`, which
//! keep the hash and the indexes true.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::agent::Agent;
use crate::apply::blobs::Touched;
use crate::archive::{Retention, Segment};
use crate::backend::{BackendKey, BackendSettings};
use crate::blob::{Blob, BlobDigest, BlobRef};
use crate::hash::{Sum, digest};
use crate::id::{AgentId, Fence, Generation, Incarnation, Namespace, RuleId, TaskId};
use crate::index::{Index, QueueKey, Waiting};
use crate::join_token::Joining;
use crate::limit;
use crate::mix::Mix;
use crate::namespace::NamespaceSettings;
use crate::outcome::Outcome;
use crate::policy::{Policy, Scope};
use crate::requests::Requests;
use crate::resource::Taken;
use crate::rule::Rule;
use crate::sample::{Magnitude, Sample, Work};
use crate::share::{Account, Tenant};
use crate::spec::TaskSpec;
use crate::table::Table;
use crate::task::{Phase, StateName, Task};
use crate::time::Timestamp;
use crate::version::StateVersion;

/// How often the hash is kept for comparison under load, in log indexes.
const HASH_EVERY: u64 = 256;

/// What is neither task nor agent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Meta {
    pub cluster_id: String,
    pub generation: Generation,
    /// Decides which branch `apply` takes; raised once all members support it.
    pub state_version: StateVersion,
    pub time: Timestamp,
    pub last_applied: u64,
    pub last_term: u64,
    /// The id that the latest task got.
    pub last_task: TaskId,
    pub retention: Retention,
    /// The segment that grows.
    pub open: Option<Segment>,
    /// Records of entries before this one are gone.
    pub archived_from: u64,
}

/// Whether a task was ever in the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Archived {
    /// It left memory: the archive has it, or had it.
    Left,
    /// It is in memory, or there never was one.
    Never,
}

/// Everything that the log decided so far.
#[derive(Debug, Clone)]
pub struct State {
    pub(crate) meta: Meta,
    pub(crate) tasks: Table<TaskId, Task>,
    pub(crate) specs: Table<TaskId, TaskSpec>,
    pub(crate) results: Table<TaskId, Outcome>,
    pub(crate) agents: Table<AgentId, Agent>,
    pub(crate) requests: Requests,
    /// Closed segments of the archive, by the index that names them.
    pub(crate) segments: Table<u64, Segment>,
    pub(crate) joining: Joining,
    pub(crate) backends: Table<BackendKey, BackendSettings>,
    pub(crate) accounts: Table<Tenant, Account>,
    pub(crate) namespaces: Table<Namespace, NamespaceSettings>,
    pub(crate) policies: Table<Scope, Policy>,
    pub(crate) rules: Table<RuleId, Rule>,
    pub(crate) samples: Table<AgentId, Sample>,
    pub(crate) services: Table<AgentId, BTreeMap<Work, Magnitude>>,
    /// What stands beside the log, and is referred to.
    pub(crate) blobs: Table<BlobDigest, Blob>,
    pub(crate) index: Index,
    /// Of the entry that is being applied.
    pub(crate) touched: Touched,
    pub(crate) hash_at: (u64, [u8; 32]),
}

impl Default for State {
    fn default() -> State {
        State {
            meta: Meta::default(),
            tasks: Table::new("task"),
            specs: Table::new("spec"),
            results: Table::new("result"),
            agents: Table::new("agent"),
            requests: Requests::default(),
            segments: Table::new("segment"),
            joining: Joining::default(),
            backends: Table::new("backend"),
            accounts: Table::new("account"),
            namespaces: Table::new("namespace"),
            policies: Table::new("policy"),
            rules: Table::new("rule"),
            samples: Table::new("sample"),
            services: Table::new("service"),
            blobs: Table::new("blob"),
            index: Index::default(),
            touched: Touched::default(),
            hash_at: (0, [0; 32]),
        }
    }
}

/// Reading.
impl State {
    pub fn cluster_id(&self) -> &str {
        &self.meta.cluster_id
    }

    pub fn generation(&self) -> Generation {
        self.meta.generation
    }

    /// What it may hold, and the log may say.
    pub fn state_version(&self) -> StateVersion {
        self.meta.state_version
    }

    /// State time: the stamp of the last entry.
    pub fn time(&self) -> Timestamp {
        self.meta.time
    }

    pub fn last_applied(&self) -> u64 {
        self.meta.last_applied
    }

    pub fn last_term(&self) -> u64 {
        self.meta.last_term
    }

    pub fn task(&self, id: TaskId) -> Option<&Task> {
        self.tasks.get(&id)
    }

    pub fn spec(&self, id: TaskId) -> Option<Arc<TaskSpec>> {
        self.specs.shared(&id)
    }

    /// The accepted report of the latest attempt.
    pub fn result(&self, id: TaskId) -> Option<Arc<Outcome>> {
        self.results.shared(&id)
    }

    pub fn task_count(&self) -> usize {
        self.tasks.len()
    }

    pub fn count(&self, state: StateName) -> u64 {
        self.index.counts.get(&state).copied().unwrap_or(0)
    }

    /// Tasks older than `before` (all where `None`), the newest first.
    pub fn tasks_newest_first(&self, before: Option<TaskId>) -> impl Iterator<Item = &Task> {
        self.tasks
            .below(before.unwrap_or(TaskId(u64::MAX)))
            .map(|(_, task)| task)
    }

    pub fn agent(&self, id: &AgentId) -> Option<&Agent> {
        self.agents.get(id)
    }

    /// By id.
    pub fn agents(&self) -> impl Iterator<Item = &Agent> {
        self.agents.iter().map(|(_, agent)| agent)
    }

    /// The tasks whose live attempt this agent holds, by incarnation and id.
    pub fn held_by(&self, agent: &AgentId) -> impl Iterator<Item = &Task> {
        let held = self.index.held.get(agent);
        held.into_iter()
            .flat_map(imbl::OrdMap::values)
            .flatten()
            .filter_map(|id| self.tasks.get(id))
    }

    /// Those whose live attempt this very incarnation holds, by id.
    pub fn held_under(
        &self,
        agent: &AgentId,
        incarnation: Incarnation,
    ) -> impl Iterator<Item = &Task> {
        let held = self.index.held.get(agent);
        held.and_then(|incarnations| incarnations.get(&incarnation))
            .into_iter()
            .flatten()
            .filter_map(|id| self.tasks.get(id))
    }

    /// Live attempts on this agent.
    pub fn busy(&self, agent: &AgentId) -> u32 {
        let held = self.index.held.get(agent);
        let held = held.into_iter().flat_map(imbl::OrdMap::values);
        let count: usize = held.map(imbl::OrdSet::len).sum();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// What they take of it beyond slots; `None`: nothing. Where some yield to others, both are in it.
    pub fn taken(&self, agent: &AgentId) -> Option<&Taken> {
        self.index.taken.get(agent)
    }

    /// How many attempts of each sort it holds; `None`: nothing.
    pub fn mix(&self, agent: &AgentId) -> Option<&Mix> {
        self.index.mixes.get(agent).map(AsRef::as_ref)
    }

    /// The incarnations that hold live attempts, even such as are no longer registered.
    pub fn holders(&self) -> impl Iterator<Item = (&AgentId, Incarnation)> {
        self.index
            .held
            .iter()
            .flat_map(|(agent, held)| held.keys().map(move |incarnation| (agent, *incarnation)))
    }

    /// The fence of a task's live attempt.
    pub fn live_fence(&self, id: TaskId) -> Option<Fence> {
        let epoch = self.task(id)?.live()?.epoch;
        Some(Fence {
            task: id,
            generation: self.generation(),
            epoch,
        })
    }

    /// The queued tasks by requirement, kind and tenant: those behind `after`, then the others.
    pub fn queues_behind(
        &self,
        after: Option<&QueueKey>,
    ) -> impl Iterator<Item = (&QueueKey, &Waiting)> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let queues = &self.index.queues;
        let others =
            after.map(|end| queues.range::<_, QueueKey>((Bound::Unbounded, Bound::Included(end))));
        queues
            .range::<_, QueueKey>((start, Bound::Unbounded))
            .chain(others.into_iter().flatten())
    }

    /// Those of them that ask for something beyond a slot.
    pub fn demanding_queues(&self) -> impl Iterator<Item = (&QueueKey, &Waiting)> {
        let from_the_end = self.index.queues.iter().rev();
        from_the_end.take_while(|(key, _)| !key.requirement.demand.is_nothing())
    }

    /// The queue that a task waits in, or would wait in.
    pub fn queue_of(&self, task: &Task) -> Option<&Waiting> {
        let spec = self.specs.get(&task.id)?;
        self.index.queue(spec, &task.tenant(spec))
    }

    /// Whether it waits, be it for later.
    pub fn is_queued(&self, id: TaskId) -> bool {
        let task = self.task(id);
        task.is_some_and(|task| matches!(task.phase, Phase::Queued { .. }))
    }

    /// Whether no task is queued, not even for later.
    pub fn queue_is_empty(&self) -> bool {
        self.index.queues.is_empty()
    }

    /// Deadlines of tasks that were never assigned, the earliest first.
    pub fn deadlines(&self) -> impl Iterator<Item = (Timestamp, TaskId)> {
        self.index.deadlines.iter().copied()
    }

    /// Bytes of all specs and results that are kept.
    pub fn kept_bytes(&self) -> u64 {
        self.index.kept_bytes
    }
}

/// The archive, as far as the log decides it.
impl State {
    pub fn retention(&self) -> &Retention {
        &self.meta.retention
    }

    /// Closed segments, the oldest first.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &Segment> {
        self.segments.iter().map(|(_, segment)| segment)
    }

    /// The segment that grows, if anything was archived since the last cut.
    pub fn open_segment(&self) -> Option<&Segment> {
        self.meta.open.as_ref()
    }

    /// All segments, the oldest first.
    pub fn all_segments(&self) -> impl DoubleEndedIterator<Item = &Segment> {
        self.segments().chain(self.open_segment())
    }

    /// Records of entries before this one are gone.
    pub fn archived_from(&self) -> u64 {
        self.meta.archived_from
    }

    /// What stands beside the log and is referred to, by digest.
    pub fn blobs(&self) -> impl Iterator<Item = BlobRef> {
        let rows = self.blobs.iter();
        rows.map(|(digest, row)| BlobRef {
            digest: *digest,
            size: row.size,
        })
    }

    /// Whether anything refers to it.
    pub fn has_blob(&self, digest: &BlobDigest) -> bool {
        self.blobs.get(digest).is_some()
    }

    /// Bytes of all of them.
    pub fn blob_bytes(&self) -> u64 {
        self.index.blob_bytes
    }

    /// Bytes of all records that are kept.
    pub fn archive_bytes(&self) -> u64 {
        let segments = self.all_segments();
        segments.map(|segment| segment.content.bytes).sum()
    }

    /// What became of a task that is not in memory.
    pub fn archived(&self, id: TaskId) -> Archived {
        match id.0 > 0 && id <= self.meta.last_task {
            true if self.tasks.get(&id).is_none() => Archived::Left,
            true | false => Archived::Never,
        }
    }
}

/// The hash.
impl State {
    /// The same on every replica at the same index; costs O(1).
    pub fn hash(&self) -> [u8; 32] {
        self.summed(|tables| tables.map(|table| table.sum()))
    }

    /// The hash from nothing but the records, to be compared with [`State::hash`].
    pub fn recompute_hash(&self) -> [u8; 32] {
        self.summed(|tables| tables.map(|table| table.recomputed_sum()))
    }

    /// The hash at the last common multiple of 256, comparable while entries flow.
    pub fn hash_at(&self) -> (u64, [u8; 32]) {
        self.hash_at
    }

    fn summed(&self, sums: impl FnOnce([&dyn Summed; 16]) -> [Sum; 16]) -> [u8; 32] {
        let mut total = Sum::default();
        total.add(digest("meta", &(), &self.meta));
        let tables: [&dyn Summed; 16] = [
            &self.tasks,
            &self.specs,
            &self.results,
            &self.agents,
            &self.requests,
            &self.segments,
            &self.joining.tokens,
            &self.joining.holders,
            &self.backends,
            &self.blobs,
            &self.accounts,
            &self.namespaces,
            &self.policies,
            &self.rules,
            &self.samples,
            &self.services,
        ];
        for sum in sums(tables) {
            total.merge(sum);
        }
        total.bytes()
    }
}

trait Summed {
    fn sum(&self) -> Sum;
    fn recomputed_sum(&self) -> Sum;
}

impl Summed for Requests {
    fn sum(&self) -> Sum {
        Requests::sum(self)
    }

    fn recomputed_sum(&self) -> Sum {
        Requests::recomputed_sum(self)
    }
}

impl<K: Ord + Clone + Serialize, V: Serialize> Summed for Table<K, V> {
    fn sum(&self) -> Sum {
        Table::sum(self)
    }

    fn recomputed_sum(&self) -> Sum {
        Table::recomputed_sum(self)
    }
}

/// Writing, for `apply/` only.
impl State {
    /// Puts a task's record and keeps the indexes true. Its spec is there before it.
    pub(crate) fn write_task(&mut self, task: Task) {
        if let Some(spec) = self.specs.get(&task.id) {
            match self.tasks.get(&task.id) {
                Some(old) => self.index.replace(old, &task, spec),
                None => self.index.add(&task, spec),
            }
        }
        self.tasks.put(task.id, task);
    }

    pub(crate) fn write_spec(&mut self, id: TaskId, spec: TaskSpec) {
        self.index.kept_bytes += spec.size() as u64;
        self.hold_blobs(spec.blobs.refs());
        self.specs.put(id, spec);
    }

    /// Puts a result in the place of an earlier attempt's. Where the budget is used up only its
    /// end is kept: a result is never refused for its size.
    pub(crate) fn write_result(&mut self, id: TaskId, mut outcome: Outcome) {
        let earlier = self.results.shared(&id);
        let size = earlier.as_deref().map_or(0, Outcome::size);
        let others = self.index.kept_bytes.saturating_sub(size as u64);
        if others + outcome.size() as u64 > limit::KEPT_MAX_BYTES as u64 {
            outcome.drop_tails();
        }
        self.index.kept_bytes = others + outcome.size() as u64;
        self.hold_blobs(outcome.blobs.refs());
        if let Some(earlier) = earlier {
            self.release_blobs(earlier.blobs.refs());
        }
        self.results.put(id, outcome);
    }

    /// Removes all that is known of a task.
    pub(crate) fn forget_task(&mut self, id: TaskId) -> Option<Arc<Task>> {
        let task = self.tasks.remove(&id)?;
        let spec = self.specs.remove(&id);
        let result = self.results.remove(&id);
        if let Some(spec) = &spec {
            self.index.remove(&task, spec);
        }
        let of_spec = spec.iter().flat_map(|spec| spec.blobs.refs());
        let of_result = result.iter().flat_map(|result| result.blobs.refs());
        self.release_blobs(of_spec.chain(of_result));
        let bytes = spec.map_or(0, |spec| spec.size()) + result.map_or(0, |result| result.size());
        self.index.kept_bytes = self.index.kept_bytes.saturating_sub(bytes as u64);
        Some(task)
    }

    /// Advances the position without an entry of ours: a blank or membership entry of Raft's.
    pub fn note_index(&mut self, index: u64, term: u64) {
        self.meta.last_applied = index;
        self.meta.last_term = self.meta.last_term.max(term);
        self.keep_hash();
    }

    pub(crate) fn keep_hash(&mut self) {
        self.accounts.take_digests();
        if self.meta.last_applied.is_multiple_of(HASH_EVERY) {
            self.hash_at = (self.meta.last_applied, self.hash());
        }
    }

    pub(crate) fn rebuilt_index(&self) -> Index {
        let mut index = Index::default();
        for (id, task) in self.tasks.iter() {
            if let Some(spec) = self.specs.get(id) {
                index.add(task, spec);
            }
        }
        let specs = self.specs.iter().map(|(_, spec)| spec.size() as u64);
        let results = self.results.iter().map(|(_, result)| result.size() as u64);
        index.kept_bytes = specs.chain(results).sum();
        for (digest, blob) in self.blobs.iter() {
            index.add_blob(*digest, blob);
        }
        index
    }
}
