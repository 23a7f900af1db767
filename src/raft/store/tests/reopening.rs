//! What a restart finds: all that was acknowledged, or one clear error.

use std::fs;
use std::io;
use std::ops::Range;
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
use crate::store::directory::{self, OpenError};
use crate::store::engine::{Batch, LogEngine};
use crate::store::key;
use crate::store::log::LogStore;
use crate::store::sled::SledEngine;

type Store = LogStore<TokioRuntime>;

const SECTOR: usize = 512;

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

/// The record of the first write after a start: always at the begin of the first file.
fn first_record(whole: &[u8]) -> Range<usize> {
    let header = &whole[SECTOR..SECTOR + 20];
    let body = u32::from_le_bytes(header[8..12].try_into().unwrap());
    SECTOR..SECTOR + 20 + usize::try_from(body).unwrap()
}

#[tokio::test]
async fn wherever_a_crash_tears_a_write_the_log_ends_before_it_and_goes_on() {
    let dir = filled().await;
    // Nobody was told of the write that comes next.
    let mark = fs::read(dir.path().join("log.mark")).unwrap();
    let mut store = open(dir.path()).unwrap();
    append(&mut store, vec![entry(24, 5_000), entry(25, 300)])
        .await
        .unwrap();
    store.close();
    fs::write(dir.path().join("log.mark"), mark).unwrap();
    let start = copy_of(dir.path());
    let file = dir.path().join("log/wal.0");
    let whole = fs::read(&file).unwrap();
    let record = first_record(&whole);
    for kept in record.step_by(100) {
        restore(&start, dir.path());
        let mut torn = whole.clone();
        torn[kept..].fill(0);
        fs::write(&file, torn).unwrap();
        let mut store = open(dir.path()).unwrap();
        assert_complete(&mut store).await;
        assert_eq!(store.last_log_id(), Some(log_id(1, 23)), "{kept} kept");
        append(&mut store, vec![entry(24, 10), entry(25, 5_000)])
            .await
            .unwrap();
        store.close();
        let store = open(dir.path()).unwrap();
        let mut reader = store.clone().get_log_reader().await;
        let entries = reader.try_get_log_entries(24..100).await.unwrap();
        assert!(content(&entries[0]) == content(&entry(24, 10)));
        assert!(content(&entries[1]) == content(&entry(25, 5_000)));
        store.close();
    }
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
async fn a_log_that_is_set_back_is_refused() {
    let dir = filled().await;
    let older = copy_of(dir.path());
    let mut store = open(dir.path()).unwrap();
    append(&mut store, vec![entry(24, 10)]).await.unwrap();
    store.close();
    // The disk, as it was before the last acknowledged write, but for the witness.
    fs::remove_dir_all(dir.path().join("log")).unwrap();
    fs::create_dir(dir.path().join("log")).unwrap();
    copy_tree(&older.path().join("log"), &dir.path().join("log"));
    let refusal = open(dir.path())
        .err()
        .expect("an acknowledged entry is missing");
    assert!(matches!(refusal, OpenError::Damaged { .. }), "{refusal}");
}

#[tokio::test]
async fn write_ahead_files_that_are_missing_or_anothers_are_an_error() {
    let other = filled().await;
    let first = |data: &Path| data.join("log/wal.0");
    let damages: [&dyn Fn(&Path); 3] = [
        &|data| fs::remove_file(first(data)).unwrap(),
        &|data| {
            fs::remove_file(first(data)).unwrap();
            fs::remove_file(data.join("log/wal.1")).unwrap();
        },
        &|data| {
            fs::copy(first(other.path()), first(data)).unwrap();
        },
    ];
    for (number, damage) in damages.into_iter().enumerate() {
        let dir = filled().await;
        damage(dir.path());
        let refusal = open(dir.path()).err();
        let refusal = refusal.unwrap_or_else(|| panic!("damage {number}"));
        assert!(
            matches!(refusal, OpenError::Damaged { .. }),
            "{number}: {refusal}"
        );
        assert!(refusal.to_string().contains("wal."), "{number}: {refusal}");
    }
}

#[tokio::test]
async fn a_log_from_before_there_were_write_ahead_files_opens() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).unwrap().close();
    // The second start brings the first one's last word to sled, and its own is taken back.
    let mark = fs::read(dir.path().join("log.mark")).unwrap();
    open(dir.path()).unwrap().close();
    let sled = SledEngine::open(&dir.path().join("log/1")).unwrap();
    sled.commit(Batch::from([(key::MOVED.to_vec(), None)]))
        .unwrap();
    drop(sled);
    fs::write(dir.path().join("log.mark"), &mark).unwrap();
    for name in ["wal.0", "wal.1"] {
        fs::remove_file(dir.path().join("log").join(name)).unwrap();
    }
    let mut store = open(dir.path()).unwrap();
    append(&mut store, vec![entry(0, 10)]).await.unwrap();
    store.close();
    let store = open(dir.path()).unwrap();
    assert_eq!(store.last_log_id(), Some(log_id(1, 0)));
}

#[tokio::test]
async fn a_truncated_or_flipped_write_ahead_file_is_never_taken_for_other_data() {
    for name in ["log/wal.0", "log/wal.1"] {
        check_damages(Path::new(name), 4, &["wal.", "acknowledged"]).await;
    }
}

#[tokio::test]
async fn a_truncated_or_flipped_witness_is_never_taken_for_another() {
    check_damages(Path::new("log.mark"), 4, &["log.mark"]).await;
}

#[tokio::test]
async fn a_truncated_or_flipped_database_is_never_taken_for_other_data() {
    check_damages(Path::new("log/1/db"), 1, &["db", "wal."]).await;
}

#[tokio::test]
async fn a_truncated_or_flipped_configuration_of_sled_is_named() {
    check_damages(Path::new("log/1/conf"), 8, &["conf"]).await;
}

/// Truncations, and flips all over a file, or a share of them: the log opens complete, or says what is wrong in
/// one of these words.
async fn check_damages(name: &Path, share: usize, words: &[&str]) {
    let dir = filled().await;
    let path = dir.path().join(name);
    let mut whole = fs::read(&path).unwrap();
    // Not the room behind it: there is nothing to damage.
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    whole.truncate(used);
    let others = copy_of(dir.path());
    let flips = std::env::var("QUORATE_BIT_FLIPS")
        .ok()
        .and_then(|text| text.parse().ok());
    let flips = flips.unwrap_or(160_usize) / share;
    let (mut complete, mut refused) = (0, 0);
    let mut check = |bytes: Vec<u8>, what: String| {
        restore(&others, dir.path());
        fs::write(&path, bytes).unwrap();
        match open(dir.path()) {
            Ok(store) => {
                complete += 1;
                Some((store, what))
            }
            Err(error) => {
                refused += 1;
                let error = error.to_string();
                let explains = words.iter().any(|word| error.contains(word));
                assert!(explains, "{what}: {error}");
                let remedies = ["under a new id", "start this controller again"];
                let told = remedies.map(|remedy| error.contains(remedy));
                assert_eq!(told, [true, false], "{what}: {error}");
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
    println!("{}: {complete} harmless, {refused} refused", name.display());
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
