//! The handle of a member: openraft on sled, tokio and TLS, with everything it owns.
//!
//! ```text
//!  open:  lock and claim the directory → log → snapshots → consensus (applies what was committed)
//!         → quick election → peer port
//!  stop:  hand over leadership → consensus → peer port → writer → database
//! ```
//!
//! Raft has a runtime of its own, with its own threads, so that no load of clients can delay a heartbeat.
//! The handle may be used from any tokio runtime.

use std::num::NonZero;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use model::{Addresses, ControllerId, Op, State, StateHashes, Timestamp};
use openraft::Raft;
use openraft_rt_tokio::TokioRuntime;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::archive::Archive;
use crate::assembly::{Disk, assemble};
use crate::clock::Reading;
use crate::config::Config;
use crate::consensus::Types;
use crate::core::Core;
use crate::error::Error;
use crate::held::Holder;
use crate::leadership::Leadership;
use crate::machine::{EventStream, Machine, Published};
use crate::member::Member;
use crate::network::calls::Calls;
use crate::network::tls::PeerTls;
use crate::node_file::DirectoryLock;
use crate::proposer::Committed;
use crate::read::Read;
use crate::status::{Metrics, Status};
use crate::sync::lock;
use crate::timings::Timings;

/// Threads of Raft's runtime: consensus itself is one task, the others serve the network and apply. Where
/// there are only two cores, a second thread would find none free, and waking it costs more than it does (ADR 10).
fn threads() -> usize {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    if cores > 2 { 2 } else { 1 }
}

/// How long stopping may wait for each of its steps.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

pub type LocalCore = Core<TokioRuntime, Calls>;

/// One member of the cluster. Cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

pub struct Inner {
    pub core: Arc<LocalCore>,
    pub archive: Arc<Archive>,
    pub holder: Holder,
    pub published: Arc<Published>,
    pub leadership: watch::Receiver<Leadership>,
    /// Handing over was tried: once is enough, for it may take seconds.
    pub handed_over: AtomicBool,
    pub stopping: CancellationToken,
    pub tasks: Mutex<Vec<JoinHandle<()>>>,
    pub runtime: Mutex<Option<Runtime>>,
    pub lock: Mutex<Option<DirectoryLock>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stopping.cancel();
        if let Some(runtime) = lock(&self.runtime).take() {
            runtime.shutdown_background();
        }
    }
}

