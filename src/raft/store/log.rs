//! openraft's log storage on top of the journal.
//!
//! An appended entry is readable at once, from the cache, and acknowledged when the journal has it on
//! disk; nothing here waits for the disk except `save_vote`. Reads of the recent end never leave memory;
//! older entries, which a member far behind needs, come from the engine on a thread of their own.

use std::fmt::Debug;
use std::io;
use std::marker::PhantomData;
use std::ops::{Bound, ControlFlow, Range, RangeBounds};
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{AsyncRuntime, EntryPayload, OptionalSend};
use tokio::sync::oneshot;

use super::cache::Cache;
use super::codec::{decode_entry, encode_entry, record_length};
use super::engine::{Batch, LogEngine};
use super::journal::{Ack, Change, Write};
use super::key::{self, PartKey};
use super::stats::StatsRecorder;
use super::writer::Writer;
use crate::blocking::Blocking;
use crate::consensus::{Entry, LogId, Types, Vote, next_index, term_of};
use crate::member::LogIdentity;
use crate::payload::Payload;
use crate::sync::lock;
use crate::watched::Watched;

/// Bytes that one read for replication returns: gRPC refuses messages of over 4 MiB, and openraft
/// has no way to be told that a payload was too large.
pub const READ_BYTES: usize = 1 << 20;

/// The recent end of the log that stays in memory.
pub const CACHE_BYTES: usize = 24 << 20;

/// The state that readers, the store and the journal share.
pub struct Shared {
    pub tail: Mutex<Tail>,
    pub stats: Arc<StatsRecorder>,
    /// Bytes appended since the start, told in steps.
    pub appended: Watched<u64>,
    pub identity: LogIdentity,
    /// `None` once it is closed.
    engine: Mutex<Option<Arc<dyn LogEngine>>>,
}

pub struct Tail {
    pub cache: Cache,
    pub vote: Option<Vote>,
    pub committed: Option<LogId>,
    pub purged: Option<LogId>,
    /// Last entry, or `purged` where there is none.
    pub last: Option<LogId>,
}

impl Shared {
    pub fn new(
        engine: Arc<dyn LogEngine>,
        stats: Arc<StatsRecorder>,
        identity: LogIdentity,
        tail: Tail,
    ) -> Self {
        Self {
            tail: Mutex::new(tail),
            stats,
            appended: Watched::new(0),
            identity,
            engine: Mutex::new(Some(engine)),
        }
    }

    pub fn engine(&self) -> io::Result<Arc<dyn LogEngine>> {
        let closed = || io::Error::new(io::ErrorKind::BrokenPipe, "the log is closed");
        lock(&self.engine).clone().ok_or_else(closed)
    }

    pub fn close(&self) {
        lock(&self.engine).take();
    }
}

/// The log store of one member.
pub struct LogStore<R> {
    shared: Arc<Shared>,
    writer: Arc<Writer>,
    runtime: PhantomData<fn() -> R>,
}

impl<R> Clone for LogStore<R> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            writer: self.writer.clone(),
            runtime: PhantomData,
        }
    }
}

impl<R> LogStore<R> {
    pub fn new(shared: Arc<Shared>, writer: Writer) -> Self {
        Self {
            shared,
            writer: Arc::new(writer),
            runtime: PhantomData,
        }
    }

    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub fn identity(&self) -> LogIdentity {
        self.shared.identity
    }

    pub fn vote(&self) -> Option<Vote> {
        lock(&self.shared.tail).vote
    }

    pub fn last_log_id(&self) -> Option<LogId> {
        lock(&self.shared.tail).last
    }

    pub fn purged(&self) -> Option<LogId> {
        lock(&self.shared.tail).purged
    }

    /// False for a log that never voted and holds nothing.
    pub fn is_used(&self) -> bool {
        let tail = lock(&self.shared.tail);
        tail.vote.is_some() || tail.last.is_some()
    }

    /// Ends the writer after what is queued, and lets go of the database. Blocks.
    pub fn close(&self) {
        self.writer.close();
        self.shared.close();
    }

