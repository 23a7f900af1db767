//! The journal against crashes, cuts and bit flips.

use std::fs;
use std::path::Path;

use model::{End, Epoch, Fence, Generation, Outcome, TaskId, Timestamp, Verdict};
use proptest::prelude::*;

use super::ledger::Ledger;
use super::record::{ProcessMark, Record};
use super::store::{Store, encode, signature};
use super::{Durable, Journal};
use crate::error::Error;

fn fence(n: u64) -> Fence {
    Fence {
        task: TaskId(n),
        generation: Generation(1),
        epoch: Epoch(n * 10),
    }
}

fn begun(n: u64) -> Record {
    Record::Begun {
        fence: fence(n),
        attempt: 1,
        at: Timestamp(5),
    }
}

fn ended(n: u64, output: usize) -> Record {
    let mut outcome = Outcome::bare(End::Exited { code: 0 });
    outcome.stdout = vec![0xff; output];
    Record::Ended(Verdict {
        fence: fence(n),
        outcome,
    })
}

fn records() -> impl Strategy<Value = Vec<Record>> {
    let one = (0u64..12, 0usize..300).prop_flat_map(|(n, size)| {
        let process = ProcessMark {
            pid: 7,
            started: 9,
            boot: "b".into(),
        };
        prop_oneof![
            Just(begun(n)),
            Just(Record::Running {
                fence: fence(n),
                process
            }),
            Just(ended(n, size)),
            Just(Record::Settled { fence: fence(n) }),
        ]
    });
    prop::collection::vec(one, 1..60)
}

fn ledger(records: &[Record]) -> Ledger {
    let mut ledger = Ledger::default();
    records.iter().for_each(|record| ledger.apply(record));
    ledger
}

fn path(dir: &tempfile::TempDir) -> std::path::PathBuf {
    dir.path().join("journal")
}

/// Where each of the records ends, when they are appended one by one and synced where `sync` says.
fn write(path: &Path, records: &[Record], sync: &[bool]) -> Vec<u64> {
    let mut store = Store::open(path).unwrap();
    let mut ends = vec![fs::metadata(path).unwrap().len()];
    for (record, sync) in records.iter().zip(sync) {
        store.append(std::slice::from_ref(record)).unwrap();
        if *sync {
            store.sync().unwrap();
        }
        ends.push(fs::metadata(path).unwrap().len());
    }
    ends
}

/// Failing cases are not written to files: beside this crate's folder they would look like a crate.
fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

#[test]
fn a_process_of_an_attempt_that_was_never_begun_is_not_remembered() {
    let running = Record::Running {
        fence: fence(1),
        process: ProcessMark {
            pid: 7,
            started: 9,
            boot: "b".into(),
        },
    };
    let told = ledger(&[ended(1, 0), running]);
    assert_eq!(ledger(&told.records()), told);
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn a_journal_cut_anywhere_is_read_up_to_the_cut(
        records in records(), cut in any::<prop::sample::Index>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let ends = write(&path(&dir), &records, &vec![true; records.len()]);
        let incarnation = Store::open(&path(&dir)).unwrap().incarnation();
        let whole = fs::read(path(&dir)).unwrap();
        let first = usize::try_from(ends[0]).unwrap();
        let cut = first + cut.index(whole.len() - first + 1);
        fs::write(path(&dir), &whole[..cut]).unwrap();
        if cut < whole.len() {
            // All of it was on disk, which the witness knows.
            let error = Store::open(&path(&dir)).unwrap_err();
            prop_assert!(matches!(error, Error::Corrupt { .. }), "{}", error);
        }
        fs::remove_file(dir.path().join("journal.mark")).unwrap();
        let at = cut as u64;
        let kept = ends[1..].iter().filter(|end| **end <= at).count();
        for _ in 0..2 {
            let store = Store::open(&path(&dir)).unwrap();
            prop_assert_eq!(store.incarnation(), incarnation);
            prop_assert_eq!(store.ledger(), &ledger(&records[..kept]));
        }
        prop_assert_eq!(fs::metadata(path(&dir)).unwrap().len(), ends[kept]);
    }

    #[test]
    fn a_flipped_bit_is_a_torn_end_or_an_error_but_never_another_story(
        records in records(), sync in prop::collection::vec(any::<bool>(), 60),
        place in any::<prop::sample::Index>(), bit in 0u8..8,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let ends = write(&path(&dir), &records, &sync);
        let mut bytes = fs::read(path(&dir)).unwrap();
        let at = place.index(bytes.len());
        bytes[at] ^= 1 << bit;
        fs::write(path(&dir), &bytes).unwrap();
        let intact = ends[1..].iter().filter(|end| **end <= at as u64).count();
        // Synced: somebody relied on it.
        let first = ends.iter().filter(|end| **end <= at as u64).count();
        let last_sync = (0..records.len()).rev().find(|i| sync[*i]);
        let vouched = first == 0 || last_sync.is_some_and(|last| ends[last + 1] > ends[first - 1]);
        match Store::open(&path(&dir)) {
            Ok(store) => {
                prop_assert!(!vouched, "damage at byte {} was cut off quietly", at);
                prop_assert_eq!(store.ledger(), &ledger(&records[..intact]));
            }
            Err(error) => {
                prop_assert!(vouched, "a torn end was refused: {}", error);
                prop_assert!(matches!(error, Error::Corrupt { .. }), "{}", error);
            }
        }
    }

    #[test]
    fn a_rewritten_journal_tells_the_same(records in records()) {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open_with(&path(&dir), 1).unwrap();
        let incarnation = store.incarnation();
        for record in &records {
            store.append(std::slice::from_ref(record)).unwrap();
            store.compact().unwrap();
        }
        prop_assert_eq!(store.ledger(), &ledger(&records));
        drop(store);
        let store = Store::open(&path(&dir)).unwrap();
        prop_assert_eq!(store.ledger(), &ledger(&records));
        prop_assert_eq!(store.incarnation(), incarnation);
    }
}

