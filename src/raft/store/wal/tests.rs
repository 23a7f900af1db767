//! The files and sled as one engine: whatever is written, and whenever it is opened again.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::store::rotate::Growth;
use crate::store::stats::StatsRecorder;

const IDENTITY: LogIdentity = LogIdentity([5; 16]);

fn open(dir: &Path, floor: u64) -> io::Result<Wal> {
    let number = std::fs::read_to_string(dir.join("CURRENT"));
    let number: u64 = number.map_or(1, |text| text.trim().parse().unwrap());
    let path = crate::store::rotate::database_path(dir, number);
    let sled = match path.exists() {
        true => SledEngine::open(&path)?,
        false => SledEngine::create(&path)?,
    };
    let growth = Growth {
        floor,
        ..Growth::of(0)
    };
    let rotation = Rotation::new(dir, number, growth, Arc::new(StatsRecorder::default()));
    let found = find(dir, IDENTITY, &sled)?;
    Wal::start(found, sled, rotation, FatalSignal::default())
}

fn all(wal: &Wal) -> BTreeMap<Key, Value> {
    let mut pairs = BTreeMap::new();
    wal.scan(Vec::new()..key::MOVED.to_vec(), &mut |key, value| {
        pairs.insert(key.to_vec(), value.to_vec());
        ControlFlow::Continue(())
    })
    .unwrap();
    pairs
}

/// One of few keys, so that much is replaced and removed.
fn any_batch() -> impl Strategy<Value = Batch> {
    let key = (0..90_u8).prop_map(|key| vec![1, key]);
    let value = prop::option::weighted(0.8, any::<u8>().prop_map(|byte| vec![byte; 4096]));
    prop::collection::btree_map(key, value, 1..90)
}

#[derive(Clone, Debug)]
enum Step {
    Write(Batch),
    Reopen,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![8 => any_batch().prop_map(Step::Write), 1 => Just(Step::Reopen)]
}

proptest! {
    // A failing case is printed; a file of it would land beside the crates.
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 8, ..ProptestConfig::default() })]

    /// Some MiB, so the files take turns and the database is replaced, too.
    #[test]
    fn it_is_one_map_that_survives_its_ends(steps in prop::collection::vec(any_step(), 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        let floor = 3 << 20;
        let mut wal = open(dir.path(), floor).unwrap();
        let mut wanted = BTreeMap::new();
        for step in steps {
            match step {
                Step::Reopen => {
                    drop(wal);
                    wal = open(dir.path(), floor).unwrap();
                }
                Step::Write(batch) => {
                    for (key, value) in &batch {
                        match value {
                            Some(value) => wanted.insert(key.clone(), value.clone()),
                            None => wanted.remove(key),
                        };
                    }
                    wal.commit(batch).unwrap();
                }
            }
            prop_assert!(all(&wal) == wanted);
        }
        for (key, value) in &wanted {
            let found = wal.get(key).unwrap();
            prop_assert_eq!(found.as_ref(), Some(value));
        }
        drop(wal);
        prop_assert!(all(&open(dir.path(), floor).unwrap()) == wanted);
    }
}

fn write(wal: &Wal, number: u8) {
    let batch = Batch::from([(vec![1, number], Some(vec![number; 700]))]);
    wal.commit(batch).unwrap();
}

/// The sectors of the n-th record of `write`, from 0.
fn sectors(number: usize) -> Range<usize> {
    (1 + 2 * number) * record::SECTOR..(3 + 2 * number) * record::SECTOR
}

#[test]
fn a_damaged_write_with_another_behind_it_is_never_taken_for_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let wal = open(dir.path(), 1 << 30).unwrap();
    (0..5).for_each(|number| write(&wal, number));
    drop(wal);
    let path = dir.path().join(NAMES[0]);
    let whole = std::fs::read(&path).unwrap();
    for number in 0..5 {
        let mut damaged = whole.clone();
        damaged[sectors(number)][100] ^= 4;
        std::fs::write(&path, damaged).unwrap();
        let opened = open(dir.path(), 1 << 30);
        match number {
            // The last one may be what a crash left: here only the witness knows better.
            4 => assert_eq!(all(&opened.unwrap()).len(), 4),
            _ => {
                let refused = opened.err().unwrap().to_string();
                let wanted = format!("write {} is damaged", number + 1);
                assert!(refused.contains(&wanted), "{refused}");
            }
        }
    }
}

#[test]
fn records_of_an_earlier_round_are_not_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let wal = open(dir.path(), 1 << 30).unwrap();
    (0..5).for_each(|number| write(&wal, number));
    drop(wal);
    // Opening brings all to sled, and the next record goes over the first.
    let wal = open(dir.path(), 1 << 30).unwrap();
    wal.commit(Batch::from([
        (vec![1, 2], None),
        (vec![1, 7], Some(vec![7])),
    ]))
    .unwrap();
    drop(wal);
    let wal = open(dir.path(), 1 << 30).unwrap();
    let found = all(&wal);
    let keys: Vec<_> = found.keys().map(|key| key[1]).collect();
    assert_eq!(keys, [0, 1, 3, 4, 7]);
}

/// Writes until both files are full, and tells of each write.
fn fill_both(wal: &Wal, done: &mpsc::Sender<u8>) -> io::Result<()> {
    let half = file::FILE_BYTES / 2 / 4096;
    for number in 0..4 {
        let parts = (0..half).map(|part| {
            let key = [&[1, number], part.to_be_bytes().as_slice()].concat();
            (key, Some(vec![number; 4096]))
        });
        wal.commit(parts.collect())?;
        done.send(number).unwrap_or_default();
    }
    Ok(())
}

#[test]
fn a_full_file_is_written_over_only_once_sled_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let wal = Arc::new(open(dir.path(), 1 << 30).unwrap());
    let (done, writes) = mpsc::channel();
    let held = lock(&wal.store.sled);
    let writer = thread::spawn({
        let wal = wal.clone();
        move || fill_both(&wal, &done)
    });
    assert_eq!(
        (0..3).map(|_| writes.recv().unwrap()).collect::<Vec<_>>(),
        [0, 1, 2]
    );
    // The mover can't come to sled: the fourth write fills the second file and has nowhere to go.
    let more = writes.recv_timeout(Duration::from_millis(300));
    assert_eq!(more, Err(mpsc::RecvTimeoutError::Timeout));
    drop(held);
    writer.join().unwrap().unwrap();
    assert_eq!(all(&wal).len(), 4 * file::FILE_BYTES / 2 / 4096);
}

#[test]
fn a_database_that_can_not_be_written_ends_the_writing() {
    let dir = tempfile::tempdir().unwrap();
    let wal = open(dir.path(), 1 << 30).unwrap();
    // Such a file makes every write to sled fail.
    std::fs::write(dir.path().join("1/blobs/1234"), "a page").unwrap();
    let (done, writes) = mpsc::channel();
    let refused = fill_both(&wal, &done).unwrap_err().to_string();
    assert!(
        refused.contains("nothing more is acknowledged"),
        "{refused}"
    );
    assert!(
        writes.try_iter().count() >= 2,
        "the first file was not full"
    );
    assert!(fill_both(&wal, &done).is_err());
}