    /// Appends entries: readable at once, acknowledged when they are on disk.
    pub fn append_entries(
        &self,
        entries: impl IntoIterator<Item = Entry>,
        ack: Ack,
    ) -> io::Result<()> {
        let encoded: Vec<(Entry, Bytes)> = entries
            .into_iter()
            .map(|entry| {
                let record = encode_entry(&entry);
                (entry, record)
            })
            .collect();
        let Some((last, _)) = encoded.last() else {
            ack(Ok(()));
            return Ok(());
        };
        let last = last.log_id;
        let mut records = Vec::with_capacity(encoded.len());
        let truncations = {
            let mut tail = lock(&self.shared.tail);
            for (entry, record) in encoded {
                expect_next(&mut tail, entry.log_id.index)?;
                records.push((entry.log_id.index, record.clone()));
                tail.last = Some(entry.log_id);
                tail.cache.push(entry, record.len());
            }
            tail.cache.truncations()
        };
        self.submit(
            Change::Append {
                records,
                last,
                truncations,
            },
            Some(ack),
        );
        Ok(())
    }

    /// Drops entries up to and including this one.
    pub fn purge_up_to(&self, upto: LogId) {
        {
            let mut tail = lock(&self.shared.tail);
            tail.purged = tail.purged.max(Some(upto));
            tail.last = tail.last.max(Some(upto));
            tail.cache.purge(upto.index + 1);
        }
        self.submit(Change::Purge(upto), None);
    }

    fn submit(&self, change: Change, ack: Option<Ack>) {
        self.writer.submit(Write { change, ack });
    }
}

