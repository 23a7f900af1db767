//! The parts of a member that need no socket, put together: proposals, reads, membership, the quick election,
//! on any runtime and any network. `Cluster` gives it tokio and sockets; a simulation gives it something else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use model::{ControllerId, Op, State, StateHashes, Timestamp};
use mutant::Mutant;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::{AsyncRuntime, Instant, Raft};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::clock::Reading;
use crate::consensus::{Types, term_of};
use crate::election::QuickElection;
use crate::error::Error;
use crate::fatal::FatalSignal;
use crate::leadership::{self, Leadership, leader_of};
use crate::machine::{Machine, Published, View};
use crate::member::controller;
use crate::membership::{Me, Members};
use crate::peers::Peers;
use crate::proposer::{ClockSource, Committed, Proposer, Stamper};
use crate::read::{MemberRound, Read, Rounds};
use crate::status::{Metrics, Status};
use crate::store::log::LogStore;
use crate::timings::Timings;
use crate::versions::{self, Raising};
use crate::watched::{Follower, Watched};

/// How long the members may wait for each other.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    pub propose: Duration,
    pub read: Duration,
}

/// Pause before the founding entry is proposed again.
const FOUND_PAUSE: Duration = Duration::from_millis(200);

pub struct Core<R: AsyncRuntime, P> {
    pub raft: Raft<Types<R>, Machine<R>>,
    pub log: LogStore<R>,
    pub members: Members<R, P>,
    pub leadership: Follower<Leadership>,
    pub fatal: FatalSignal,
    /// A round of the leader's, shared with the followers that ask.
    pub rounds: Arc<Rounds>,
    pub election: Arc<QuickElection<R, P>>,
    published: Arc<Published>,
    reads: Arc<Rounds>,
    proposer: Proposer<R>,
    stamper: Arc<Stamper>,
    patience: Patience,
    leader_changes: Arc<AtomicU64>,
    term_changes: Arc<AtomicU64>,
}

/// What a core is made of.
pub struct Parts<R: AsyncRuntime, P> {
    pub raft: Raft<Types<R>, Machine<R>>,
    pub log: LogStore<R>,
    pub published: Arc<Published>,
    pub peers: Arc<P>,
    pub me: Me,
    pub clock: ClockSource,
    pub patience: Patience,
    /// Bytes of log after which a snapshot is taken, however few entries they are.
    pub snapshot_bytes: u64,
    pub fatal: FatalSignal,
    /// Cancelled when the member is asked to stop, so that stopping is no failure.
    pub stopping: CancellationToken,
}

impl<R: AsyncRuntime, P: Peers> Core<R, P> {
    /// Starts the tasks. Must be called on the runtime that is to run them.
    pub fn start(parts: Parts<R, P>) -> Arc<Self> {
        let Parts {
            raft,
            log,
            published,
            peers,
            me,
            clock,
            patience,
            snapshot_bytes,
            fatal,
            stopping,
        } = parts;
        let watched = Watched::new(Leadership::default());
        let leadership = watched.follow();
        let follow = leadership::follow(
            raft.clone(),
            published.clone(),
            watched,
            fatal.clone(),
            stopping.clone(),
        );
        drop(R::spawn(fatal.watch("following leadership", follow)));
        let bound = snapshot_by_size(raft.clone(), log.shared().appended.follow(), snapshot_bytes);
        drop(R::spawn(fatal.watch("bounding the log", bound)));
        let rounds = Rounds::of_leader(raft.clone(), &fatal);
        let member_round = MemberRound {
            raft: raft.clone(),
            peers: peers.clone(),
            leadership: leadership.clone(),
            own: rounds.clone(),
            patience: patience.read,
        };
        let reads = Rounds::of_member(member_round, &fatal);
        let stamper = Arc::new(Stamper::new(clock, published.clone()));
        let proposer = Proposer::spawn(
            raft.clone(),
            stamper.clone(),
            leadership.clone(),
            patience.propose,
            &fatal,
        );
        let election = QuickElection::new(raft.clone(), log.clone(), peers.clone(), me.id);
        let members = Members {
            raft: raft.clone(),
            published: published.clone(),
            peers,
            me,
            one_at_a_time: Mutex::new(()),
            raising: Raising::default(),
        };
        let core = Arc::new(Self {
            raft,
            log,
            members,
            leadership,
            fatal,
            rounds,
            election: Arc::new(election),
            published,
            reads,
            proposer,
            stamper,
            patience,
            leader_changes: Arc::default(),
            term_changes: Arc::default(),
        });
        Self::spawn_followers(&core, stopping);
        core
    }

