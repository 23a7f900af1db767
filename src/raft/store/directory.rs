//! The log's place in a data directory, and how it is opened.
//!
//! ```text
//! <data>/log.mark        witness: number of the last acknowledged write (mark.rs)
//! <data>/log/CURRENT     number of the database in use
//! <data>/log/7/          sled
//! <data>/log/wal.0, .1   writes that may not have come to sled yet (wal/)
//! ```
//!
//! Opening never guesses. A log that was once acknowledged and is now missing, empty, shorter or damaged
//! is an error that names the file and the next step; a fresh log is created only where the witness says
//! that nothing was ever acknowledged. Every entry is read and checked, which also fills the cache.

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use durable::at;
use openraft::AsyncRuntime;

use super::cache::Cache;
use super::codec::{Meta, decode_meta, encode_meta};
use super::engine::{Batch, LogEngine};
use super::journal::{Journal, Opened};
use super::key::{self, PartKey};
use super::log::{CACHE_BYTES, LogStore, Shared, Tail, scan_entries};
use super::mark::Mark;
use super::rotate::{Growth, Rotation, database_path, point_at};
use super::sled::SledEngine;
use super::stats::StatsRecorder;
use super::wal::{self, Wal};
use super::writer::{Steps, Writer};
use crate::consensus::{LogId, next_index};
use crate::error::with_next_step;
use crate::fatal::FatalSignal;
use crate::member::LogIdentity;

/// Why a log can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "the log of this controller in {} is damaged: {reason}; nothing was changed. Let the \
         machine join under a new id, with an empty data directory. An older copy of the directory is no \
         remedy: it has forgotten votes and entries that the others count on", dir.display()
    )]
    Damaged { dir: PathBuf, reason: String },
    #[error("the log can't be opened: {}", with_next_step(.0))]
    Io(#[from] io::Error),
}

/// Opens the log of a data directory, or creates it where there never was one.
pub fn open<R: AsyncRuntime>(data: &Path, fatal: FatalSignal) -> Result<LogStore<R>, OpenError> {
    open_with(data, fatal, Growth::of(0))
}

/// The same with a say in when the database is replaced.
pub fn open_with<R: AsyncRuntime>(
    data: &Path,
    fatal: FatalSignal,
    growth: Growth,
) -> Result<LogStore<R>, OpenError> {
    let dir = data.join("log");
    let mark_path = data.join("log.mark");
    let (mark, acknowledged) = match Mark::open(&mark_path).map_err(|error| refusal(data, error))? {
        Some(found) => found,
        None if has_content(&dir)? => {
            let reason = format!("{} is missing beside the log", mark_path.display());
            return Err(OpenError::Damaged {
                dir: data.to_owned(),
                reason,
            });
        }
        None => (Mark::create(&mark_path)?, 0),
    };
    let current = current(&dir)?;
    let (sled, number) = match current {
        Some(number) => (reopen(data, &dir, number)?, number),
        None if acknowledged > 0 => {
            let reason = format!("{} is missing", dir.join("CURRENT").display());
            return Err(OpenError::Damaged {
                dir: data.to_owned(),
                reason,
            });
        }
        None => (create(&dir)?, 1),
    };
    // A process that was killed may have left names in memory only: nothing goes before they are on disk.
    durable::sync_dir(&dir)?;
    remove_others(&dir, number)?;
    let damaged = |reason| OpenError::Damaged {
        dir: data.to_owned(),
        reason,
    };
    let database = database_path(&dir, number).join("db");
    let in_database = |reason: String| damaged(format!("{}: {reason}", database.display()));
    let identity = read_meta(&sled).map_err(in_database)?.identity;
    let files = wal::find(&dir, identity, &sled).map_err(|error| refusal(data, error))?;
    let stats = Arc::new(StatsRecorder::default());
    let rotation = Rotation::new(&dir, number, growth, stats.clone());
    let engine = Wal::start(files, sled, rotation, fatal.clone());
    let engine = Arc::new(engine.map_err(|error| refusal(data, error))?);
    let loaded = load(&*engine, acknowledged).map_err(in_database)?;
    let (shared, journal) = assemble(engine, stats, loaded, mark, fatal);
    Ok(LogStore::new(shared, Writer::spawn(journal)?))
}