impl<R: AsyncRuntime> RaftLogStorage<Types<R>> for LogStore<R> {
    type LogReader = LogReader<R>;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types<R>>> {
        let tail = lock(&self.shared.tail);
        Ok(LogState {
            last_purged_log_id: tail.purged,
            last_log_id: tail.last,
        })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        LogReader {
            shared: self.shared.clone(),
            blocking: self.writer.blocking(),
            runtime: PhantomData,
        }
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let (done, outcome) = oneshot::channel();
        self.submit(Change::Vote(*vote), Some(signal(done)));
        outcome
            .await
            .map_err(|_| io::Error::other("the log's writer is gone"))??;
        lock(&self.shared.tail).vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        // Rides in the next write: losing it only means to learn it again from the leader.
        lock(&self.shared.tail).committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(lock(&self.shared.tail).committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types<R>>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.append_entries(
            entries,
            Box::new(move |outcome| callback.io_completed(outcome)),
        )
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        {
            let mut tail = lock(&self.shared.tail);
            let end = next_index(last.as_ref());
            if end >= tail.cache.next_index() {
                return Ok(());
            }
            tail.cache.truncate(end);
            tail.last = last.max(tail.purged);
        }
        if mutant::is(mutant::Mutant::TruncationForgotten) {
            return Ok(());
        }
        self.submit(Change::Truncate { last }, None);
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.purge_up_to(upto);
        Ok(())
    }
}

fn signal(done: oneshot::Sender<io::Result<()>>) -> Ack {
    Box::new(move |outcome| {
        // Nobody waits any more: then nobody needs to know.
        done.send(outcome).ok();
    })
}

/// A log without a hole. Only an empty one may begin anywhere.
fn expect_next(tail: &mut Tail, index: u64) -> io::Result<()> {
    if tail.last.is_none() {
        tail.cache.purge(index);
    }
    match tail.cache.next_index() {
        next if next == index => Ok(()),
        next => {
            let text = format!("entry {index} can't follow: the next one is {next}");
            Err(io::Error::new(io::ErrorKind::InvalidInput, text))
        }
    }
}

/// Reads the log beside its writer.
pub struct LogReader<R> {
    shared: Arc<Shared>,
    blocking: Blocking,
    runtime: PhantomData<fn() -> R>,
}

impl<R: AsyncRuntime> LogReader<R> {
    /// The entries of a range; with a byte limit perhaps only the first of them, at least one.
    async fn read(&self, range: Range<u64>, bytes: usize) -> io::Result<Vec<Entry>> {
        loop {
            let (older, held, purged) = self.split(&range, bytes);
            if older.is_empty() {
                return Ok(held);
            }
            let engine = self.shared.engine()?;
            let read = self
                .blocking
                .run::<R, _, _>(move || read_engine(&*engine, older, bytes))
                .await;
            match read {
                Ok(mut entries) => {
                    entries.extend(held);
                    return Ok(entries);
                }
                // Purged under our hands: what is left is read again.
                Err(_) if lock(&self.shared.tail).purged != purged => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// What the engine has to be asked for, and what follows it from memory.
    fn split(&self, range: &Range<u64>, bytes: usize) -> (Range<u64>, Vec<Entry>, Option<LogId>) {
        let tail = lock(&self.shared.tail);
        let start = range.start.max(next_index(tail.purged.as_ref()));
        let older = start..range.end.min(tail.cache.start());
        // Where a limit allows only some of them, those before the cache come first anyway.
        let held = match older.is_empty() || bytes == usize::MAX {
            true => tail.cache.read(range.clone(), bytes),
            false => Vec::new(),
        };
        (older, held, tail.purged)
    }
}

impl<R: AsyncRuntime> RaftLogReader<Types<R>> for LogReader<R> {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        self.read(half_open(&range), usize::MAX).await
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(lock(&self.shared.tail).vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start..end, READ_BYTES).await
    }
}

fn half_open(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start + 1,
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => end + 1,
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

/// Reads entries from the engine, at least one and then as many as fit into `bytes`.
pub fn read_engine(
    engine: &dyn LogEngine,
    indexes: Range<u64>,
    bytes: usize,
) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut total = 0_usize;
    scan_entries(engine, key::entries(indexes), &mut |entry, size| {
        total = total.saturating_add(size);
        if total > bytes && !entries.is_empty() {
            return ControlFlow::Break(());
        }
        entries.push(entry);
        ControlFlow::Continue(())
    })?;
    Ok(entries)
}

/// Visits entries with their sizes, in order. Every one is checked: parts complete, checksum right,
/// stored under its own index, no hole.
pub fn scan_entries(
    engine: &dyn LogEngine,
    range: Range<Vec<u8>>,
    visit: &mut dyn FnMut(Entry, usize) -> ControlFlow<()>,
) -> io::Result<()> {
    let mut assembly = Assembly::default();
    let mut failure = None;
    let mut previous: Option<u64> = None;
    engine.scan(range, &mut |key, value| match assembly.add(key, value) {
        Ok(None) => ControlFlow::Continue(()),
        Ok(Some((entry, size))) => {
            let index = entry.log_id.index;
            if let Some(previous) = previous
                && index != previous + 1
            {
                failure = Some(format!(
                    "entries {} to {} are missing",
                    previous + 1,
                    index - 1
                ));
                return ControlFlow::Break(());
            }
            previous = Some(index);
            visit(entry, size)
        }
        Err(reason) => {
            failure = Some(reason);
            ControlFlow::Break(())
        }
    })?;
    if failure.is_none() && !assembly.record.is_empty() {
        failure = Some(format!("entry {} lacks its last part", assembly.index));
    }
    match failure {
        None => Ok(()),
        Some(reason) => Err(io::Error::new(io::ErrorKind::InvalidData, reason)),
    }
}

/// What entries with a payload a batch puts, each with its term and index, for whoever looks on.
pub fn payloads_of(batch: &Batch) -> Vec<(u64, u64, Payload)> {
    let mut assembly = Assembly::default();
    let puts = batch.iter().filter_map(|(key, value)| {
        PartKey::decode(key)?;
        Some((key, value.as_ref()?))
    });
    let entries = puts.filter_map(|(key, value)| assembly.add(key, value).ok().flatten());
    let payloads = entries.filter_map(|(entry, _)| match entry.payload {
        EntryPayload::Normal(payload) => {
            Some((term_of(&entry.log_id), entry.log_id.index, payload))
        }
        EntryPayload::Blank | EntryPayload::Membership(_) => None,
    });
    payloads.collect()
}

/// Puts the parts of a record together again.
#[derive(Default)]
struct Assembly {
    index: u64,
    next_part: u16,
    want: usize,
    record: BytesMut,
}

impl Assembly {
    fn add(&mut self, key: &[u8], value: &[u8]) -> Result<Option<(Entry, usize)>, String> {
        let PartKey { index, part } = PartKey::decode(key).ok_or("a key that is none of ours")?;
        let damaged = |what: &dyn std::fmt::Display| format!("entry {index}: {what}");
        if self.record.is_empty() {
            self.want = record_length(value).map_err(|error| damaged(&error))?;
            (self.index, self.next_part) = (index, 0);
        }
        if (index, part) != (self.index, self.next_part) {
            return Err(format!(
                "entry {}: part {} is missing",
                self.index, self.next_part
            ));
        }
        self.next_part += 1;
        self.record.extend_from_slice(value);
        if self.record.len() < self.want {
            return Ok(None);
        }
        let record = self.record.split().freeze();
        let entry = decode_entry(&record).map_err(|error| damaged(&error))?;
        match entry.log_id.index == index {
            true => Ok(Some((entry, record.len()))),
            false => Err(damaged(&format!("holds entry {}", entry.log_id.index))),
        }
    }
}