    fn spawn_followers(core: &Arc<Self>, stopping: CancellationToken) {
        let counting = count_changes(
            core.leadership.clone(),
            core.leader_changes.clone(),
            core.term_changes.clone(),
        );
        drop(R::spawn(core.fatal.watch("counting changes", counting)));
        let founding = found(Arc::downgrade(core), core.leadership.clone());
        drop(R::spawn(core.fatal.watch("founding", founding)));
        let raising = versions::watch(Arc::downgrade(core), core.leadership.clone());
        drop(R::spawn(
            core.fatal.watch("raising the state version", raising),
        ));
        let (election, leadership) = (core.election.clone(), core.leadership.clone());
        let electing = async move {
            // A question to another member may be under way, which need not be waited for.
            stopping
                .run_until_cancelled(election.watch(leadership))
                .await;
        };
        drop(R::spawn(core.fatal.watch("the quick election", electing)));
    }

    pub fn view(&self) -> Arc<View> {
        self.published.view()
    }

    pub fn state_hashes(&self) -> StateHashes {
        self.published.state_hashes()
    }

    pub async fn propose(&self, ops: Vec<Op>, wall: Timestamp) -> Result<Committed, Error> {
        self.living()?;
        self.proposer.propose(ops, wall).await
    }

    pub async fn read<T>(&self, look: impl FnOnce(&State) -> T) -> Result<Read<T>, Error> {
        self.living()?;
        if !mutant::is(Mutant::StaleRead) {
            let wanted = self.reads.join().await?.index;
            self.wait_applied(wanted).await?;
        }
        let view = self.published.view();
        let (index, term) = view.applied.map_or((0, 0), |id| (id.index, term_of(&id)));
        Ok(Read {
            value: look(&view.state),
            index,
            term,
        })
    }

    pub async fn confirm(&self) -> Result<u64, Error> {
        self.living()?;
        let now = self.leadership.get();
        if !now.is_me {
            return Err(Error::NotLeader {
                leader: leader_of(&self.raft, now),
            });
        }
        if mutant::is(Mutant::LeaseWithoutQuorum) {
            return Ok(self.view().state.last_applied());
        }
        Ok(self.rounds.join().await?.index)
    }

    /// The machine's wall clock, for display.
    pub fn wall(&self) -> Timestamp {
        self.stamper.wall()
    }

    pub fn now(&self) -> Reading {
        self.stamper.now(self.leadership.get())
    }

    /// Makes this member a cluster of one, and waits until that cluster can be written to.
    pub async fn initialize(&self) -> Result<(), Error> {
        self.members.initialize().await?;
        let generation = self.members.me.generation;
        let mut applied = self.published.applied();
        let founded = async {
            while self.published.view().state.generation() < generation {
                applied.changed().await.ok()?;
            }
            Some(())
        };
        match R::timeout(self.patience.propose, founded).await {
            Ok(Some(())) => Ok(()),
            Ok(None) => Err(Error::stopping()),
            Err(_) => Err(Error::Unknown(
                "the first entry is not committed yet".to_owned(),
            )),
        }
    }

