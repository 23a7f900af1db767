//! What a restart finds: all that was acknowledged, or one clear error.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use openraft::async_runtime::Oneshot;
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage};
use openraft::{AsyncRuntime, EntryPayload};
use openraft_rt_tokio::TokioRuntime;
use tempfile::TempDir;

use crate::consensus::{Entry, Types, Vote, log_id};
use crate::fatal::FatalSignal;
use crate::payload::Payload;
use crate::store::codec::{PART_BYTES, encode_entry};
use crate::store::directory::{self, OpenError};
use crate::store::engine::LogEngine;
use crate::store::key::PartKey;
use crate::store::log::LogStore;
use crate::store::sled::SledEngine;

type Store = LogStore<TokioRuntime>;

fn open(data: &Path) -> Result<Store, OpenError> {
    directory::open(data, FatalSignal::default())
}

fn entry(index: u64, bytes: usize) -> Entry {
    // Different everywhere, so that bytes of one entry can't pass for those of another.
    let words = (0..bytes as u64).map(|at| (at ^ index.wrapping_mul(97)).to_le_bytes()[0]);
    let content: Vec<u8> = words.collect();
    let payload = EntryPayload::Normal(Payload::from_encoded(Bytes::from(content)));
    Entry {
        log_id: log_id(1, index),
        payload,
    }
}

fn content(entry: &Entry) -> &[u8] {
    match &entry.payload {
        EntryPayload::Normal(payload) => payload.encoded(),
        other => panic!("{other:?}"),
    }
}

async fn append(store: &mut Store, entries: Vec<Entry>) -> io::Result<()> {
    let (done, outcome) = <TokioRuntime as AsyncRuntime>::Oneshot::channel();
    let callback = IOFlushed::<Types<TokioRuntime>>::signal(done);
    store.append(entries, callback).await?;
    outcome.await.unwrap()
}

/// Entries of 0.3 to 300 KiB, so of one to 75 parts.
fn sizes() -> impl Iterator<Item = (u64, usize)> {
    (0..24).map(|index| (index, 300 + usize::try_from(index * index).unwrap() * 560))
}

/// A closed log of `sizes`, with a vote and a committed mark.
async fn filled() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path()).unwrap();
    store.save_vote(&Vote::new_committed(1, 1)).await.unwrap();
    for (index, bytes) in sizes() {
        append(&mut store, vec![entry(index, bytes)]).await.unwrap();
    }
    store.save_committed(Some(log_id(1, 20))).await.unwrap();
    store.close();
    dir
}

async fn assert_complete(store: &mut Store) {
    let mut reader = store.get_log_reader().await;
    let entries = reader.try_get_log_entries(0..100).await.unwrap();
    assert_eq!(entries.len(), sizes().count());
    for ((index, bytes), found) in sizes().zip(&entries) {
        assert_eq!(found.log_id.index, index);
        assert!(
            content(found) == content(&entry(index, bytes)),
            "entry {index}"
        );
    }
    assert_eq!(
        reader.read_vote().await.unwrap(),
        Some(Vote::new_committed(1, 1))
    );
}

fn database(data: &Path) -> PathBuf {
    data.join("log/1/db")
}

#[tokio::test]
async fn everything_acknowledged_is_there_after_reopening() {
    let dir = filled().await;
    let mut store = open(dir.path()).unwrap();
    assert_complete(&mut store).await;
    assert_eq!(store.read_committed().await.unwrap(), Some(log_id(1, 20)));
}

#[tokio::test]
async fn truncated_and_purged_entries_stay_away_and_the_rest_stays() {
    let dir = filled().await;
    let mut store = open(dir.path()).unwrap();
    store.truncate_after(Some(log_id(1, 15))).await.unwrap();
    append(&mut store, vec![entry(16, 10), entry(17, 9_000)])
        .await
        .unwrap();
    store.purge(log_id(1, 7)).await.unwrap();
    store.close();
    let mut store = open(dir.path()).unwrap();
    let state = store.get_log_state().await.unwrap();
    assert_eq!(state.last_purged_log_id, Some(log_id(1, 7)));
    assert_eq!(state.last_log_id, Some(log_id(1, 17)));
    let mut reader = store.get_log_reader().await;
    let entries = reader.try_get_log_entries(0..100).await.unwrap();
    let indexes: Vec<_> = entries.iter().map(|entry| entry.log_id.index).collect();
    assert_eq!(indexes, (8..=17).collect::<Vec<_>>());
    assert!(content(&entries[8]) == content(&entry(16, 10)));
}

