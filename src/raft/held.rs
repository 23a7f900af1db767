//! Blobs on the disks of a majority, before the entry that names them is proposed.
//!
//! ```text
//!  hold(blobs) ──► one round for what was asked for meanwhile
//!                    ├── here: write, or fetch from whoever has them
//!                    └── each other voter: "please have these" (small ones travel along)
//!                  a majority of the voters in force says yes ──► Held(index of their membership entry)
//! ```
//!
//! `apply` refuses the entry where another membership was in force at its index, so it never stands in the log without a
//! majority of *its* voters having had the bytes. That they still have them then is the pin's doing: ten minutes, after
//! which a quorum has to confirm a read before anything is deleted ([`collect`]). An entry that takes longer than that from
//! its proposal to its commit may find its blobs gone; its proposer has long been told that the outcome is unknown.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::FuturesUnordered;
use futures::{Stream, StreamExt};
use model::{BlobDigest, BlobRef, Held};
use openraft::Raft;
use openraft_rt_tokio::TokioRuntime;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::assembly::until;
use crate::blobs::{BlobStats, Blobs, Progress};
use crate::cluster::{Cluster, LocalCore};
use crate::consensus::{NodeId, StoredMembership, Types};
use crate::error::Error;
use crate::fatal::FatalSignal;
use crate::machine::{Machine, Published};
use crate::member::Node;
use crate::membership::{effective, others};
use crate::network::blobs::{Exchange, Item, pieces};
use crate::network::blocking;
use crate::space::Space;

/// What one round takes at most; small enough that it never fills a message.
const ROUND_ITEMS: usize = 256;
const ROUND_BYTES: usize = 1 << 20;
/// Rounds under way at once.
const ROUNDS: usize = 4;
/// Requests that wait for a round.
const WAITING: usize = 1_024;
/// How long a round may take.
const ROUND_LIMIT: Duration = Duration::from_secs(60);
/// Between two looks at what is missing, where fetching did not help.
const PAUSE: Duration = Duration::from_secs(1);
/// What has just been named is mostly on its way already.
const MOMENT: Duration = Duration::from_millis(500);
/// Bytes a second that are read again by the way; and the least time for one blob.
const SCRUB_BYTES: u64 = 8 << 20;
const SCRUB_LEAST: Duration = Duration::from_millis(5);
/// From the end of one round of that to the next.
const SCRUB_EVERY: Duration = Duration::from_secs(3_600);
/// Between two looks at what may be deleted.
const COLLECT_EVERY: Duration = Duration::from_secs(60);

/// Why a majority does not have what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HoldError {
    /// Nobody has it: it was never put, or too long ago.
    #[error("no controller has blob {0}")]
    Nowhere(BlobRef),
    /// The disks take nothing more: this controller's, or too many of the others'.
    #[error("{0}")]
    NoRoom(String),
    #[error(transparent)]
    Other(#[from] Error),
}

/// A request to have these on a majority.
struct Ask {
    items: Vec<Item>,
    /// Where they begin among those of its round.
    at: usize,
    answer: oneshot::Sender<Result<Held, HoldError>>,
}

impl Ask {
    /// What has to be fetched may take long: nobody else should wait for it.
    fn is_quick(&self) -> bool {
        self.items.iter().all(|item| item.bytes.is_some())
    }

    fn size(&self) -> (usize, usize) {
        let bytes = self.items.iter().flat_map(|item| &item.bytes);
        (self.items.len(), bytes.map(Bytes::len).sum())
    }
}

/// The way to a round.
#[derive(Clone)]
pub struct Holder {
    asks: mpsc::Sender<Ask>,
    exchange: Exchange,
}

type LocalRaft = Raft<Types<TokioRuntime>, Machine<TokioRuntime>>;

impl Holder {
    /// Its rounds run where this is called.
    pub fn start(exchange: Exchange, raft: LocalRaft, fatal: &FatalSignal) -> Self {
        let (asks, waiting) = mpsc::channel(WAITING);
        let rounds = rounds(exchange.clone(), raft, waiting);
        drop(tokio::spawn(fatal.watch("holding blobs", rounds)));
        Self { asks, exchange }
    }
}