    async fn wait_applied(&self, index: u64) -> Result<(), Error> {
        let mut applied = self.published.applied();
        let reached = applied.wait_for(|applied| applied.is_some_and(|id| id.index >= index));
        match R::timeout(self.patience.read, reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Error::stopping()),
            Err(_) => Err(Error::busy(format!(
                "this controller has not applied entry {index} within {:?}",
                self.patience.read
            ))),
        }
    }

    fn living(&self) -> Result<(), Error> {
        match self.fatal.reason() {
            None => Ok(()),
            Some(reason) => Err(Error::Fatal(reason.to_string())),
        }
    }

    pub fn status(&self) -> Status {
        let view = self.view();
        let metrics = self.metrics();
        let some = |index: u64| (index > 0).then_some(index);
        Status {
            id: controller(self.members.me.id),
            cluster_id: self.members.me.cluster_id.clone(),
            generation: self.members.me.generation,
            leadership: self.leadership.get(),
            members: self.members.list(),
            applied: metrics.applied,
            committed: metrics.committed,
            last_log: metrics.last_log,
            snapshot: some(metrics.snapshot),
            purged: some(metrics.purged),
            state_hash: view.state.hash(),
            hash_at: view.state.hash_at(),
        }
    }

    pub fn metrics(&self) -> Metrics {
        let raft = self.raft.metrics().borrow_watched().clone();
        let index = |id: Option<crate::consensus::LogId>| id.map_or(0, |id| id.index);
        let last = raft.last_log_index.unwrap_or_default();
        let lag = raft
            .replication
            .iter()
            .flatten()
            .filter(|(id, _)| **id != raft.id);
        Metrics {
            term: raft.current_term,
            is_leader: raft.current_leader == Some(raft.id),
            applied: index(self.view().applied),
            committed: index(raft.cluster_committed),
            last_log: last,
            snapshot: index(raft.snapshot),
            purged: index(raft.purged),
            term_changes: self.term_changes.load(Ordering::Relaxed),
            leader_changes: self.leader_changes.load(Ordering::Relaxed),
            quick_elections: self.election.called(),
            last_quorum_ack: raft.last_quorum_acked.map(|at| at.elapsed()),
            lag: lag
                .map(|(id, matched)| (controller(*id), last.saturating_sub(index(*matched))))
                .collect(),
            store: self.log.shared().stats.read(),
        }
    }

    pub fn timings(&self) -> Timings {
        Timings {
            apply: self.published.applying(),
            log_write: self.log.shared().stats.writes(),
        }
    }

    pub fn address_of(&self, id: ControllerId) -> Option<model::Addresses> {
        self.members
            .effective()
            .get_node(&id.0)
            .map(|node| node.addresses.clone())
    }
}

/// openraft counts entries, and they differ in size by a factor of thousands: without this the log on disk
/// could grow to many gigabytes between two snapshots. A restart begins to count anew.
async fn snapshot_by_size<R: AsyncRuntime>(
    raft: Raft<Types<R>, Machine<R>>,
    mut appended: Follower<u64>,
    limit: u64,
) {
    let (mut since, mut last) = (0, None);
    while let Ok(now) = appended.changed().await {
        let snapshot = raft.metrics().borrow_watched().snapshot;
        if snapshot != last {
            (since, last) = (now, snapshot);
        }
        if now - since < limit {
            continue;
        }
        since = now;
        if raft.trigger().snapshot().await.is_err() {
            return;
        }
    }
}

async fn count_changes(
    mut leadership: Follower<Leadership>,
    leaders: Arc<AtomicU64>,
    terms: Arc<AtomicU64>,
) {
    let mut before = leadership.get();
    while let Ok(now) = leadership.changed().await {
        if now.leader != before.leader && now.leader.is_some() {
            leaders.fetch_add(1, Ordering::Relaxed);
        }
        if now.term != before.term {
            terms.fetch_add(1, Ordering::Relaxed);
        }
        before = now;
    }
}

/// The first entry of a cluster, or of a new generation of it, says which one it is. Whoever leads and finds
/// it missing proposes it.
async fn found<R: AsyncRuntime, P: Peers>(
    core: std::sync::Weak<Core<R, P>>,
    mut leadership: Follower<Leadership>,
) {
    loop {
        if leadership.wait_for(|now| now.ready).await.is_err() {
            return;
        }
        let Some(core) = core.upgrade() else { return };
        let me = &core.members.me;
        if core.view().state.generation() < me.generation {
            let ops = versions::founding(me, &core.view().state);
            if let Err(error) = core.propose(ops, core.wall()).await {
                tracing::warn!(%error, "the founding entry was not committed");
                R::sleep(FOUND_PAUSE).await;
            }
            continue;
        }
        drop(core);
        let stays = leadership.wait_for(|now| !now.ready).await;
        if stays.is_err() {
            return;
        }
    }
}