#[tokio::test]
async fn an_append_that_a_crash_cut_short_is_dropped_and_its_place_used_again() {
    let dir = filled().await;
    let engine = SledEngine::open(&dir.path().join("log/1")).unwrap();
    // One and a half entries that no meta record names.
    let unfinished = [(24, 5_000), (25, 9_000)].into_iter();
    let mut parts: Vec<_> = unfinished
        .flat_map(|(at, bytes)| parts(at, bytes))
        .collect();
    parts.pop();
    engine.put_in_order(parts).unwrap();
    drop(engine);
    let mut store = open(dir.path()).unwrap();
    assert_complete(&mut store).await;
    append(&mut store, vec![entry(24, 10), entry(25, 5_000)])
        .await
        .unwrap();
    store.close();
    let store = open(dir.path()).unwrap();
    assert_eq!(store.last_log_id(), Some(log_id(1, 25)));
    let mut reader = store.clone().get_log_reader().await;
    let entries = reader.try_get_log_entries(24..100).await.unwrap();
    assert!(content(&entries[0]) == content(&entry(24, 10)));
    assert!(content(&entries[1]) == content(&entry(25, 5_000)));
}

/// An entry as it lies in the engine.
fn parts(index: u64, bytes: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    let record = encode_entry(&entry(index, bytes));
    let chunks = (0..).zip(record.chunks(PART_BYTES));
    chunks
        .map(|(part, chunk)| (PartKey { index, part }.encode(), chunk.to_vec()))
        .collect()
}

#[tokio::test]
async fn a_committed_mark_never_names_an_entry_that_is_not_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path()).unwrap();
    append(&mut store, vec![entry(0, 10)]).await.unwrap();
    store.save_committed(Some(log_id(1, 9))).await.unwrap();
    store.close();
    let mut store = open(dir.path()).unwrap();
    assert_eq!(store.read_committed().await.unwrap(), Some(log_id(1, 0)));
}

#[tokio::test]
async fn a_committed_mark_of_a_later_term_says_nothing_about_the_entries_here() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path()).unwrap();
    // Entry 5 may be one that a leader of term 2 is about to replace.
    append(&mut store, (0..=5).map(|index| entry(index, 10)).collect())
        .await
        .unwrap();
    store.save_committed(Some(log_id(1, 3))).await.unwrap();
    store.save_vote(&Vote::new(2, 2)).await.unwrap();
    store.save_committed(Some(log_id(2, 9))).await.unwrap();
    store.close();
    let mut store = open(dir.path()).unwrap();
    assert_eq!(store.read_committed().await.unwrap(), Some(log_id(1, 3)));
}

#[tokio::test]
async fn bytes_are_counted_right_after_a_restart_in_the_middle_of_a_purge() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path()).unwrap();
    for first in (0..12_000).step_by(1_000) {
        let entries = (first..first + 1_000).map(|index| entry(index, 100));
        append(&mut store, entries.collect()).await.unwrap();
    }
    let record = store.shared().stats.read().live_bytes / 12_000;
    store.purge(log_id(1, 11_899)).await.unwrap();
    store.close();
    let mut store = open(dir.path()).unwrap();
    for index in 12_000..12_100 {
        append(&mut store, vec![entry(index, 100)]).await.unwrap();
    }
    assert_eq!(store.shared().stats.read().live_bytes, 200 * record);
}

#[tokio::test]
async fn only_the_owner_may_look_into_the_log() {
    use std::os::unix::fs::PermissionsExt;

    let dir = filled().await;
    for path in [dir.path().join("log"), dir.path().join("log/1")] {
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{}", path.display());
    }
}

#[tokio::test]
async fn a_torn_snapshot_of_sled_is_removed() {
    let dir = filled().await;
    let torn = dir.path().join("log/1/snap.0000000000001234.generating");
    fs::write(&torn, b"torn").unwrap();
    let mut store = open(dir.path()).unwrap();
    assert!(!torn.exists());
    assert_complete(&mut store).await;
}

