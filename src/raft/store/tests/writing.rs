//! The writer when things go wrong, and when the database has to be replaced.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::storage::RaftLogReader;
use openraft::storage::RaftLogStorage;
use openraft_rt_tokio::TokioRuntime;

use crate::consensus::{Entry, log_id};
use crate::fatal::FatalSignal;
use crate::member::LogIdentity;
use crate::payload::Payload;
use crate::store::directory;
use crate::store::engine::{Batch, Key, LogEngine, Value, Visit};
use crate::store::key;
use crate::store::log::LogStore;
use crate::store::memory::MemoryEngine;
use crate::store::rotate::Growth;
use crate::store::sled::SledEngine;

type Store = LogStore<TokioRuntime>;

fn entry(index: u64, bytes: usize) -> Entry {
    let payload = Payload::from_encoded(Bytes::from(vec![index.to_le_bytes()[0]; bytes]));
    Entry {
        log_id: log_id(1, index),
        payload: EntryPayload::Normal(payload),
    }
}

fn append(store: &Store, entries: Vec<Entry>) -> io::Result<()> {
    let (done, outcome) = mpsc::channel();
    store.append_entries(entries, Box::new(move |result| done.send(result).unwrap()))?;
    outcome.recv().unwrap()
}

/// Fails once, as a full disk would, and works again afterwards.
#[derive(Default)]
struct FailsOnce {
    inner: MemoryEngine,
    fail: AtomicBool,
}

fn no_space() -> io::Error {
    io::Error::new(io::ErrorKind::StorageFull, "no space left")
}

impl LogEngine for FailsOnce {
    fn commit(&self, batch: Batch) -> io::Result<()> {
        match self.fail.swap(false, Ordering::Relaxed) {
            true => Err(no_space()),
            false => self.inner.commit(batch),
        }
    }

    fn get(&self, key: &[u8]) -> io::Result<Option<Value>> {
        self.inner.get(key)
    }

    fn scan(&self, range: Range<Key>, visit: &mut Visit<'_>) -> io::Result<()> {
        self.inner.scan(range, visit)
    }

    fn size_on_disk(&self) -> io::Result<u64> {
        self.inner.size_on_disk()
    }
}

