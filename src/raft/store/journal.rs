//! Turns what the log wants into one write of the engine, and acknowledges it once it is on disk.
//!
//! ```text
//!  vote, entries, truncate, purge ──► queue ──► write(group): one write ──► engine (fdatasync)
//!                                                                            │
//!                          acknowledgements, in order ◄── cache ◄── witness ◄┘
//! ```
//!
//! Everything goes through here in the order in which it was asked for, since a vote and an append must
//! not change places. The first error ends it: whether the failed bytes are on disk is unknown, and a
//! second fsync would report success for pages that the kernel has dropped. So it answers every later
//! write with the same error and raises the fatal signal.

use std::io;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use failpoint::Point;

use super::codec::{Meta, PART_BYTES, encode_meta};
use super::engine::{Batch, Key, LogEngine};
use super::key::{self, PartKey};
use super::log::Shared;
use super::mark::Mark;
use crate::consensus::{LogId, Vote, next_index, term_of};
use crate::error::with_next_step;
use crate::fatal::FatalSignal;
use crate::sync::lock;

/// Called once, with the outcome, after the write is durable.
pub type Ack = Box<dyn FnOnce(io::Result<()>) + Send>;

pub struct Write {
    pub change: Change,
    pub ack: Option<Ack>,
}

pub enum Change {
    Append {
        records: Vec<(u64, Bytes)>,
        last: LogId,
        truncations: u64,
    },
    Vote(Vote),
    /// Keeps entries up to `last`.
    Truncate {
        last: Option<LogId>,
    },
    /// Drops entries up to and including this one.
    Purge(LogId),
    /// Nothing but what rides along: the last word before an orderly end.
    Flush,
}

impl Change {
    pub fn bytes(&self) -> usize {
        match self {
            Self::Append { records, .. } => records.iter().map(|(_, record)| record.len()).sum(),
            Self::Vote(_) | Self::Truncate { .. } | Self::Purge(_) | Self::Flush => 0,
        }
    }

    fn point_before(&self) -> Option<Point> {
        match self {
            Self::Vote(_) => Some(Point::VoteBefore),
            Self::Purge(_) => Some(Point::PurgeBefore),
            Self::Append { .. } | Self::Truncate { .. } | Self::Flush => None,
        }
    }

    fn point_after(&self) -> Option<Point> {
        match self {
            Self::Append { .. } => Some(Point::AppendAfter),
            Self::Vote(_) => Some(Point::VoteAfter),
            Self::Purge(_) => Some(Point::PurgeAfter),
            Self::Truncate { .. } | Self::Flush => None,
        }
    }

    pub fn entries(&self) -> usize {
        match self {
            Self::Append { records, .. } => records.len(),
            Self::Vote(_) | Self::Truncate { .. } | Self::Purge(_) | Self::Flush => 0,
        }
    }
}

fn at_points(group: &[Write], of: impl Fn(&Change) -> Option<Point>) {
    for point in group.iter().filter_map(|write| of(&write.change)) {
        failpoint::at(point);
    }
}

/// Keys of purged entries that one batch removes; the rest waits for later ones, so that a purge of
/// thousands of entries never delays an append: their keys are looked up in sled meanwhile. A batch that puts many
/// parts may remove twice as many, or under load the removals would never catch up.
const REMOVALS_PER_BATCH: usize = 256;

/// Bytes after which readers of `Shared::appended` hear of more: seldom enough to cost nothing.
const APPENDED_STEP: u64 = 64 << 10;

/// A write to the log that takes this long is worth a line: elections begin after little more.
const SLOW: Duration = Duration::from_millis(500);

pub struct Journal {
    shared: Arc<Shared>,
    mark: Mark,
    meta: Meta,
    /// Bytes of the entries that the engine holds, those included that are purged and yet to be removed.
    live_bytes: u64,
    /// Appended since the start.
    appended: u64,
    /// Purged entries before this index are gone from the engine.
    purged_from: u64,
    fatal: FatalSignal,
    failed: Option<String>,
}

impl Journal {
    pub fn new(shared: Arc<Shared>, opened: Opened, fatal: FatalSignal) -> Self {
        let Opened {
            meta,
            mark,
            live_bytes,
            purged_from,
        } = opened;
        Self {
            shared,
            mark,
            meta,
            live_bytes,
            appended: 0,
            purged_from,
            fatal,
            failed: None,
        }
    }

    pub fn fatal(&self) -> FatalSignal {
        self.fatal.clone()
    }

    /// Makes a group of writes durable as one batch, then acknowledges each, in order.
    pub fn write(&mut self, group: Vec<Write>) {
        at_points(&group, Change::point_before);
        let result = match &self.failed {
            Some(reason) => Err(io::Error::other(reason.clone())),
            None => self.commit(&group),
        };
        at_points(&group, Change::point_after);
        if let Err(error) = &result {
            let why = with_next_step(error);
            self.fatal
                .raise(&format!("the log can't be written: {why}"));
            self.failed.get_or_insert(error.to_string());
        }
        for write in group {
            if let Some(ack) = write.ack {
                ack(match &result {
                    Ok(()) => Ok(()),
                    Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
                });
            }
        }
    }

