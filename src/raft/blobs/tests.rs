//! What the directory of blobs does with bytes that are cut off, wrong, changed, or not wanted any more.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use model::BlobRef;
use tempfile::TempDir;

use super::{Blobs, Progress};

/// Larger than what is read or sent at once.
fn bytes() -> Vec<u8> {
    (0..700_000_u32).flat_map(u32::to_le_bytes).collect()
}

fn opened(dir: &Path) -> Arc<Blobs> {
    Blobs::open(dir).unwrap()
}

fn file_of(dir: &Path, blob: &BlobRef) -> PathBuf {
    dir.join("blobs").join(blob.digest.to_string())
}

#[test]
fn what_came_before_a_break_or_a_restart_need_not_come_again() {
    let dir = TempDir::new().unwrap();
    let bytes = bytes();
    let blob = BlobRef::of(&bytes);
    let blobs = opened(dir.path());
    assert_eq!(blobs.progress(&blob).unwrap(), Progress::Partly(0));
    assert_eq!(
        blobs.append(&blob, 0, &bytes[..1_000]).unwrap(),
        Progress::Partly(1_000)
    );
    drop(blobs);

    let blobs = opened(dir.path());
    assert_eq!(blobs.progress(&blob).unwrap(), Progress::Partly(1_000));
    assert!(!blobs.pin(&blob));
    assert!(blobs.append(&blob, 1_001, &bytes[1_001..]).is_err());
    // Somebody else began anew.
    assert_eq!(
        blobs.append(&blob, 0, &bytes[..500]).unwrap(),
        Progress::Partly(1_000)
    );
    assert_eq!(
        blobs.append(&blob, 500, &bytes[500..]).unwrap(),
        Progress::Whole
    );
    assert_eq!(blobs.read_whole(&blob).unwrap(), Some(bytes));
    assert_eq!(blobs.progress(&blob).unwrap(), Progress::Whole);
    assert!(opened(dir.path()).pin(&blob));
}

#[test]
fn bytes_that_are_not_those_of_the_blob_never_get_its_name() {
    let dir = TempDir::new().unwrap();
    let bytes = bytes();
    let blob = BlobRef::of(&bytes);
    let blobs = opened(dir.path());
    let mut wrong = bytes.clone();
    wrong[123_456] ^= 1;
    assert!(blobs.append(&blob, 0, &wrong).is_err());
    assert!(!file_of(dir.path(), &blob).exists());
    // And they are not gone on with.
    assert_eq!(blobs.progress(&blob).unwrap(), Progress::Partly(0));
    assert!(
        blobs
            .append(&blob, 0, &[&bytes[..], &[0]].concat())
            .is_err()
    );
    assert!(blobs.put(&[(blob, &wrong)]).is_err());
    assert!(!blobs.pin(&blob));
    assert_eq!(blobs.append(&blob, 0, &bytes).unwrap(), Progress::Whole);
}

#[test]
fn a_blob_that_was_changed_on_disk_is_missing_until_it_comes_again() {
    let dir = TempDir::new().unwrap();
    let bytes = bytes();
    let blob = BlobRef::of(&bytes);
    let blobs = opened(dir.path());
    blobs.put(&[(blob, &bytes)]).unwrap();
    assert_eq!(blobs.stats().missing, 0);
    let mut flipped = bytes.clone();
    flipped[bytes.len() - 1] ^= 0x10;
    fs::write(file_of(dir.path(), &blob), &flipped).unwrap();

    assert!(blobs.read(&blob).unwrap().is_none());
    assert!(!blobs.pin(&blob));
    assert!(blobs.missing().borrow().contains(&blob.digest));
    let aside = file_of(dir.path(), &blob).with_extension("damaged");
    assert_eq!(fs::read(&aside).unwrap(), flipped);
    blobs.append(&blob, 0, &bytes).unwrap();
    assert_eq!(blobs.stats().missing, 0);
    assert!(!aside.exists());
    assert_eq!(blobs.read_whole(&blob).unwrap(), Some(bytes));
}

