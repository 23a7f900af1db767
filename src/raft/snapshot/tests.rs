//! Snapshots on disk: written, verified, replaced, damaged.

mod crashes;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::chunk::CHUNK_BYTES;
use super::manifest::{Manifest, Position};
use super::shelf::{Handle, Shelf};
use crate::consensus::{StoredMembership, log_id};

fn position(index: u64) -> Position {
    Position {
        segments: Vec::new(),
        last_log: Some(log_id(1, index)),
        membership: StoredMembership::default(),
        used_ids: BTreeSet::from([1, 2]),
    }
}

fn state(bytes: usize) -> Vec<u8> {
    (0..=250).cycle().take(bytes).collect()
}

fn build(shelf: &Shelf, index: u64, bytes: usize) -> Handle {
    shelf
        .build(&position(index), "hash", |file| {
            file.write_all(&state(bytes))
        })
        .unwrap()
}

/// All of the state, compared with its manifest.
fn read(handle: &Handle) -> io::Result<Vec<u8>> {
    let mut body = handle.body()?;
    let mut state = Vec::new();
    // What hinders it is told at the end, too.
    body.read_to_end(&mut state).ok();
    body.finish()?;
    Ok(state)
}

/// The directories beside CURRENT.
fn directories(data: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(data.join("snapshots"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries.filter(|path| path.is_dir()).collect()
}

#[test]
fn a_snapshot_is_found_again_whole() {
    let data = tempfile::tempdir().unwrap();
    for bytes in [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES + 7] {
        let shelf = Shelf::open(data.path()).unwrap();
        build(&shelf, bytes as u64 + 1, bytes);
        let found = Shelf::open(data.path()).unwrap().current().unwrap();
        assert!(read(&found).unwrap() == state(bytes), "{bytes} bytes");
        assert_eq!(found.manifest.used_ids, BTreeSet::from([1, 2]));
        assert_eq!(
            directories(data.path()).len(),
            1,
            "the one before is removed"
        );
    }
}

#[test]
fn what_a_crash_left_half_made_is_swept() {
    let data = tempfile::tempdir().unwrap();
    build(&Shelf::open(data.path()).unwrap(), 5, 100);
    fs::create_dir(data.path().join("snapshots/incoming-dead")).unwrap();
    fs::create_dir(data.path().join("snapshots/4-0000")).unwrap();
    let shelf = Shelf::open(data.path()).unwrap();
    assert_eq!(directories(data.path()).len(), 1);
    assert_eq!(shelf.current().unwrap().manifest.last_log.unwrap().index, 5);
}

#[test]
fn an_older_snapshot_does_not_replace_a_newer_one() {
    let data = tempfile::tempdir().unwrap();
    let shelf = Shelf::open(data.path()).unwrap();
    build(&shelf, 9, 10);
    build(&shelf, 8, 10);
    assert_eq!(shelf.current().unwrap().manifest.last_log.unwrap().index, 9);
    assert_eq!(
        directories(data.path()).len(),
        1,
        "the overtaken one is removed with its handle"
    );
}

#[test]
fn every_damage_to_a_snapshot_is_noticed() {
    let data = tempfile::tempdir().unwrap();
    build(&Shelf::open(data.path()).unwrap(), 5, 2 * CHUNK_BYTES);
    let [dir] = &directories(data.path())[..] else {
        panic!("one snapshot")
    };
    let (path, whole) = (dir.join("data"), fs::read(dir.join("data")).unwrap());
    let damaged = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        read(&Shelf::open(data.path()).unwrap().current().unwrap())
    };
    for step in 0..50 {
        let at = whole.len() * step / 50;
        assert!(damaged(&whole[..at]).is_err(), "cut at {at}");
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (step % 8);
        assert!(damaged(&flipped).is_err(), "flip at {at}");
    }
    let doubled = [&whole[..], &whole[..]].concat();
    assert!(damaged(&doubled).is_err(), "more than announced");
    assert!(damaged(&whole).is_ok());

    let manifest = fs::read_to_string(dir.join("manifest.json")).unwrap();
    let elsewhere = manifest.replace("\"index\": 5", "\"index\": 4");
    assert_ne!(elsewhere, manifest);
    for changed in [elsewhere.as_str(), "{", ""] {
        fs::write(dir.join("manifest.json"), changed).unwrap();
        let error = Shelf::open(data.path()).err().unwrap().to_string();
        assert!(error.contains("manifest.json"), "{error}");
    }
    fs::write(dir.join("manifest.json"), manifest).unwrap();
    assert!(Shelf::open(data.path()).is_ok());
    let path = data.path().join("snapshots/CURRENT");
    let whole = fs::read(&path).unwrap();
    let flipped = (0..whole.len() * 8).map(|bit| {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        flipped
    });
    for changed in flipped.chain([b"5".to_vec()]) {
        fs::write(&path, &changed).unwrap();
        let Err(error) = Shelf::open(data.path()) else {
            // One space is as good as another.
            let text = String::from_utf8(changed).unwrap();
            assert_eq!(text.trim_end().as_bytes(), whole.trim_ascii_end());
            continue;
        };
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData, "{error}");
        assert!(error.to_string().contains("CURRENT"), "{error}");
    }
}

#[test]
fn a_received_snapshot_counts_only_when_it_is_complete() {
    let data = tempfile::tempdir().unwrap();
    let source = Shelf::open(data.path()).unwrap();
    let handle = build(&source, 5, CHUNK_BYTES + 9);
    let manifest = Manifest::clone(&handle.manifest);
    let mut records = Vec::new();
    let mut reader = handle.reader().unwrap();
    while let Some((record, _)) = reader.next().unwrap() {
        records.push(record);
    }

    let target = tempfile::tempdir().unwrap();
    let shelf = Shelf::open(target.path()).unwrap();
    let mut incoming = shelf.receive(manifest.clone()).unwrap();
    incoming.add(&records[0]).unwrap();
    assert!(incoming.finish().is_err(), "a chunk is missing");
    assert!(
        directories(target.path()).is_empty(),
        "nothing is left of it"
    );

    let mut incoming = shelf.receive(manifest).unwrap();
    records
        .iter()
        .for_each(|record| incoming.add(record).unwrap());
    assert!(incoming.add(&records[0]).is_err(), "more than announced");
    let handle = incoming.finish();
    assert!(handle.is_err(), "the tally is off");
}