#[tokio::test]
async fn a_missing_or_empty_database_is_an_error_and_never_a_new_log() {
    let damages: [fn(&Path); 6] = [
        |data| fs::remove_file(database(data)).unwrap(),
        |data| fs::write(database(data), b"").unwrap(),
        |data| fs::remove_dir_all(data.join("log/1")).unwrap(),
        |data| fs::remove_file(data.join("log/CURRENT")).unwrap(),
        |data| fs::remove_dir_all(data.join("log")).unwrap(),
        |data| fs::remove_file(data.join("log.mark")).unwrap(),
    ];
    for (number, damage) in damages.into_iter().enumerate() {
        let dir = filled().await;
        damage(dir.path());
        for attempt in 0..2 {
            let refusal = open(dir.path()).err();
            let refusal = refusal.unwrap_or_else(|| panic!("damage {number}, attempt {attempt}"));
            assert!(
                matches!(refusal, OpenError::Damaged { .. }),
                "{number}: {refusal}"
            );
            assert!(
                refusal
                    .to_string()
                    .contains(&dir.path().display().to_string()),
                "{refusal}"
            );
        }
    }
}

#[tokio::test]
async fn a_database_without_its_last_batch_is_refused() {
    let dir = filled().await;
    let older = fs::read(database(dir.path())).unwrap();
    let snapshots: Vec<_> = fs::read_dir(dir.path().join("log/1")).unwrap().collect();
    let snapshots: Vec<_> = snapshots.into_iter().map(|it| it.unwrap().path()).collect();
    let mut store = open(dir.path()).unwrap();
    append(&mut store, vec![entry(24, 10)]).await.unwrap();
    store.close();
    // The disk, as it was before the last acknowledged batch.
    for path in fs::read_dir(dir.path().join("log/1"))
        .unwrap()
        .map(|it| it.unwrap().path())
    {
        if !snapshots.contains(&path) && path.is_file() {
            fs::remove_file(path).unwrap();
        }
    }
    fs::write(database(dir.path()), older).unwrap();
    let refusal = open(dir.path())
        .err()
        .expect("an acknowledged entry is missing");
    assert!(matches!(refusal, OpenError::Damaged { .. }), "{refusal}");
}

/// Every truncation, and flips all over the file: the log opens complete, or says what is wrong.
#[tokio::test]
async fn a_truncated_or_flipped_database_is_never_taken_for_other_data() {
    let dir = filled().await;
    let mut whole = fs::read(database(dir.path())).unwrap();
    // Not the room behind it: there is nothing to damage.
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    whole.truncate(used);
    let others = copy_of(dir.path());
    let flips = std::env::var("QUORATE_BIT_FLIPS")
        .ok()
        .and_then(|text| text.parse().ok());
    let flips: usize = flips.unwrap_or(160);
    let (mut complete, mut refused) = (0, 0);
    let mut check = |bytes: Vec<u8>, what: String| {
        restore(&others, dir.path());
        fs::write(database(dir.path()), bytes).unwrap();
        match open(dir.path()) {
            Ok(store) => {
                complete += 1;
                Some((store, what))
            }
            Err(error) => {
                refused += 1;
                assert!(error.to_string().contains("db"), "{what}: {error}");
                None
            }
        }
    };
    let cuts = flips / 4;
    for step in 1..cuts {
        let length = whole.len() * step / cuts;
        if let Some((mut store, _)) = check(whole[..length].to_vec(), format!("cut at {length}")) {
            assert_complete(&mut store).await;
            store.close();
        }
    }
    for step in 0..flips {
        let at = (whole.len() - 8) * step / flips + step % 7;
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (step % 8);
        if let Some((mut store, _)) = check(bytes, format!("flip at {at}")) {
            assert_complete(&mut store).await;
            store.close();
        }
    }
    println!("{complete} harmless, {refused} refused");
    assert!(refused > 0);
}

fn copy_of(data: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_tree(data, copy.path());
    copy
}

fn restore(from: &TempDir, data: &Path) {
    fs::remove_dir_all(data).unwrap();
    fs::create_dir(data).unwrap();
    copy_tree(from.path(), data);
}

fn copy_tree(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => {
                fs::create_dir(&target).unwrap();
                copy_tree(&entry.path(), &target);
            }
            false => {
                fs::copy(entry.path(), target).unwrap();
            }
        }
    }
}