#[test]
fn what_nobody_reads_is_read_again_each_once_a_round() {
    let dir = TempDir::new().unwrap();
    let pinned = Duration::ZERO;
    let blobs = Blobs::open_with(dir.path(), pinned).unwrap();
    let outputs: Vec<Vec<u8>> = (0..20).map(|n| vec![n; 9_000]).collect();
    let kept: Vec<BlobRef> = outputs.iter().map(|it| BlobRef::of(it)).collect();
    let written = kept.iter().copied().zip(outputs.iter().map(Vec::as_slice));
    blobs.put(&written.collect::<Vec<_>>()).unwrap();
    fs::write(file_of(dir.path(), &kept[3]), &outputs[4]).unwrap();
    fs::remove_file(file_of(dir.path(), &kept[7])).unwrap();

    let (mut last, mut seen) = (None, Vec::new());
    while let Some(blob) = blobs.scrub_after(last) {
        last = Some(blob.digest);
        seen.push(blob);
    }
    let mut sorted = kept.clone();
    sorted.sort_by_key(|blob| blob.digest);
    assert_eq!(seen, sorted);
    let lost = [kept[3].digest, kept[7].digest].into();
    assert_eq!(**blobs.missing().borrow(), lost);
    assert_eq!(blobs.stats().damaged, 2);
    // A look is no use of it; what was put aside goes with the last that names it.
    let aside = file_of(dir.path(), &kept[3]).with_extension("damaged");
    assert!(aside.exists());
    let blobs = Blobs::open_with(dir.path(), pinned).unwrap();
    assert_eq!(blobs.collect(|_| false).unwrap(), 18);
    assert!(!aside.exists());
}

#[test]
fn one_that_is_gone_or_of_another_size_is_missing_too() {
    let dir = TempDir::new().unwrap();
    let blob = BlobRef::of(b"something");
    let blobs = opened(dir.path());
    blobs.put(&[(blob, b"something")]).unwrap();
    fs::remove_file(file_of(dir.path(), &blob)).unwrap();
    assert!(blobs.read(&blob).unwrap().is_none());
    assert_eq!(blobs.stats().missing, 1);

    fs::write(file_of(dir.path(), &blob), b"some").unwrap();
    let blobs = opened(dir.path());
    assert!(!blobs.pin(&blob));
    blobs.expect(&[blob], 1);
    assert_eq!(blobs.stats().missing, 1);
    blobs.put(&[(blob, b"something")]).unwrap();
    assert_eq!(blobs.stats().missing, 0);
}

#[test]
fn only_what_is_old_and_not_to_be_kept_is_deleted() {
    let dir = TempDir::new().unwrap();
    let (kept, dropped) = (BlobRef::of(b"kept"), BlobRef::of(b"dropped"));
    let put = |blobs: &Blobs| {
        blobs
            .put(&[(kept, b"kept"), (dropped, b"dropped")])
            .unwrap();
    };
    let blobs = opened(dir.path());
    put(&blobs);
    assert_eq!(blobs.collect(|_| false).unwrap(), 0);
    assert!(!blobs.has_old(|_| false));
    drop(blobs);

    let blobs = Blobs::open_with(dir.path(), Duration::ZERO).unwrap();
    assert!(blobs.has_old(|digest| *digest == kept.digest));
    assert_eq!(blobs.collect(|digest| *digest == kept.digest).unwrap(), 1);
    assert!(blobs.pin(&kept) && !blobs.pin(&dropped));
    assert!(!file_of(dir.path(), &dropped).exists());
    assert!(!blobs.has_old(|digest| *digest == kept.digest));
}