/// All that goes on by itself: rounds, what is missing, what may be deleted.
pub fn start(
    exchange: &Exchange,
    core: &Arc<LocalCore>,
    published: &Arc<Published>,
    stopping: &CancellationToken,
) -> (Holder, [JoinHandle<()>; 3]) {
    let fatal = &core.fatal;
    let holder = Holder::start(exchange.clone(), core.raft.clone(), fatal);
    let fetching = keep_blobs(exchange.clone(), core.raft.clone(), published.clone());
    let fetching = fatal.watch("completing the blobs", fetching);
    let collecting = collect(exchange.clone(), core.clone(), published.clone());
    let collecting = fatal.watch("deleting blobs", collecting);
    let scrubbing = fatal.watch("reading blobs again", scrub(exchange.blobs.clone()));
    let tasks = [
        tokio::spawn(until(stopping.clone(), scrubbing)),
        tokio::spawn(until(stopping.clone(), fetching)),
        tokio::spawn(until(stopping.clone(), collecting)),
    ];
    (holder, tasks)
}

async fn rounds(exchange: Exchange, raft: LocalRaft, mut waiting: mpsc::Receiver<Ask>) {
    let turns = Arc::new(Semaphore::new(ROUNDS));
    let fetching = Arc::new(Semaphore::new(ROUNDS));
    let mut next = None;
    loop {
        let first = match next.take() {
            Some(ask) => ask,
            None => match waiting.recv().await {
                Some(ask) => ask,
                None => return,
            },
        };
        let one = (exchange.clone(), raft.clone());
        if !first.is_quick() {
            let fetching = fetching.clone();
            tokio::spawn(async move {
                // It is never closed.
                let _turn = fetching.acquire().await;
                in_time(one, vec![first]).await;
            });
            continue;
        }
        let Ok(turn) = turns.clone().acquire_owned().await else {
            return;
        };
        let (mut items, mut bytes) = first.size();
        let mut asks = vec![first];
        while let Ok(ask) = waiting.try_recv() {
            let size = ask.size();
            items += size.0;
            bytes += size.1;
            if !ask.is_quick() || items > ROUND_ITEMS || bytes > ROUND_BYTES {
                next = Some(ask);
                break;
            }
            asks.push(ask);
        }
        tokio::spawn(async move {
            in_time(one, asks).await;
            drop(turn);
        });
    }
}

/// A round that ends.
async fn in_time((exchange, raft): (Exchange, LocalRaft), mut asks: Vec<Ask>) {
    asks.retain(|ask| !ask.answer.is_closed());
    let members = effective(&raft);
    let round = tokio::time::timeout(ROUND_LIMIT, round(exchange, &members, &mut asks));
    if round.await.is_err() {
        for ask in asks {
            let why = "too few controllers have what the task needs, after a minute";
            // Whoever asked may have gone.
            ask.answer.send(Err(Error::busy(why).into())).ok();
        }
    }
}

/// Answers each as soon as a majority has all of it.
async fn round(exchange: Exchange, members: &StoredMembership, asks: &mut Vec<Ask>) {
    let mut items: Vec<Item> = Vec::new();
    for ask in asks.iter_mut() {
        ask.at = items.len();
        items.extend(ask.items.iter().cloned());
    }
    let items: Arc<[Item]> = items.into();
    let me = exchange.me();
    let peers = others(members, me, None);
    let mut holders: Vec<BTreeSet<NodeId>> = vec![BTreeSet::new(); items.len()];
    let quick = items.iter().all(|item| item.bytes.is_some());
    // What has no bytes comes here first: the others fetch it from here.
    if !quick && let Err(why) = here(&exchange, &items, &peers, &mut holders).await {
        return answer(members, &holders, asks, Some(&why));
    }
    let mut answers: FuturesUnordered<_> = peers
        .iter()
        .filter(|(id, _)| members.voter_ids().any(|voter| voter == *id))
        .cloned()
        .map(|(id, node)| {
            let (exchange, items) = (exchange.clone(), Arc::clone(&items));
            // Goes on when the majority is complete: the others need it, too.
            let asked = async move {
                let held = exchange.ask(&items, id, &node).await;
                let held = held.inspect_err(|error| {
                    tracing::debug!(to = id, %error, "a member does not hold blobs");
                });
                held.map(|reply| (id, reply)).ok()
            };
            tokio::spawn(asked)
        })
        .collect();
    if quick && let Err(why) = here(&exchange, &items, &peers, &mut holders).await {
        return answer(members, &holders, asks, Some(&why));
    }
    answer(members, &holders, asks, None);
    let mut full = false;
    while !asks.is_empty()
        && let Some(told) = answers.next().await
    {
        let Ok(Some((id, reply))) = told else {
            continue;
        };
        full |= reply.full;
        let held = reply.held;
        for (holders, _) in holders.iter_mut().zip(held).filter(|(_, held)| *held) {
            holders.insert(id);
        }
        answer(members, &holders, asks, None);
    }
    let why = match full {
        true => HoldError::NoRoom("the disks of other controllers take nothing more".to_owned()),
        false => {
            let why = "too few controllers have on disk what belongs to this";
            HoldError::Other(Error::no_quorum(why))
        }
    };
    answer(members, &holders, asks, Some(&why));
}