#[test]
fn after_one_failed_write_nothing_is_acknowledged_any_more() {
    let (engine, fatal) = (Arc::new(FailsOnce::default()), FatalSignal::default());
    let identity = LogIdentity::random();
    let store: Store = directory::open_on(engine.clone(), identity, fatal.clone()).unwrap();
    append(&store, vec![entry(0, 10)]).unwrap();
    assert_eq!(fatal.reason(), None);
    engine.fail.store(true, Ordering::Relaxed);
    let error = append(&store, vec![entry(1, 10)]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert!(fatal.reason().unwrap().contains("no space left"));
    // The disk works again, but what the failed write left there is unknown.
    append(&store, vec![entry(2, 10)]).unwrap_err();
    let found = directory::open_on::<TokioRuntime>(engine, identity, FatalSignal::default());
    assert_eq!(found.unwrap().last_log_id(), Some(log_id(1, 0)));
}

#[test]
fn an_entry_behind_the_end_is_a_lost_meta_record() {
    let (engine, identity) = (Arc::new(MemoryEngine::default()), LogIdentity::random());
    let open =
        || directory::open_on::<TokioRuntime>(engine.clone(), identity, FatalSignal::default());
    let store = open().unwrap();
    append(&store, vec![entry(0, 10)]).unwrap();
    let meta = engine.get(key::META).unwrap().unwrap();
    append(&store, vec![entry(1, 10)]).unwrap();
    let older = Batch::from([(key::META.to_vec(), Some(meta))]);
    engine.commit(older).unwrap();
    let refused = open().err().unwrap().to_string();
    assert!(refused.contains("lie behind its end"), "{refused}");
}

#[test]
fn an_entry_that_leaves_a_hole_is_refused() {
    let engine = Arc::new(MemoryEngine::default());
    let store: Store =
        directory::open_on(engine, LogIdentity::random(), FatalSignal::default()).unwrap();
    append(&store, vec![entry(0, 10)]).unwrap();
    let (done, _outcome) = mpsc::channel();
    let ack = Box::new(move |result| done.send(result).unwrap_or_default());
    assert!(store.append_entries([entry(2, 10)], ack).is_err());
}

#[tokio::test]
async fn a_database_that_has_grown_is_replaced_and_nothing_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let fatal = FatalSignal::default();
    let growth = Growth {
        floor: 1 << 20,
        ..Growth::of(0)
    };
    let store: Store = directory::open_with(dir.path(), fatal.clone(), growth).unwrap();
    let mut next = 0;
    while store.shared().stats.read().rotations < 2 {
        assert!(next < 40_000, "never rotated");
        append(
            &store,
            (next..next + 4).map(|index| entry(index, 3_000)).collect(),
        )
        .unwrap();
        next += 4;
        if next % 200 == 0 {
            store.purge_up_to(log_id(1, next - 50));
        }
    }
    let purged = store.purged().unwrap().index;
    store.close();
    let databases = std::fs::read_dir(dir.path().join("log")).unwrap();
    let databases = databases
        .filter(|it| it.as_ref().unwrap().path().is_dir())
        .count();
    assert!(databases <= 2, "the retired one goes with the next look");
    let mut store: Store = directory::open(dir.path(), fatal.clone()).unwrap();
    let mut reader = store.get_log_reader().await;
    let entries = reader.try_get_log_entries(0..u64::MAX).await.unwrap();
    let indexes: Vec<_> = entries.iter().map(|entry| entry.log_id.index).collect();
    assert_eq!(indexes, (purged + 1..next).collect::<Vec<_>>());
    assert_eq!(fatal.reason(), None);
    let databases = std::fs::read_dir(dir.path().join("log")).unwrap();
    assert_eq!(
        databases
            .filter(|it| it.as_ref().unwrap().path().is_dir())
            .count(),
        1
    );
}

#[tokio::test]
async fn entries_too_old_for_the_cache_are_read_from_disk_within_the_byte_limit() {
    let dir = tempfile::tempdir().unwrap();
    let mut store: Store = directory::open(dir.path(), FatalSignal::default()).unwrap();
    // Twice what the cache holds.
    for index in 0..256 {
        append(&store, vec![entry(index, 512 << 10)]).unwrap();
    }
    let mut reader = store.get_log_reader().await;
    let first = reader.limited_get_log_entries(0, 256).await.unwrap();
    assert_eq!(first[0].log_id.index, 0);
    assert!(
        (1..=2).contains(&first.len()),
        "{} entries of 512 KiB",
        first.len()
    );
    let last = reader.limited_get_log_entries(254, 256).await.unwrap();
    assert_eq!(last[0].log_id.index, 254);
    let all = reader.try_get_log_entries(100..256).await.unwrap();
    assert_eq!(all.len(), 156);
}

#[test]
fn no_batch_counts_as_written_once_sled_keeps_a_page_in_a_file_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("database");
    let engine = SledEngine::create(&path).unwrap();
    let put = || engine.commit(Batch::from([(vec![0], Some(vec![1]))]));
    put().unwrap();
    // As after a while in which nothing happened there.
    let blobs = path.join("blobs");
    let an_hour_ago = SystemTime::now() - Duration::from_secs(3600);
    File::open(&blobs)
        .unwrap()
        .set_modified(an_hour_ago)
        .unwrap();
    put().unwrap();
    fs::write(blobs.join("1234"), "a page").unwrap();
    let refused = put().unwrap_err().to_string();
    assert!(
        refused.contains("nothing more is acknowledged"),
        "{refused}"
    );
}
