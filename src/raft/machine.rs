//! openraft's state machine: applies committed entries to `model::State` and publishes the result.
//!
//! ```text
//!  committed entries ──► State::apply ──► publish a view (O(1)) ──► answer the proposers
//!                              ├────────► events, in the order of the log
//!                              └────────► the archive: finished tasks, and the events again
//! ```
//!
//! What leaves the state goes to the archive before the view without it is published, so a reader finds it in one or
//! the other. The archive is written beside apply; a snapshot is published only once all that it no
//! longer holds is on disk.
//!
//! A view is published before the proposers are answered, so whoever was answered finds its write in the
//! view. The state lives in memory: on disk are snapshots and the log. While a member starts, entries are
//! applied without events; the stream begins at the view that `Cluster::open` hands out.
//!
//! Bytes that can't be decoded, or a hash that does not agree, end the process: to go on would be to
//! differ from the other members.

use std::collections::BTreeSet;
use std::io;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use arc_swap::ArcSwap;
use failpoint::Point;
use futures::{FutureExt, Stream, StreamExt};
use model::{ArchiveStep, Stamped, State, StateHashes, StateVersion, Timestamp, Versions};
use mutant::Mutant;
use openraft::storage::{ApplyResponder, EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{AsyncRuntime, EntryPayload, OptionalSend};
use prometheus_client::metrics::histogram::Histogram;
use tokio::sync::mpsc;

use crate::archive::Archive;
use crate::archive::need::Need;
use crate::blobs::Blobs;
use crate::blocking::Blocking;
use crate::consensus::{
    Entry, LogId, NodeId, Snapshot, SnapshotMeta, StoredMembership, Types, term_of,
};
use crate::fatal::FatalSignal;
use crate::held::membership_index;
use crate::payload::{Payload, Response};
use crate::snapshot::manifest::Position;
use crate::snapshot::{Handle, Shelf};
use crate::sync::lock;
use crate::timings;
use crate::trail::Trail;
use crate::watched::{Follower, Watched};

/// Batches that wait for the reader of events before apply waits for it.
const EVENT_BACKLOG: usize = 65_536;

/// Entries and operations after which a view is published though more are ready, and others are let in: bounds
/// how stale a view gets, and how late a heartbeat is answered by a member that has much to catch up on.
const PUBLISH_EVERY: usize = 2_048;

/// What one entry did.
#[derive(Clone, Debug)]
pub struct AppliedBatch {
    pub index: u64,
    pub term: u64,
    pub stamp: Timestamp,
    pub kind: BatchKind,
    pub events: Vec<model::Event>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchKind {
    Entry,
    /// The state was replaced by a snapshot up to this index: there are no events for what it
    /// skipped, so whoever follows them starts over from the view.
    Snapshot,
}

/// Events of all applied entries, in the order of the log, from the moment of `Cluster::open`.
/// It has to be read: a reader that stops for good ends up holding back apply.
pub type EventStream = mpsc::Receiver<Arc<AppliedBatch>>;

/// What others see of the state machine.
pub struct Published {
    view: ArcSwap<View>,
    applied: Watched<Option<LogId>>,
    trail: Mutex<Trail>,
    events: mpsc::Sender<Arc<AppliedBatch>>,
    /// Events flow once the member has started.
    live: AtomicBool,
    /// How long applying took, in seconds.
    applying: Histogram,
    /// What stands beside the state.
    blobs: OnceLock<Arc<Blobs>>,
}

/// The state after some entry.
#[derive(Clone, Debug, Default)]
pub struct View {
    pub state: Arc<State>,
    pub applied: Option<LogId>,
    pub membership: Arc<StoredMembership>,
    /// Every node id that was ever a member.
    pub used_ids: Arc<BTreeSet<NodeId>>,
}

impl Published {
    pub fn new() -> (Arc<Self>, EventStream) {
        let (events, stream) = mpsc::channel(EVENT_BACKLOG);
        let published = Self {
            view: ArcSwap::default(),
            applied: Watched::new(None),
            trail: Mutex::default(),
            events,
            live: AtomicBool::new(false),
            applying: timings::histogram(),
            blobs: OnceLock::new(),
        };
        (Arc::new(published), stream)
    }

    /// Blobs that the state refers to and this member lacks.
    pub fn lacks(&self) -> u64 {
        self.blobs.get().map_or(0, |blobs| blobs.stats().missing)
    }

    /// How long applying took, in seconds.
    pub fn applying(&self) -> Histogram {
        self.applying.clone()
    }

    pub fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    pub fn applied(&self) -> Follower<Option<LogId>> {
        self.applied.follow()
    }

    /// The trail, and the hash of the state as it is in the view.
    pub fn state_hashes(&self) -> StateHashes {
        let mut hashes = lock(&self.trail).hashes();
        let state = self.view().state.clone();
        if state.last_applied() > 0 {
            hashes.insert(state.last_applied(), state.hash());
        }
        hashes
    }

    /// A stretch that `began` then has come to a view.
    fn note_applied(&self, began: Instant) {
        self.applying.observe(began.elapsed().as_secs_f64());
    }

    pub fn go_live(&self) {
        self.live.store(true, Ordering::Release);
    }

    fn send(&self, batch: AppliedBatch) -> impl Future<Output = ()> + Send + 'static {
        let dropped = mutant::is(Mutant::EventsDropped) && batch.index.is_multiple_of(16);
        let live = self.live.load(Ordering::Acquire) && !dropped;
        let events = self.events.clone();
        async move {
            if live {
                // Nobody listens: a member that is stopping.
                events.send(Arc::new(batch)).await.ok();
            }
        }
    }
}

/// What a member keeps beside its log.
#[derive(Clone)]
pub struct Storage {
    pub shelf: Arc<Shelf>,
    pub archive: Arc<Archive>,
    pub blobs: Arc<Blobs>,
}

pub struct Machine<R> {
    view: View,
    /// The state that is being written to; a clone of it is in `view`.
    state: State,
    published: Arc<Published>,
    storage: Storage,
    /// What entries that are not published yet did to the archive.
    steps: Vec<ArchiveStep>,
    fatal: FatalSignal,
    blocking: Blocking,
    versions: Versions,
    runtime: PhantomData<fn() -> R>,
}

type Waiting<R> = (ApplyResponder<Types<R>>, Response);

impl<R: AsyncRuntime> Machine<R> {
    pub fn new(
        published: Arc<Published>,
        storage: Storage,
        fatal: FatalSignal,
        blocking: Blocking,
        versions: Versions,
    ) -> Self {
        // Another machine on the same would show the same directory.
        published.blobs.set(storage.blobs.clone()).ok();
        Self {
            view: View::default(),
            state: State::default(),
            published,
            storage,
            steps: Vec::new(),
            fatal,
            blocking,
            versions,
            runtime: PhantomData,
        }
    }

    /// Applies one entry. The batch is what it did, for those who follow events: of every entry, also
    /// where it did nothing to the state, so that they know how far they have heard.
    fn apply_entry(&mut self, entry: &Entry) -> io::Result<(Response, AppliedBatch)> {
        let (index, term) = (entry.log_id.index, term_of(&entry.log_id));
        let mut done = model::Applied::default();
        match &entry.payload {
            EntryPayload::Blank => self.state.note_index(index, term),
            EntryPayload::Membership(members) => {
                self.state.note_index(index, term);
                let members = StoredMembership::new(Some(entry.log_id), members.clone());
                self.view.membership = Arc::new(members);
                let used = Arc::make_mut(&mut self.view.used_ids);
                used.extend(self.view.membership.nodes().map(|(id, _)| *id));
            }
            EntryPayload::Normal(payload) => {
                let decoded = self.understood(index, payload)?;
                let before = self.state.state_version();
                let stamped = Stamped {
                    index,
                    term,
                    membership: membership_index(&self.view.membership),
                    entry: decoded,
                };
                // A panic would leave the state half changed, and openraft without its worker.
                let applied = catch_unwind(AssertUnwindSafe(|| self.state.apply(stamped)));
                done = applied.map_err(|_| {
                    self.stop(format!("applying entry {index} panicked; this is a defect"))
                })?;
                tell_version(before, self.state.state_version());
            }
        }
        self.view.applied = Some(entry.log_id);
        self.storage.blobs.expect(&done.blobs, index);
        if !done.archive.is_empty() {
            self.steps.push(done.archive);
        }
        let hash_at = self.state.hash_at();
        if hash_at.0 == index {
            lock(&self.published.trail).add(hash_at);
        }
        let batch = AppliedBatch {
            index,
            term,
            stamp: self.state.time(),
            kind: BatchKind::Entry,
            events: done.events,
        };
        let response = Response {
            replies: done.replies,
        };
        Ok((response, batch))
    }

    /// An entry that this release can read, and may apply. To go on without it, or to refuse what the others
    /// accept, would be to differ from them.
    fn understood(&self, index: u64, payload: &Payload) -> io::Result<model::Entry> {
        let entry = payload.take_entry().map_err(|error| {
            self.stop(format!(
                "entry {index} can't be decoded, so it can't be applied as the other members do: {error}; \
                 run the release that wrote it, or a later one, on this data directory as it is"
            ))
        })?;
        self.versions.check_entry(&entry).map_err(|error| {
            self.stop(format!(
                "entry {index} can't be applied as the other members do: {error}"
            ))
        })?;
        Ok(entry)
    }

    fn publish(&mut self, waiting: &mut Vec<Waiting<R>>) -> io::Result<()> {
        let steps = std::mem::take(&mut self.steps);
        let index = self.state.last_applied();
        // Before the view, so that whoever sees that a task left memory finds it in the archive.
        self.storage.archive.take(steps, index)?;
        self.view.state = Arc::new(self.state.clone());
        self.published.view.store(Arc::new(self.view.clone()));
        self.published.applied.set(self.view.applied);
        failpoint::at(Point::ApplyAfter);
        for (responder, response) in waiting.drain(..) {
            responder.send(response);
        }
        Ok(())
    }

    /// Where the archive's disk does not keep up, apply waits for it.
    async fn wait_for_archive(&self) -> io::Result<()> {
        let archive = self.storage.archive.clone();
        match archive.is_behind() {
            true => {
                let waiting = self.blocking.run::<R, _, _>(move || archive.catch_up());
                waiting.await
            }
            false => Ok(()),
        }
    }

    fn stop(&self, reason: String) -> io::Error {
        self.fatal.raise(&reason);
        io::Error::new(io::ErrorKind::InvalidData, reason)
    }
}

impl<R: AsyncRuntime> RaftStateMachine<Types<R>> for Machine<R> {
    type SnapshotData = Handle;
    type SnapshotBuilder = Builder<R>;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let membership = StoredMembership::clone(&self.view.membership);
        Ok((self.view.applied, membership))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types<R>>>> + Unpin + OptionalSend,
    {
        let mut waiting = Vec::new();
        let mut batches = Vec::new();
        let mut unpublished = 0;
        let mut began = Instant::now();
        let mut passed_over = None;
        while let Some(next) = next_of(&mut entries, &mut passed_over).await {
            let (entry, responder) = next?;
            failpoint::at(Point::ApplyBefore);
            let (response, batch) = self.apply_entry(&entry)?;
            unpublished += 1 + response.replies.len();
            if let Some(responder) = responder {
                waiting.push((responder, response));
            }
            batches.push(batch);
            if unpublished >= PUBLISH_EVERY {
                unpublished = 0;
                self.publish(&mut waiting)?;
                self.published.note_applied(began);
                for batch in batches.drain(..) {
                    self.published.send(batch).await;
                }
                self.wait_for_archive().await?;
                // Under a runtime that is not tokio's it only wakes the task again.
                tokio::task::yield_now().await;
                began = Instant::now();
            }
        }
        self.publish(&mut waiting)?;
        if unpublished > 0 {
            self.published.note_applied(began);
        }
        for batch in batches {
            self.published.send(batch).await;
        }
        self.wait_for_archive().await
    }

    async fn get_snapshot_builder(&mut self) -> Builder<R> {
        Builder {
            view: self.view.clone(),
            storage: self.storage.clone(),
            fatal: self.fatal.clone(),
            blocking: self.blocking,
            runtime: PhantomData,
        }
    }

    async fn install_snapshot(&mut self, _: &SnapshotMeta, handle: Handle) -> io::Result<()> {
        let (storage, source) = (self.storage.clone(), handle.clone());
        let loaded = self.blocking.run::<R, _, _>(move || load(&source)).await;
        let (state, position) = loaded.map_err(|error| {
            self.stop(format!(
                "a snapshot can't be used: {error}. Where that can't be mended, let the machine join under a \
                 new id, with an empty data directory"
            ))
        })?;
        let understood = self.versions.check(state.state_version());
        understood.map_err(|error| {
            self.stop(format!(
                "the snapshot up to entry {} can't be used: {error}",
                state.last_applied()
            ))
        })?;
        let named = state.clone();
        let settled = self.blocking.run::<R, _, _>(move || {
            storage.shelf.adopt(&handle)?;
            storage.blobs.settle(&named);
            storage.archive.settle(&named)
        });
        settled.await?;
        *lock(&self.published.trail) = Trail::beginning_at(state.hash_at());
        self.state = state;
        self.view.applied = position.last_log;
        self.view.membership = Arc::new(position.membership);
        self.view.used_ids = Arc::new(position.used_ids);
        self.publish(&mut Vec::new())?;
        let (term, index) = place(position.last_log);
        tracing::info!(
            term,
            index,
            "took over a snapshot: the log before it is gone"
        );
        let batch = AppliedBatch {
            index,
            term,
            stamp: self.state.time(),
            kind: BatchKind::Snapshot,
            events: Vec::new(),
        };
        self.published.send(batch).await;
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot<Handle>>> {
        self.storage.shelf.current().map(snapshot).transpose()
    }
}

/// The next entry. A planted bug takes the one behind it first, where that is there already.
async fn next_of<N>(
    entries: &mut (impl Stream<Item = N> + Unpin),
    passed_over: &mut Option<N>,
) -> Option<N> {
    if passed_over.is_some() {
        return passed_over.take();
    }
    let next = entries.next().await;
    if mutant::is(Mutant::ApplyOutOfOrder)
        && let Some(behind) = entries.next().now_or_never().flatten()
    {
        *passed_over = next;
        return Some(behind);
    }
    next
}

fn tell_version(before: StateVersion, now: StateVersion) {
    if now != before {
        tracing::info!(%before, %now, "the state version rose");
    }
}

/// Decodes a snapshot's state and checks it against its manifest. Blocks.
pub fn load(handle: &Handle) -> io::Result<(State, Position)> {
    let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
    // Its checksums are right: it is not damaged, it is another release's.
    let mut body = handle.body()?;
    let decoded = State::read(&mut body);
    // Damage is one thing, what another release wrote another.
    body.finish()?;
    let state = decoded.map_err(|error| {
        invalid(format!(
            "its state can't be decoded: {error}; run the release that wrote it, or a later one"
        ))
    })?;
    // It was summed up from the records, just now.
    let hash = hex::encode(state.hash());
    if hash != handle.manifest.state_hash {
        let told = &handle.manifest.state_hash;
        return Err(invalid(format!(
            "the state's hash is {hash}, the manifest says {told}"
        )));
    }
    let position = handle
        .manifest
        .position()
        .map_err(|error| invalid(error.to_string()))?;
    if position.segments != Need::of(&state) {
        let text = "the manifest names other segments of the archive than the state";
        return Err(invalid(text.to_owned()));
    }
    // Wherever the manifest came from: were it wrong here, entries would be skipped or applied twice.
    let (told, found) = (
        place(position.last_log),
        (state.last_term(), state.last_applied()),
    );
    if told != found {
        return Err(invalid(format!(
            "the state stands at entry {} of term {}, the manifest says {} of {}",
            found.1, found.0, told.1, told.0
        )));
    }
    Ok((state, position))
}

/// Term and index of what was applied last.
fn place(applied: Option<LogId>) -> (u64, u64) {
    applied.map_or((0, 0), |id| (term_of(&id), id.index))
}

fn snapshot(handle: Handle) -> io::Result<Snapshot<Handle>> {
    let meta = handle
        .manifest
        .meta()
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
    Ok(Snapshot {
        meta,
        snapshot: handle,
    })
}

/// Writes a view to disk beside apply, which goes on.
pub struct Builder<R> {
    view: View,
    storage: Storage,
    fatal: FatalSignal,
    blocking: Blocking,
    runtime: PhantomData<fn() -> R>,
}

impl<R: AsyncRuntime> RaftSnapshotBuilder<Types<R>> for Builder<R> {
    type SnapshotData = Handle;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot<Handle>> {
        let (view, storage, fatal) = (self.view.clone(), self.storage.clone(), self.fatal.clone());
        let handle = self
            .blocking
            .run_aside::<R, _, _>(move || build(&view, &storage, &fatal))
            .await?;
        snapshot(handle)
    }
}

/// A snapshot of a view, with the archive that it needs behind it. Blocks.
pub fn build(view: &View, storage: &Storage, fatal: &FatalSignal) -> io::Result<Handle> {
    let hash = view.state.recompute_hash();
    if hash != view.state.hash() {
        let index = view.state.last_applied();
        let reason = format!("at entry {index} the state's hash is not the sum of its records");
        fatal.raise(&reason);
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    // The entries that are replaced could have told these records again.
    storage.archive.flush()?;
    let position = Position {
        segments: Need::of(&view.state),
        last_log: view.applied,
        membership: StoredMembership::clone(&view.membership),
        used_ids: BTreeSet::clone(&view.used_ids),
    };
    storage
        .shelf
        .build(&position, &hex::encode(hash), |file| view.state.write(file))
}