/// A log on an engine of the caller's.
#[cfg(test)]
pub fn open_on<R: AsyncRuntime>(
    engine: Arc<dyn LogEngine>,
    identity: LogIdentity,
    fatal: FatalSignal,
) -> Result<LogStore<R>, OpenError> {
    let (shared, journal) = in_memory(engine, identity, Arc::default(), fatal)?;
    Ok(LogStore::new(shared, Writer::spawn(journal)?))
}

/// The same, written in steps that the caller takes when it pleases. What was acknowledged is kept by the caller, too.
pub fn open_stepped<R: AsyncRuntime>(
    engine: Arc<dyn LogEngine>,
    identity: LogIdentity,
    acknowledged: Arc<AtomicU64>,
    fatal: FatalSignal,
) -> Result<(LogStore<R>, Arc<Steps>), OpenError> {
    let (shared, journal) = in_memory(engine, identity, acknowledged, fatal)?;
    let (writer, steps) = Writer::stepped(journal);
    Ok((LogStore::new(shared, writer), steps))
}

fn in_memory(
    engine: Arc<dyn LogEngine>,
    identity: LogIdentity,
    acknowledged: Arc<AtomicU64>,
    fatal: FatalSignal,
) -> Result<(Arc<Shared>, Journal), OpenError> {
    let told = acknowledged.load(Ordering::Relaxed);
    if told == 0 && engine.get(key::META)?.is_none() {
        engine.commit(first_batch(identity))?;
    }
    let loaded = load(&*engine, told);
    let loaded = loaded.map_err(|reason| OpenError::Damaged {
        dir: PathBuf::from("memory"),
        reason,
    })?;
    let mark = Mark::Memory(acknowledged);
    Ok(assemble(engine, Arc::default(), loaded, mark, fatal))
}

fn current(dir: &Path) -> Result<Option<u64>, OpenError> {
    let path = dir.join("CURRENT");
    let Some(content) = durable::read_optional(&path)? else {
        return Ok(None);
    };
    let number = std::str::from_utf8(&content)
        .ok()
        .and_then(|text| text.trim().parse().ok());
    match number {
        Some(number) => Ok(Some(number)),
        None => Err(OpenError::Damaged {
            dir: dir.to_owned(),
            reason: format!("{} does not hold a number", path.display()),
        }),
    }
}

fn has_content(dir: &Path) -> io::Result<bool> {
    match fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(at(dir)(error)),
    }
}

/// The witness says that nothing was ever acknowledged: what lies here is a creation that a crash
/// cut short.
fn create(dir: &Path) -> io::Result<SledEngine> {
    if dir.exists() {
        fs::remove_dir_all(dir).map_err(at(dir))?;
    }
    durable::create_dir(dir)?;
    let engine = SledEngine::create(&database_path(dir, 1))?;
    let identity = LogIdentity::random();
    engine.commit(first_batch(identity))?;
    wal::create(dir, identity)?;
    point_at(dir, 1)?;
    Ok(engine)
}

fn first_batch(identity: LogIdentity) -> Batch {
    let meta = Meta {
        identity,
        ..Meta::default()
    };
    Batch::from([(key::META.to_vec(), Some(encode_meta(&meta).to_vec()))])
}

fn reopen(data: &Path, dir: &Path, number: u64) -> Result<SledEngine, OpenError> {
    SledEngine::open(&database_path(dir, number)).map_err(|error| refusal(data, error))
}

/// Damage, or an error of the machine's that may pass.
fn refusal(data: &Path, error: io::Error) -> OpenError {
    match error.kind() {
        io::ErrorKind::NotFound
        | io::ErrorKind::InvalidData
        | io::ErrorKind::UnexpectedEof
        | io::ErrorKind::InvalidInput
        | io::ErrorKind::Other => OpenError::Damaged {
            dir: data.to_owned(),
            reason: error.to_string(),
        },
        _ => OpenError::Io(error),
    }
}

/// What a rotation left behind.
fn remove_others(dir: &Path, number: u64) -> io::Result<()> {
    for entry in fs::read_dir(dir).map_err(at(dir))? {
        let path = entry.map_err(at(dir))?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let other = name.parse::<u64>().is_ok_and(|found| found != number);
        if other {
            tracing::info!(path = %path.display(), "removing a log database that is not in use");
            fs::remove_dir_all(&path).map_err(at(&path))?;
        }
    }
    Ok(())
}