#[test]
fn a_lost_journal_is_a_new_incarnation() {
    let dir = tempfile::tempdir().unwrap();
    let first = Store::open(&path(&dir)).unwrap().incarnation();
    assert_eq!(Store::open(&path(&dir)).unwrap().incarnation(), first);
    fs::remove_file(path(&dir)).unwrap();
    assert_ne!(Store::open(&path(&dir)).unwrap().incarnation(), first);
}

#[test]
fn a_rewrite_that_was_cut_short_leaves_the_old_journal() {
    let dir = tempfile::tempdir().unwrap();
    write(&path(&dir), &[begun(1)], &[true]);
    fs::write(dir.path().join("journal.new"), b"half").unwrap();
    let store = Store::open(&path(&dir)).unwrap();
    assert!(store.ledger().held.contains_key(&fence(1)));
    assert!(!dir.path().join("journal.new").exists());
}

#[test]
fn a_file_that_is_no_journal_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for bytes in [&b""[..], b"hello", &[0; 4096]] {
        fs::write(path(&dir), bytes).unwrap();
        let error = Store::open(&path(&dir)).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    }
}

#[test]
fn a_settled_journal_stays_small() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open_with(&path(&dir), 64 * 1024).unwrap();
    for n in 0..2_000 {
        store
            .append(&[
                begun(n),
                ended(n, 1_000),
                Record::Settled { fence: fence(n) },
            ])
            .unwrap();
        store.compact().unwrap();
    }
    let bytes = fs::metadata(path(&dir)).unwrap().len();
    assert!(bytes < 600 * 1024, "{bytes}");
    assert_eq!(store.ledger().settled().count(), 2_000);
}

#[test]
fn the_journal_of_an_agent_that_is_restarted_often_stays_small_too() {
    let dir = tempfile::tempdir().unwrap();
    let min = 64 * 1024;
    for n in 0..40 {
        let mut store = Store::open_with(&path(&dir), min).unwrap();
        let settled = Record::Settled { fence: fence(n) };
        // Half as much as it may hold: no single run gets there.
        store
            .append(&[begun(n), ended(n, 32 * 1024), settled])
            .unwrap();
        store.compact().unwrap();
    }
    let bytes = fs::metadata(path(&dir)).unwrap().len();
    assert!(bytes < 2 * min, "{bytes}");
    let store = Store::open_with(&path(&dir), min).unwrap();
    assert_eq!(store.ledger().settled().count(), 40);
}

#[test]
fn many_attempts_share_a_flush_and_each_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (told, mut durable) = tokio::sync::mpsc::unbounded_channel();
    let (journal, _, thread) = Journal::open(&path(&dir), told).unwrap();
    for n in 0..2_000 {
        journal.begun(fence(n), 1);
    }
    drop(journal);
    thread.join().unwrap();
    let (mut batches, mut begun) = (0, Vec::new());
    while let Ok(batch) = durable.try_recv() {
        batches += 1;
        begun.extend(batch);
    }
    assert_eq!(
        begun,
        (0..2_000)
            .map(|n| Durable::Begun(fence(n)))
            .collect::<Vec<_>>()
    );
    assert!(batches < 200, "{batches} flushes for 2,000 attempts");
}

