//! From a configuration to a running member: the disk is opened, what was committed is applied, consensus starts, and with
//! it all that follows it until the member stops.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use model::{State, Timestamp};
use openraft::Raft;
use openraft::async_runtime::watch::WatchReceiver;
use openraft_rt_tokio::TokioRuntime;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::archive::Archive;
use crate::archived::keep_whole;
use crate::blobs::Blobs;
use crate::blocking::Blocking;
use crate::clock::Clocks;
use crate::cluster::{Inner, LocalCore};
use crate::config::Config;
use crate::consensus::{NodeId, Types};
use crate::core::{Core, Parts, Patience};
use crate::error::Error;
use crate::fatal::FatalSignal;
use crate::held::{self};
use crate::leadership::Leadership;
use crate::machine::{EventStream, Machine, Published, Storage};
use crate::member::{Node, lost_log};
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
use crate::proposer::ClockSource;
use crate::snapshot::Shelf;
use crate::store::directory;
use crate::store::log::LogStore;
use crate::store::rotate::Growth;
use crate::unfinished;
use crate::watched::Follower;

/// What was opened on disk.
pub struct Disk {
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

    pub fn open(config: Config) -> Result<Self, Error> {
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

pub async fn assemble(
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
    let (config, lock, log) = (disk.config, disk.lock, disk.log);
    let (storage, fatal) = (disk.storage, disk.fatal);
    let stopping = CancellationToken::new();
    let core = Core::start(Parts {
        peers: Arc::new(Calls::new(dialer)),
        clock: machine_clocks(),
        patience: patience(&config),
        snapshot_bytes: config.snapshot_bytes,
        raft: raft.clone(),
        log: log.clone(),
        published: published.clone(),
        me: me.clone(),
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
    tasks.push(complete_archive(segments, &core, &published, &stopping));
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

fn complete_archive(
    segments: Fetcher,
    core: &Arc<LocalCore>,
    published: &Arc<Published>,
    stopping: &CancellationToken,
) -> JoinHandle<()> {
    let whole = keep_whole(segments, core.raft.clone(), published.clone());
    let watched = core.fatal.watch("completing the archive", whole);
    tokio::spawn(until(stopping.clone(), watched))
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