impl Cluster {
    /// Opens a member. The events begin after the state that `view` shows when this returns.
    pub async fn open(config: Config, tls: PeerTls) -> Result<(Self, EventStream), Error> {
        let consensus = config.consensus()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads())
            .thread_name("quorate-raft")
            .enable_all()
            .build()?;
        let handle = runtime.handle().clone();
        let opening = handle.spawn(async move {
            let opened = tokio::task::spawn_blocking(move || Disk::open(config)).await;
            let disk = opened.map_err(|error| Error::Fatal(error.to_string()))??;
            assemble(disk, consensus, tls).await
        });
        let outcome = opening
            .await
            .map_err(|error| Error::Fatal(error.to_string()));
        match outcome.and_then(|outcome| outcome) {
            Ok((inner, events)) => {
                *lock(&inner.runtime) = Some(runtime);
                Ok((
                    Self {
                        inner: Arc::new(inner),
                    },
                    events,
                ))
            }
            Err(error) => {
                runtime.shutdown_background();
                Err(error)
            }
        }
    }

    /// Makes this member the first of its cluster. Fine if it was done before.
    pub async fn initialize(&self) -> Result<(), Error> {
        let core = self.inner.core.clone();
        self.on_runtime(async move { core.initialize().await })
            .await
    }

    /// Leader only. Stamps the operations as one entry, in the order of the calls, and returns when it is
    /// committed and applied here.
    pub async fn propose(&self, ops: Vec<Op>, wall: Timestamp) -> Result<Committed, Error> {
        self.inner.core.propose(ops, wall).await
    }

    /// Linearizable, on any member.
    pub async fn read<T>(&self, look: impl FnOnce(&State) -> T) -> Result<Read<T>, Error> {
        self.inner.core.read(look).await
    }

    /// Leader only: a quorum has answered a round that began after this call. Calls share rounds.
    pub async fn confirm(&self) -> Result<u64, Error> {
        self.inner.core.confirm().await
    }

    /// The state as applied here: perhaps behind, never ahead. Costs nothing.
    pub fn view(&self) -> Arc<State> {
        self.inner.core.view().state.clone()
    }

    /// What the state's hash was at the last multiples of 256, and what it is now, for others to compare.
    pub fn state_hashes(&self) -> StateHashes {
        self.inner.core.state_hashes()
    }

    pub(crate) fn archive(&self) -> Arc<Archive> {
        self.inner.archive.clone()
    }

    #[cfg(test)]
    pub(crate) fn core(&self) -> &LocalCore {
        &self.inner.core
    }

    pub(crate) fn holder(&self) -> &Holder {
        &self.inner.holder
    }

    pub(crate) fn raft(&self) -> Raft<Types<TokioRuntime>, Machine<TokioRuntime>> {
        self.inner.core.raft.clone()
    }

    pub(crate) fn published(&self) -> &Published {
        &self.inner.published
    }

    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership.clone()
    }

    /// State time: on the leader what it would stamp now, elsewhere the last stamp applied.
    pub fn now(&self) -> Reading {
        self.inner.core.now()
    }

    pub fn members(&self) -> Vec<Member> {
        self.inner.core.members.list()
    }

    pub fn address_of(&self, id: ControllerId) -> Option<Addresses> {
        self.inner.core.address_of(id)
    }

    /// Whether this member belongs to a membership yet.
    pub fn is_member(&self) -> bool {
        let members = self.inner.core.members.effective();
        members.get_node(&self.inner.core.members.me.id).is_some()
    }

    /// Leader only: adds a controller as a learner, waits until it has caught up, and gives it a vote. May be
    /// called again after a failure, and goes on where it stopped.
    pub async fn add_member(&self, id: ControllerId, addresses: Addresses) -> Result<(), Error> {
        let core = self.inner.core.clone();
        self.on_runtime(async move { core.members.add(id, addresses).await })
            .await
    }

    /// The first half of adding one: it gets the log, and no vote.
    #[cfg(test)]
    pub async fn add_learner(&self, id: ControllerId, addresses: Addresses) -> Result<(), Error> {
        let core = self.inner.core.clone();
        self.on_runtime(async move { core.members.add_learner(id, addresses).await })
            .await
    }

    /// What the leader does every few seconds, until it is done.
    #[cfg(test)]
    pub async fn raise_version(&self) -> Result<model::StateVersion, Error> {
        let core = self.inner.core.clone();
        self.on_runtime(async move { core.raise_version().await })
            .await
    }

    #[cfg(test)]
    pub fn effective_membership(&self) -> Arc<crate::consensus::StoredMembership> {
        self.inner.core.members.effective()
    }

    /// For what no member does by itself.
    #[cfg(test)]
    pub fn consensus(&self) -> Raft<Types<TokioRuntime>, Machine<TokioRuntime>> {
        self.inner.core.raft.clone()
    }

    /// Leader only: gives a learner a vote, once it has caught up.
    pub async fn promote(&self, id: ControllerId) -> Result<(), Error> {
        let core = self.inner.core.clone();
        self.on_runtime(async move { core.members.promote(id).await })
            .await
    }

    /// Whether a controller was a member once, and is none any more.
    pub fn was_removed(&self, id: ControllerId) -> bool {
        self.inner.core.members.was_removed(id)
    }

    /// The highest id that any controller ever had, member or not any more.
    pub fn last_id(&self) -> ControllerId {
        self.inner.core.members.last_id()
    }

    /// Leader only: takes a controller out for good. Of itself it hands over, and says that it does not lead.
    pub async fn remove_member(&self, id: ControllerId) -> Result<(), Error> {
        let core = self.inner.core.clone();
        self.on_runtime(async move { core.members.remove(id).await })
            .await
    }

    /// Leader only: hands leadership to a voter, by default to the one with the most advanced log.
    pub async fn transfer_leadership(&self, to: Option<ControllerId>) -> Result<(), Error> {
        let core = self.inner.core.clone();
        self.on_runtime(async move { core.members.transfer(to).await })
            .await
    }

    /// Takes a snapshot soon, whatever the policy says.
    pub async fn snapshot(&self) -> Result<(), Error> {
        let trigger = self.inner.core.raft.trigger();
        trigger
            .snapshot()
            .await
            .map_err(|fatal| Error::Fatal(fatal.to_string()))
    }

    pub fn status(&self) -> Status {
        self.inner.core.status()
    }

    pub fn metrics(&self) -> Metrics {
        self.inner.core.metrics()
    }

    pub fn timings(&self) -> Timings {
        self.inner.core.timings()
    }

    /// Holds the reason once this member can't go on: the process has to end then.
    pub fn fatal(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.inner.core.fatal.subscribe()
    }

    /// Ends this member for a reason that this crate can't see: [`Cluster::fatal`] tells it.
    pub fn fail(&self, reason: &str) {
        self.inner.core.fatal.raise(reason);
    }

    /// Before stopping: leadership goes to another voter, if this member leads and one answers. Tried once.
    pub async fn hand_over(&self) {
        let leads = self.inner.core.leadership.get().is_me;
        if !leads || self.inner.handed_over.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Err(error) = self.transfer_leadership(None).await {
            tracing::info!(%error, "leadership was not handed over");
        }
    }

    /// Stops in order: leadership goes to another voter, then nothing is left running or open.
    pub async fn shutdown(&self) {
        self.hand_over().await;
        let core = &self.inner.core;
        self.inner.stopping.cancel();
        if tokio::time::timeout(STOP_PATIENCE, core.raft.shutdown())
            .await
            .is_err()
        {
            tracing::warn!("consensus did not stop in time");
        }
        let tasks = std::mem::take(&mut *lock(&self.inner.tasks));
        let ended = futures::future::join_all(tasks);
        if tokio::time::timeout(STOP_PATIENCE, ended).await.is_err() {
            tracing::warn!("the peer port did not close in time");
        }
        let (log, archive) = (core.log.clone(), self.inner.archive.clone());
        let closing = tokio::task::spawn_blocking(move || {
            archive.close();
            log.close();
        });
        if closing.await.is_err() {
            tracing::error!("the log was not closed in order");
        }
        if let Some(runtime) = lock(&self.inner.runtime).take() {
            runtime.shutdown_background();
        }
        lock(&self.inner.lock).take();
    }

    /// Ends it as a crash would, as far as one process can: nothing is handed over, nothing is flushed.
    #[cfg(test)]
    pub fn abandon(&self) {
        self.inner.stopping.cancel();
        let runtime = lock(&self.inner.runtime).take();
        let ending = std::thread::spawn(|| runtime.map(|it| it.shutdown_timeout(STOP_PATIENCE)));
        ending
            .join()
            .expect("shutting a runtime down does not panic");
        self.inner.archive.close();
    }

    /// Runs what uses the network on Raft's own runtime.
    pub(crate) async fn on_runtime<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let handle = lock(&self.inner.runtime)
            .as_ref()
            .map(|runtime| runtime.handle().clone());
        let handle = handle.ok_or_else(Error::stopping)?;
        handle.spawn(work).await.map_err(|_| Error::stopping())?
    }
}