/// Has them on this controller's own disk, or says why not.
async fn here(
    exchange: &Exchange,
    items: &[Item],
    peers: &[(NodeId, Node)],
    holders: &mut [BTreeSet<NodeId>],
) -> Result<(), HoldError> {
    let had = exchange.have(items, peers).await.map_err(|error| {
        tracing::error!(%error, "blobs can't be kept here");
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                HoldError::NoRoom(error.to_string())
            }
            _ => HoldError::Other(Error::busy(error.to_string())),
        }
    })?;
    for ((item, holders), had) in items.iter().zip(holders).zip(had) {
        match had {
            true => holders.insert(exchange.me()),
            false => return Err(HoldError::Nowhere(item.blob)),
        };
    }
    Ok(())
}

/// Answers those whose blobs a majority of the voters has; with a reason to give up, the others too.
fn answer(
    members: &StoredMembership,
    holders: &[BTreeSet<NodeId>],
    asks: &mut Vec<Ask>,
    give_up: Option<&HoldError>,
) {
    let has_majority = |ask: &Ask| {
        let mut holders = holders[ask.at..].iter().take(ask.items.len());
        holders.all(|holders| is_majority(members, holders))
    };
    for ask in std::mem::take(asks) {
        let answer = match (has_majority(&ask), give_up) {
            (true, _) => Ok(Held(membership_index(members))),
            (false, Some(why)) => Err(why.clone()),
            (false, None) => {
                asks.push(ask);
                continue;
            }
        };
        // Whoever asked may have gone.
        ask.answer.send(answer).ok();
    }
}

/// Of every configuration in force: two while a change of the membership is half done.
fn is_majority(members: &StoredMembership, holders: &BTreeSet<NodeId>) -> bool {
    let mut configs = members.membership().get_joint_config().iter();
    configs.all(|voters| 2 * voters.intersection(holders).count() > voters.len())
}

/// By which the entries after it know it.
pub fn membership_index(members: &StoredMembership) -> u64 {
    members.log_id().as_ref().map_or(0, |id| id.index)
}

impl Cluster {
    /// Has blobs on the disks of a majority of the voters, from their bytes or from whoever has them. On any member.
    pub async fn hold(&self, blobs: Vec<(BlobRef, Option<Bytes>)>) -> Result<Held, HoldError> {
        let items = blobs.into_iter();
        let items = items.map(|(blob, bytes)| Item { blob, bytes }).collect();
        let (answer, answered) = oneshot::channel();
        let ask = Ask {
            items,
            at: 0,
            answer,
        };
        let asked = self.holder().asks.send(ask).await;
        asked.map_err(|_| Error::stopping())?;
        answered.await.map_err(|_| Error::stopping())?
    }

    /// How much of a blob is on this controller's disk.
    pub async fn blob_progress(&self, blob: BlobRef) -> io::Result<Progress> {
        let blobs = self.holder().exchange.blobs.clone();
        blocking(move || blobs.progress(&blob)).await
    }

    /// Takes some bytes of a blob to this controller's disk.
    pub async fn append_blob(
        &self,
        blob: BlobRef,
        offset: u64,
        bytes: Bytes,
    ) -> io::Result<Progress> {
        let blobs = self.holder().exchange.blobs.clone();
        blocking(move || blobs.append(&blob, offset, &bytes)).await
    }

