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

use std::collections::BTreeMap;
use std::num::NonZero;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use model::{Addresses, ControllerId, Op, State, StateHashes, Timestamp};
use openraft::Raft;
use openraft::async_runtime::watch::WatchReceiver;
use openraft_rt_tokio::TokioRuntime;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::archive::Archive;
use crate::archived::keep_whole;
use crate::blobs::Blobs;
use crate::blocking::Blocking;
use crate::clock::{Clocks, Reading};
use crate::config::Config;
use crate::consensus::{NodeId, Types};
use crate::core::{Core, Parts, Patience};
use crate::durable;
use crate::error::Error;
use crate::fatal::FatalSignal;
use crate::held::{self, Holder};
use crate::leadership::Leadership;
use crate::machine::{EventStream, Machine, Published, Storage};
use crate::member::{Member, Node, lost_log};
use crate::membership::{Me, effective, log_of};
use crate::network::blobs::Exchange;
use crate::network::calls::Calls;
use crate::network::client::Network;
use crate::network::dial::Dialer;
use crate::network::guard::Guard;
use crate::network::port;
use crate::network::replication::Receiver;
use crate::network::segments::Fetcher;
use crate::network::service::Service;
use crate::network::tls::PeerTls;
use crate::node_file::{DirectoryLock, NodeFile};
use crate::proposer::{ClockSource, Committed};
use crate::read::Read;
use crate::snapshot::Shelf;
use crate::status::{Metrics, Status};
use crate::store::directory;
use crate::store::log::LogStore;
use crate::store::rotate::Growth;
use crate::sync::lock;
use crate::unfinished;
use crate::watched::Follower;

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

struct Inner {
    core: Arc<LocalCore>,
    archive: Arc<Archive>,
    holder: Holder,
    published: Arc<Published>,
    leadership: watch::Receiver<Leadership>,
    /// Handing over was tried: once is enough, for it may take seconds.
    handed_over: AtomicBool,
    stopping: CancellationToken,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    runtime: Mutex<Option<Runtime>>,
    lock: Mutex<Option<DirectoryLock>>,
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

/// What was opened on disk.
struct Disk {
    config: Config,
    lock: DirectoryLock,
    log: LogStore<TokioRuntime>,
    storage: Storage,
    fatal: FatalSignal,
}

impl Disk {
    fn identity(&self) -> Me {
        let config = &self.config;
        Me {
            id: config.id.0,
            cluster_id: config.cluster_id.clone(),
            generation: config.generation,
            node: Node {
                addresses: config.advertise.clone(),
                log: self.log.identity(),
            },
            versions: config.versions,
        }
    }

    fn overrides(&self) -> BTreeMap<NodeId, String> {
        let known = self.config.peer_addresses.iter();
        known.map(|(id, address)| (id.0, address.clone())).collect()
    }