    fn commit(&mut self, group: &[Write]) -> io::Result<()> {
        let started = Instant::now();
        let engine = self.shared.engine()?;
        let mut batch = Batch::new();
        let mut durable = Vec::new();
        for write in group {
            match &write.change {
                Change::Append {
                    records,
                    last,
                    truncations,
                } => {
                    self.put_entries(&mut batch, records);
                    self.meta.last = Some(*last);
                    durable.push((last.index + 1, *truncations));
                }
                Change::Vote(vote) => self.meta.vote = Some(*vote),
                Change::Truncate { last } => {
                    self.truncate(&*engine, &mut batch, *last)?;
                }
                Change::Purge(upto) => {
                    self.meta.purged = Some(*upto);
                    self.meta.last = self.meta.last.max(Some(*upto));
                }
                Change::Flush => {}
            }
        }
        self.remove_purged(&*engine, &mut batch)?;
        let committed = lock(&self.shared.tail).committed;
        self.meta.committed = committed_here(committed, self.meta.last).or(self.meta.committed);
        self.meta.sequence += 1;
        let meta = encode_meta(&self.meta).to_vec();
        batch.insert(key::META.to_vec(), Some(meta));
        engine.commit(batch)?;
        self.mark.raise(self.meta.sequence)?;
        let mut tail = lock(&self.shared.tail);
        for (index, truncations) in durable {
            tail.cache.set_durable(index, truncations);
        }
        drop(tail);
        let entries = group
            .iter()
            .map(|write| write.change.entries() as u64)
            .sum();
        let bytes = group.iter().map(|write| write.change.bytes() as u64).sum();
        let took = started.elapsed();
        if took >= SLOW {
            tracing::warn!(
                ?took,
                entries,
                bytes,
                "a write to the log is slow: everything waits for it"
            );
        }
        self.shared
            .stats
            .record_commit(took, entries, bytes, self.live_bytes);
        let told = self.appended / APPENDED_STEP;
        self.appended += bytes;
        if self.appended / APPENDED_STEP > told {
            self.shared.appended.set(self.appended);
        }
        Ok(())
    }

    fn put_entries(&mut self, batch: &mut Batch, records: &[(u64, Bytes)]) {
        for (index, record) in records {
            for (part, chunk) in (0..).zip(record.chunks(PART_BYTES)) {
                let key = PartKey {
                    index: *index,
                    part,
                };
                batch.insert(key.encode(), Some(chunk.to_vec()));
            }
            self.live_bytes += record.len() as u64;
        }
    }

    fn truncate(
        &mut self,
        engine: &dyn LogEngine,
        batch: &mut Batch,
        last: Option<LogId>,
    ) -> io::Result<()> {
        let doomed = key::entries_from(next_index(last.as_ref()));
        self.forget_pending(batch, doomed.clone());
        self.remove(engine, batch, doomed, usize::MAX)?;
        self.meta.last = last.max(self.meta.purged);
        Ok(())
    }

    fn remove_purged(&mut self, engine: &dyn LogEngine, batch: &mut Batch) -> io::Result<()> {
        let Some(purged) = self.meta.purged else {
            return Ok(());
        };
        if self.purged_from > purged.index {
            return Ok(());
        }
        let doomed = key::entries(self.purged_from..purged.index + 1);
        self.forget_pending(batch, doomed.clone());
        let limit = REMOVALS_PER_BATCH.max(2 * batch.len());
        let stopped_at = self.remove(engine, batch, doomed, limit)?;
        self.purged_from = match stopped_at {
            // Parts of this entry may be left.
            Some(last) => last.index,
            None => purged.index + 1,
        };
        Ok(())
    }

    /// Takes back what this very batch was about to put into a range.
    fn forget_pending(&mut self, batch: &mut Batch, range: Range<Key>) {
        for (_, value) in batch.range_mut(range) {
            if let Some(value) = value.take() {
                self.live_bytes = self.live_bytes.saturating_sub(value.len() as u64);
            }
        }
    }

    /// Removes keys of a range that the engine holds. Returns the last one if the limit stopped it.
    fn remove(
        &mut self,
        engine: &dyn LogEngine,
        batch: &mut Batch,
        range: Range<Key>,
        limit: usize,
    ) -> io::Result<Option<PartKey>> {
        let mut left = limit;
        let mut stopped_at = None;
        engine.scan(range, &mut |key, value| {
            batch.insert(key.to_vec(), None);
            self.live_bytes = self.live_bytes.saturating_sub(value.len() as u64);
            left -= 1;
            if left == 0 {
                stopped_at = PartKey::decode(key);
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        Ok(stopped_at)
    }
}

/// How much of what is known to be committed this log surely holds; what the mark on disk may name, since
/// everything up to it is applied at the next start.
///
/// The mark may be ahead of the log. Entries of one term are one leader's, in its order, so a shorter log
/// that ends in the mark's own term is committed as far as it goes. One that ends in an earlier term may
/// end in entries that were never committed.
fn committed_here(committed: Option<LogId>, last: Option<LogId>) -> Option<LogId> {
    let (committed, last) = (committed?, last?);
    (committed <= last || term_of(&committed) == term_of(&last)).then_some(committed.min(last))
}

/// What a journal starts from: the state of a log that was just opened.
pub struct Opened {
    pub meta: Meta,
    pub mark: Mark,
    /// Bytes of all entries in the engine.
    pub live_bytes: u64,
    /// Lowest index of which the engine may hold a part.
    pub purged_from: u64,
}