#[test]
fn what_nothing_names_is_kept_for_ten_minutes_from_when_it_came_or_was_asked_for_last() {
    let dir = TempDir::new().unwrap();
    let blobs = opened(dir.path());
    let blob = BlobRef::of(b"uploaded");
    let collected = |blobs: &Blobs| blobs.collect(|_| false).unwrap();
    blobs.put(&[(blob, b"uploaded")]).unwrap();
    blobs.grow_older(&blob, Duration::from_secs(595));
    assert!(!blobs.has_old(|_| false));
    assert_eq!(collected(&blobs), 0);
    // Whoever proposes asks again: by its name, or with its bytes.
    assert!(blobs.pin(&blob));
    blobs.grow_older(&blob, Duration::from_secs(595));
    assert_eq!(collected(&blobs), 0);
    blobs.put(&[(blob, b"uploaded")]).unwrap();
    blobs.grow_older(&blob, Duration::from_secs(595));
    assert_eq!(collected(&blobs), 0);
    // An entry that names it has come, and gone.
    blobs.grow_older(&blob, Duration::from_secs(5));
    assert!(!blobs.has_old(|named| *named == blob.digest));
    assert_eq!(blobs.collect(|named| *named == blob.digest).unwrap(), 0);
    assert!(file_of(dir.path(), &blob).exists());
    assert!(blobs.has_old(|_| false));
    assert_eq!(collected(&blobs), 1);
    assert!(!file_of(dir.path(), &blob).exists());
}

#[test]
fn many_are_written_at_once() {
    let dir = TempDir::new().unwrap();
    let blobs = opened(dir.path());
    let all: Vec<Vec<u8>> = (0..200_u16).map(|n| n.to_le_bytes().repeat(40)).collect();
    let named: Vec<_> = all.iter().map(|it| (BlobRef::of(it), &**it)).collect();
    blobs.put(&named).unwrap();
    for (blob, bytes) in &named {
        assert_eq!(blobs.read_whole(blob).unwrap().as_deref(), Some(*bytes));
    }
    assert_eq!(blobs.stats().blobs, 200);
}

/// As after a restart between the last byte and the name.
#[test]
fn what_came_whole_before_a_restart_is_finished_or_thrown_away() {
    let dir = TempDir::new().unwrap();
    let (right, wrong) = (BlobRef::of(b"right"), BlobRef::of(b"wrong"));
    drop(opened(dir.path()));
    let incoming = dir.path().join("blobs/incoming");
    fs::write(incoming.join(right.digest.to_string()), b"right").unwrap();
    fs::write(incoming.join(wrong.digest.to_string()), b"rigth").unwrap();
    let blobs = opened(dir.path());
    assert_eq!(blobs.progress(&right).unwrap(), Progress::Whole);
    assert_eq!(blobs.progress(&wrong).unwrap(), Progress::Partly(0));
    assert_eq!(blobs.read_whole(&right).unwrap().unwrap(), b"right");
    assert_eq!(fs::read_dir(&incoming).unwrap().count(), 0);
}

#[test]
fn equal_outputs_and_writers_side_by_side_leave_one_whole_file() {
    let dir = TempDir::new().unwrap();
    let blobs = opened(dir.path());
    let bytes = vec![7; 100_000];
    let blob = BlobRef::of(&bytes);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let many: Vec<_> = (0..20).map(|_| (blob, &*bytes)).collect();
                blobs.put(&many).unwrap();
            });
        }
    });
    assert_eq!(blobs.read_whole(&blob).unwrap(), Some(bytes));
    assert_eq!(blobs.stats().blobs, 1);
}

#[test]
fn what_an_entry_names_that_the_state_has_not_come_to_is_not_given_up() {
    let dir = TempDir::new().unwrap();
    let blobs = opened(dir.path());
    let blob = BlobRef::of(b"named by the entry under way");
    blobs.expect(&[blob], 7);
    let mut state = model::State::default();
    state.note_index(6, 1);
    blobs.give_up(&state);
    assert_eq!(blobs.stats().missing, 1, "it may be in the next view");
    state.note_index(7, 1);
    blobs.give_up(&state);
    assert_eq!(blobs.stats().missing, 0, "nothing refers to it any more");
}