#[test]
fn a_compacted_journal_that_lost_its_end_is_damage_and_no_torn_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open_with(&path(&dir), 1).unwrap();
    let all: Vec<Record> = (1..=20).map(begun).collect();
    store.append(&all).unwrap();
    store.sync().unwrap();
    store.compact().unwrap();
    drop(store);
    let whole = fs::read(path(&dir)).unwrap();
    fs::write(path(&dir), &whole[..whole.len() - 1]).unwrap();
    let cut = Store::open(&path(&dir)).unwrap_err();
    assert!(matches!(cut, Error::Corrupt { .. }), "{cut}");
    fs::write(path(&dir), &whole).unwrap();
    let store = Store::open(&path(&dir)).unwrap();
    assert_eq!(*store.ledger(), ledger(&all));
}

#[test]
fn a_damaged_witness_is_an_error_that_names_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    write(&path(&dir), &[begun(1)], &[true]);
    let mark = dir.path().join("journal.mark");
    let mut bytes = fs::read(&mark).unwrap();
    bytes[3] ^= 1;
    fs::write(&mark, bytes).unwrap();
    let error = Store::open(&path(&dir)).unwrap_err();
    assert!(matches!(&error, Error::Corrupt { path: named, .. } if *named == path(&dir)));
    // The remedy that it names.
    fs::rename(path(&dir), dir.path().join("aside")).unwrap();
    assert!(Store::open(&path(&dir)).unwrap().ledger().held.is_empty());
}

#[test]
fn the_witness_says_nothing_of_a_journal_that_an_older_release_rewrote() {
    let dir = tempfile::tempdir().unwrap();
    write(
        &path(&dir),
        &(1..=20).map(begun).collect::<Vec<_>>(),
        &[true; 20],
    );
    let mark = dir.path().join("journal.mark");
    let before = fs::read(&mark).unwrap();
    let mut store = Store::open_with(&path(&dir), 1).unwrap();
    store
        .append(&[Record::Settled { fence: fence(1) }])
        .unwrap();
    store.sync().unwrap();
    store.compact().unwrap();
    drop(store);
    // As that release would have left it.
    fs::write(&mark, before).unwrap();
    assert_eq!(Store::open(&path(&dir)).unwrap().ledger().held.len(), 19);
}

#[test]
fn two_rewrites_of_one_length_have_another_signature() {
    let rewritten = |n| {
        let ledger = ledger(&[begun(n)]);
        let length = encode(model::Incarnation([7; 16]), &ledger, 0)
            .unwrap()
            .len();
        encode(model::Incarnation([7; 16]), &ledger, length as u64).unwrap()
    };
    let (one, other) = (rewritten(1), rewritten(2));
    assert_eq!(one.len(), other.len());
    assert_ne!(signature(&one), signature(&other));
    // What comes behind does not change it.
    assert_eq!(signature(&one), signature(&[&one[..], &other[..]].concat()));
}

#[tokio::test]
async fn records_that_nobody_waits_for_are_written_soon_and_not_at_all_where_the_end_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let (told, mut durable) = tokio::sync::mpsc::unbounded_channel();
    let (journal, _, thread) = Journal::open(&path(&dir), told).unwrap();
    let process = ProcessMark {
        pid: 7,
        started: 9,
        boot: "b".into(),
    };
    journal.begun(fence(1), 1);
    durable.recv().await.unwrap();
    journal.running(fence(1), process.clone());
    let written = || Store::open(&path(&dir)).unwrap().ledger().held[&fence(1)].clone();
    while written().process.is_none() {
        tokio::task::yield_now().await;
    }
    journal.begun(fence(2), 1);
    durable.recv().await.unwrap();
    let size = || fs::metadata(path(&dir)).unwrap().len();
    let before = size();
    let Record::Ended(verdict) = ended(2, 0) else {
        panic!("it is an end")
    };
    let mut bytes = Vec::new();
    super::record::encode(&Record::Ended(verdict.clone()), before, &mut bytes).unwrap();
    journal.running(fence(2), process);
    journal.ended(verdict);
    durable.recv().await.unwrap();
    assert_eq!(size() - before, bytes.len() as u64, "only its end");
    drop(journal);
    thread.join().unwrap();
}
