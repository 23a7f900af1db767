//! The log store without consensus, for tests that kill its process or cut its power, and for measuring it.
//!
//! `append` fills a log with entries whose size and content follow from their index, keeps a number of them
//! in flight, and reports each acknowledgement. `check` opens the log again and compares: every entry that
//! was acknowledged is there, and every entry that is there is whole.

use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use openraft::EntryPayload;
use openraft_rt_tokio::TokioRuntime;

use super::directory;
use super::log::read_engine;
use super::rotate::Growth;
use super::stats::StoreStats;
use crate::consensus::{Entry, log_id, next_index};
use crate::error::Error;
use crate::fatal::FatalSignal;
use crate::payload::Payload;

const TERM: u64 = 1;

/// How large the entries are.
#[derive(Clone, Copy, Debug)]
pub enum Size {
    /// 0.3 to 512 KiB, small ones more often.
    Mixed,
    Bytes(usize),
}

/// How to fill a log.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub size: Size,
    /// Entries that wait for their acknowledgement at once.
    pub in_flight: usize,
    /// `None`: until something breaks.
    pub duration: Option<Duration>,
    /// Entries that stay in the log; older ones are purged.
    pub keep: u64,
    pub growth: Growth,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            size: Size::Mixed,
            in_flight: 16,
            duration: None,
            keep: 64,
            growth: Growth::of(0),
        }
    }
}

/// What a run did.
#[derive(Clone, Debug)]
pub struct Report {
    pub acknowledged: u64,
    pub took: Duration,
    pub stats: StoreStats,
}

type Acks = Receiver<(u64, io::Result<()>)>;

/// Appends after what the log holds; `acknowledged` hears of each index once it is durable.
pub fn append(
    data: &Path,
    load: Load,
    mut acknowledged: impl FnMut(u64) -> io::Result<()>,
) -> Result<Report, Error> {
    std::fs::create_dir_all(data)?;
    let fatal = FatalSignal::default();
    let store = directory::open_with::<TokioRuntime>(data, fatal, load.growth)?;
    let started = Instant::now();
    let first = next_index(store.last_log_id().as_ref());
    let (ack, acks): (Sender<_>, Acks) = channel();
    let (mut next, mut done) = (first, first);
    let mut purged = first;
    let runs = || load.duration.is_none_or(|limit| started.elapsed() < limit);
    while runs() {
        while next < done + load.in_flight as u64 {
            let (ack, index) = (ack.clone(), next);
            // A receiver that is gone means that this function has returned.
            let signal = Box::new(move |outcome| ack.send((index, outcome)).unwrap_or_default());
            store.append_entries([entry(next, load.size)], signal)?;
            next += 1;
        }
        done = next_ack(&acks, &mut acknowledged)? + 1;
        if done >= purged + 2 * load.keep {
            purged = done - load.keep;
            store.purge_up_to(log_id(TERM, purged - 1));
        }
    }
    while done < next {
        done = next_ack(&acks, &mut acknowledged)? + 1;
    }
    let took = started.elapsed();
    let stats = store.shared().stats.read();
    store.close();
    Ok(Report {
        acknowledged: done - first,
        took,
        stats,
    })
}

fn next_ack(acks: &Acks, acknowledged: &mut impl FnMut(u64) -> io::Result<()>) -> io::Result<u64> {
    let gone = |_| io::Error::other("the writer is gone");
    let (index, outcome) = acks.recv().map_err(gone)?;
    outcome?;
    acknowledged(index)?;
    Ok(index)
}

/// Opens the log and compares it with what it must hold. Returns its last index.
pub fn check(data: &Path, size: Size, acknowledged: Option<u64>) -> Result<Option<u64>, Error> {
    let store = directory::open::<TokioRuntime>(data, FatalSignal::default())?;
    let last = store.last_log_id().map(|id| id.index);
    let first = next_index(store.purged().as_ref());
    let engine = store.shared().engine()?;
    let entries = read_engine(&*engine, first..u64::MAX, usize::MAX)?;
    drop(engine);
    store.close();
    if last < acknowledged {
        return Err(Error::Fatal(format!(
            "{acknowledged:?} was acknowledged, the log ends at {last:?}"
        )));
    }
    let mut expected = first;
    for found in &entries {
        let same = match (&found.payload, entry(expected, size).payload) {
            (EntryPayload::Normal(found), EntryPayload::Normal(wanted)) => {
                found.encoded() == wanted.encoded()
            }
            _ => false,
        };
        if found.log_id.index != expected || !same {
            return Err(Error::Fatal(format!(
                "entry {expected} is not what was appended"
            )));
        }
        expected += 1;
    }
    match last.map_or(first, |last| last + 1) == expected {
        true => Ok(last),
        false => Err(Error::Fatal(format!(
            "the log says {last:?} and holds less"
        ))),
    }
}

fn entry(index: u64, size: Size) -> Entry {
    let payload = Payload::from_encoded(content(index, size));
    Entry {
        log_id: log_id(TERM, index),
        payload: EntryPayload::Normal(payload),
    }
}

/// The same bytes for the same index, and others for any other.
fn content(index: u64, size: Size) -> Bytes {
    let mut random = Xorshift(index.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let length = match size {
        Size::Bytes(bytes) => bytes,
        Size::Mixed => mixed_length(&mut random),
    };
    let words = (0..length.div_ceil(8)).flat_map(|_| random.next().to_le_bytes());
    words.take(length).collect()
}

/// 300 bytes doubled 0 to 10 times, plus up to as much again, at most 512 KiB.
fn mixed_length(random: &mut Xorshift) -> usize {
    let base = 300_usize << (random.next() % 11);
    let extra = usize::try_from(random.next() % 1024).unwrap_or_default() * base / 1024;
    (base + extra).min(512 << 10)
}

struct Xorshift(u64);

impl Xorshift {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