struct Loaded {
    meta: Meta,
    cache: Cache,
    stored_bytes: u64,
    first_stored: u64,
}

fn read_meta(engine: &dyn LogEngine) -> Result<Meta, String> {
    let meta = engine
        .get(key::META)
        .map_err(|error| error.to_string())?
        .ok_or("its meta record is missing")?;
    decode_meta(&Bytes::from(meta)).map_err(|error| format!("meta record: {error}"))
}

/// Reads and checks the whole log. The reason of a refusal is for a person.
fn load(engine: &dyn LogEngine, acknowledged: u64) -> Result<Loaded, String> {
    let text = |error: io::Error| error.to_string();
    let meta = read_meta(engine)?;
    if meta.sequence < acknowledged {
        return Err(format!(
            "it ends at write {}, but write {acknowledged} was acknowledged",
            meta.sequence
        ));
    }
    let first = next_index(meta.purged.as_ref());
    let end = next_index(meta.last.as_ref());
    let (first_stored, mut stored_bytes) = outstanding(engine, first).map_err(text)?;
    let mut cache = Cache::new(CACHE_BYTES, end);
    let mut ends: Option<(LogId, LogId)> = None;
    // Straight into the cache, which drops what it has no room for: a log may be larger than memory.
    scan_entries(engine, key::entries(first..end), &mut |entry, size| {
        let id = entry.log_id;
        if ends.is_none() {
            cache = Cache::new(CACHE_BYTES, id.index);
        }
        ends = Some((ends.map_or(id, |(first, _)| first), id));
        stored_bytes += size as u64;
        cache.push(entry, size);
        cache.set_durable(id.index + 1, 0);
        ControlFlow::Continue(())
    })
    .map_err(text)?;
    check_ends(&meta, ends, first)?;
    expect_nothing_behind(engine, end)?;
    Ok(Loaded {
        meta,
        cache,
        stored_bytes,
        first_stored: first_stored.unwrap_or(first),
    })
}

/// A batch is written as a whole, so what lies behind the last entry that the meta record names can only come
/// from a meta record that was lost.
fn expect_nothing_behind(engine: &dyn LogEngine, end: u64) -> Result<(), String> {
    let mut found = false;
    let mut look = |_: &[u8], _: &[u8]| {
        found = true;
        ControlFlow::Break(())
    };
    engine
        .scan(key::entries_from(end), &mut look)
        .map_err(|error| error.to_string())?;
    match found {
        true => Err(format!("entries from {end} on lie behind its end")),
        false => Ok(()),
    }
}

fn check_ends(meta: &Meta, ends: Option<(LogId, LogId)>, first: u64) -> Result<(), String> {
    if let Some((found, _)) = ends
        && meta.purged.is_some()
        && found.index != first
    {
        return Err(format!(
            "entries {first} to {} are missing",
            found.index - 1
        ));
    }
    let last = ends.map(|(_, last)| last).or(meta.purged);
    match last == meta.last {
        true => Ok(()),
        false => Err(format!("it ends at {last:?} instead of {:?}", meta.last)),
    }
}

/// Purged entries, before `first`, whose removal was still outstanding when the process ended: the lowest
/// index, and their bytes.
fn outstanding(engine: &dyn LogEngine, first: u64) -> io::Result<(Option<u64>, u64)> {
    let (mut lowest, mut bytes) = (None, 0);
    engine.scan(key::entries(0..first), &mut |key, value| {
        lowest = lowest.or(PartKey::decode(key).map(|key| key.index));
        bytes += value.len() as u64;
        ControlFlow::Continue(())
    })?;
    Ok((lowest, bytes))
}

fn assemble(
    engine: Arc<dyn LogEngine>,
    stats: Arc<StatsRecorder>,
    loaded: Loaded,
    mark: Mark,
    fatal: FatalSignal,
) -> (Arc<Shared>, Journal) {
    let Loaded {
        meta,
        cache,
        stored_bytes,
        first_stored,
    } = loaded;
    let tail = Tail {
        cache,
        vote: meta.vote,
        committed: meta.committed,
        purged: meta.purged,
        last: meta.last,
    };
    let shared = Arc::new(Shared::new(engine, stats, meta.identity, tail));
    let opened = Opened {
        meta,
        mark,
        live_bytes: stored_bytes,
        purged_from: first_stored,
    };
    (shared.clone(), Journal::new(shared, opened, fatal))
}