    /// The bytes of a blob from an offset on, which another controller may have to send first.
    pub async fn read_blob(
        &self,
        blob: BlobRef,
        offset: u64,
    ) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + 'static, Error> {
        let exchange = self.holder().exchange.clone();
        let raft = self.raft();
        let begun = self.on_runtime(async move {
            let blobs = &exchange.blobs;
            let read = || pieces(blobs.clone(), blob, offset);
            let unreadable = |error: io::Error| Error::busy(error.to_string());
            if let Some(pieces) = read().await.map_err(unreadable)? {
                return Ok(pieces);
            }
            let peers = others(&effective(&raft), exchange.me(), None);
            let fetched = exchange.fetch(&blob, &peers).await;
            fetched.map_err(|error| Error::busy(format!("blob {blob} is not here: {error}")))?;
            let pieces = read().await.map_err(unreadable)?;
            pieces.ok_or_else(|| Error::busy(format!("blob {blob} is not here")))
        });
        begun.await
    }

    /// The same, all at once: for what is known to be small.
    pub async fn read_small_blob(&self, blob: BlobRef) -> Result<Bytes, Error> {
        let mut pieces = Box::pin(self.read_blob(blob, 0).await?);
        let mut whole = Vec::new();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| Error::busy(error.to_string()))?;
            whole.extend_from_slice(&piece);
        }
        Ok(whole.into())
    }

    /// What the state refers to and this controller lacks, as it changes.
    pub fn missing_blobs(&self) -> watch::Receiver<Arc<BTreeSet<BlobDigest>>> {
        self.holder().exchange.blobs.missing()
    }

    /// What is left of the disk of the data directory.
    pub async fn disk_space(&self) -> io::Result<Space> {
        let blobs = self.holder().exchange.blobs.clone();
        blocking(move || blobs.space()).await
    }

    pub fn blob_stats(&self) -> BlobStats {
        self.holder().exchange.blobs.stats()
    }

    /// As if so much time had passed since anybody asked for this one, and it were time to delete.
    #[cfg(test)]
    pub async fn collect_after(&self, blob: BlobRef, passed: Duration) -> io::Result<usize> {
        let blobs = &self.holder().exchange.blobs;
        blobs.grow_older(&blob, passed);
        collect_once(blobs, self.core(), self.published()).await
    }
}

/// What the state refers to and is not here comes from another member.
async fn keep_blobs(exchange: Exchange, raft: LocalRaft, published: Arc<Published>) {
    let mut missing = exchange.blobs.missing();
    loop {
        if missing
            .wait_for(|missing| !missing.is_empty())
            .await
            .is_err()
        {
            return;
        }
        tokio::time::sleep(MOMENT).await;
        let wanted = missing.borrow_and_update().clone();
        // The entry that took the last mention of one may have come meanwhile.
        let state = published.view().state.clone();
        exchange.blobs.give_up(&state);
        let known = state.blobs().filter(|blob| wanted.contains(&blob.digest));
        let known: Vec<BlobRef> = known.collect();
        let peers = others(&effective(&raft), exchange.me(), None);
        let came = exchange.repair(&known, &peers).await;
        // Where all came there may be more.
        if came == 0 || came < known.len() {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Reads all blobs again and again, slowly. What has changed is then missing, and comes from another member.
async fn scrub(blobs: Arc<Blobs>) {
    loop {
        let mut last = None;
        loop {
            let blobs = blobs.clone();
            // No thread for it: this process is ending.
            let Ok(Some(blob)) = blocking(move || Ok(blobs.scrub_after(last))).await else {
                break;
            };
            last = Some(blob.digest);
            let pause = Duration::from_millis(blob.size.saturating_mul(1_000) / SCRUB_BYTES);
            tokio::time::sleep(pause.max(SCRUB_LEAST)).await;
        }
        tokio::time::sleep(SCRUB_EVERY).await;
    }
}

async fn collect(exchange: Exchange, core: Arc<LocalCore>, published: Arc<Published>) {
    loop {
        tokio::time::sleep(COLLECT_EVERY).await;
        match collect_once(&exchange.blobs, &core, &published).await {
            Ok(0) => {}
            Ok(collected) => tracing::info!(collected, "deleted blobs that nothing refers to"),
            Err(error) => tracing::warn!(%error, "blobs that nothing refers to stay"),
        }
    }
}

/// Deletes what nothing refers to any more. Asked of a quorum first, after the pin has run out: an entry that was
/// proposed while it lasted is in the log of whoever leads by then, and before what the quorum confirms.
async fn collect_once(
    blobs: &Arc<Blobs>,
    core: &LocalCore,
    published: &Published,
) -> io::Result<usize> {
    let view = published.view();
    if !blobs.has_old(|digest| view.state.has_blob(digest)) {
        return Ok(0);
    }
    if let Err(error) = core.read(|_| ()).await {
        tracing::debug!(%error, "no blob is deleted without a quorum");
        return Ok(0);
    }
    let (blobs, view) = (blobs.clone(), published.view());
    blocking(move || blobs.collect(|digest| view.state.has_blob(digest))).await
}