    fn open(config: Config) -> Result<Self, Error> {
        let data: &Path = &config.data_dir;
        durable::create_dirs(data)?;
        let lock = DirectoryLock::take(data)?;
        let owner = NodeFile {
            cluster_id: config.cluster_id.clone(),
            node_id: config.id,
            generation: config.generation,
        };
        owner.claim(data)?;
        let fatal = FatalSignal::default();
        let log = directory::open_with(data, fatal.clone(), Growth::of(config.id.0))?;
        let storage = Storage {
            shelf: Arc::new(Shelf::open(data)?),
            archive: Archive::open(data, fatal.clone())?,
            blobs: Blobs::open(data)?,
        };
        // Where there is one, installing it says what the archive has to hold.
        if storage.shelf.current().is_none() {
            storage.archive.settle(&State::default())?;
        }
        Ok(Self {
            config,
            lock,
            log,
            storage,
            fatal,
        })
    }
}

async fn assemble(
    disk: Disk,
    consensus: Arc<openraft::Config>,
    tls: PeerTls,
) -> Result<(Inner, EventStream), Error> {
    let me = disk.identity();
    let dialer = Dialer::new(me.clone(), &tls, disk.overrides());
    let archive = disk.storage.archive.clone();
    let segments = Fetcher::new(&dialer, &archive);
    let exchange = Exchange::new(&dialer, &disk.storage.blobs);
    let network = Network::new(dialer.clone());
    let (published, events) = Published::new();
    let raft = start_raft(&disk, consensus, &network, &published).await?;
    let Disk {
        config,
        lock,
        log,
        storage,
        fatal,
    } = disk;
    let stopping = CancellationToken::new();
    let core = Core::start(Parts {
        raft: raft.clone(),
        log: log.clone(),
        published: published.clone(),
        peers: Arc::new(Calls::new(dialer)),
        me: me.clone(),
        clock: machine_clocks(),
        patience: patience(&config),
        snapshot_bytes: config.snapshot_bytes,
        fatal: fatal.clone(),
        stopping: stopping.clone(),
    });
    let guard = guard(me, raft.clone());
    let receiver = Receiver::new(guard.clone(), raft.clone());
    let service = Service {
        guard,
        raft,
        log,
        storage,
        published: published.clone(),
        segments: segments.clone(),
        exchange: exchange.clone(),
        rounds: core.rounds.clone(),
        receiving: Semaphore::new(1),
        election: core.election.clone(),
    };
    let port = port::serve(
        service,
        receiver,
        config.raft_listener,
        tls.server,
        stopping.clone(),
        fatal,
    )?;
    let (told, leadership) = watch::channel(core.leadership.get());
    let mut tasks = spawn_followers(&core, network, told);
    tasks.push(port);
    let whole = keep_whole(segments, core.raft.clone(), published.clone());
    let watched = core.fatal.watch("completing the archive", whole);
    tasks.push(tokio::spawn(until(stopping.clone(), watched)));
    let (holder, beside) = held::start(&exchange, &core, &published, &stopping);
    tasks.extend(beside);
    let inner = Inner {
        core,
        archive,
        holder,
        published,
        leadership,
        handed_over: AtomicBool::new(false),
        stopping,
        tasks: Mutex::new(tasks),
        runtime: Mutex::new(None),
        lock: Mutex::new(Some(lock)),
    };
    Ok((inner, events))
}

fn guard(me: Me, raft: Raft<Types<TokioRuntime>, Machine<TokioRuntime>>) -> Guard {
    Guard::new(me, Arc::new(move |id| log_of(&raft, id)))
}

fn patience(config: &Config) -> Patience {
    Patience {
        propose: config.propose_timeout,
        read: config.patience,
    }
}

/// Work that need not come to its end.
pub async fn until(stopping: CancellationToken, work: impl Future<Output = ()>) {
    stopping.run_until_cancelled(work).await;
}

/// The tasks that follow what consensus reports, until the member stops.
fn spawn_followers(
    core: &Arc<LocalCore>,
    network: Network,
    told: watch::Sender<Leadership>,
) -> Vec<JoinHandle<()>> {
    let fatal = &core.fatal;
    let membership = follow_membership(core.raft.clone(), network);
    let telling = tell(core.leadership.clone(), told);
    let finishing = unfinished::watch(core.clone());
    vec![
        tokio::spawn(fatal.watch("finishing changes of the membership", finishing)),
        tokio::spawn(fatal.watch("following the membership", membership)),
        tokio::spawn(fatal.watch("telling who leads", telling)),
    ]
}

/// Applies what is known to be committed, without events, and then starts.
async fn start_raft(
    disk: &Disk,
    consensus: Arc<openraft::Config>,
    network: &Network,
    published: &Arc<Published>,
) -> Result<Raft<Types<TokioRuntime>, Machine<TokioRuntime>>, Error> {
    let machine = Machine::new(
        published.clone(),
        disk.storage.clone(),
        disk.fatal.clone(),
        Blocking::OwnThread,
        disk.config.versions,
    );
    let me = network.me();
    let raft = Raft::build(me.id, consensus, network.clone(), disk.log.clone(), machine).await;
    let raft = raft.map_err(|error| {
        let first = disk.fatal.reason().map(|reason| reason.to_string());
        Error::Fatal(first.unwrap_or_else(|| error.to_string()))
    })?;
    let recovered = published.view();
    let (ours, found) = (&me.cluster_id, recovered.state.cluster_id());
    if !found.is_empty() && found != ours {
        return Err(Error::Rejected(format!(
            "{} holds the state of cluster {found}, not of {ours}",
            disk.config.data_dir.display()
        )));
    }
    // A snapshot outlived the log: what this member voted and acknowledged is forgotten.
    let known = recovered.membership.get_node(&me.id);
    if known.is_some_and(|known| known.log != me.node.log) {
        return Err(Error::Rejected(lost_log(me.id)));
    }
    published.go_live();
    raft.run();
    Ok(raft)
}

/// Passes leadership on in tokio's own form, which callers can select on.
async fn tell(mut from: Follower<Leadership>, to: watch::Sender<Leadership>) {
    to.send_replace(from.get());
    while let Ok(now) = from.changed().await {
        to.send_replace(now);
    }
}

/// Tells the network where the members are, whenever that changes.
async fn follow_membership(
    raft: Raft<Types<TokioRuntime>, Machine<TokioRuntime>>,
    network: Network,
) {
    let mut server = raft.server_metrics();
    loop {
        network.know(effective(&raft).nodes());
        // Consensus has stopped; who follows leadership tells why.
        if server.changed().await.is_err() {
            return;
        }
    }
}

/// The machine's own clocks.
fn machine_clocks() -> ClockSource {
    let start = Instant::now();
    Arc::new(move || {
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Clocks {
            monotonic_micros: u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX),
            wall: Timestamp(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)),
        }
    })
}
