//! What a lost or damaged segment is to readers, and how another controller's comes in its place.

use std::io;
use std::ops::ControlFlow;

use model::{State, TaskId};

use super::{
    files, filled, filled_with, hand_over, ids, left_behind, on_disk, opened_at, segment_file,
};
use crate::archive::need::Need;
use crate::archive::{Archive, catalog};
use crate::fatal::FatalSignal;

#[test]
fn a_segment_that_is_lost_is_named_and_never_taken_for_an_empty_one() {
    let dir = tempfile::tempdir().unwrap();
    let log = left_behind(dir.path(), 25);
    let firsts: Vec<u64> = log.state.segments().map(|it| it.first).collect();
    std::fs::remove_file(segment_file(dir.path(), firsts[0])).unwrap();
    let archive = opened_at(dir.path(), &log.state);
    let lacks = archive.lacks(&log.state);
    assert_eq!(
        lacks.iter().map(|it| it.first).collect::<Vec<_>>(),
        [firsts[0]]
    );
    for error in [
        archive.task(&log.state, TaskId(1)).map(|_| ()).unwrap_err(),
        archive.events(&log.state, 3, 9).map(|_| ()).unwrap_err(),
        archive
            .tasks_below(&log.state, TaskId(99), 99)
            .map(|_| ())
            .unwrap_err(),
    ] {
        assert!(error.to_string().contains("not here yet"), "{error}");
    }
    assert!(archive.task(&log.state, TaskId(25)).unwrap().is_some());
    assert_eq!(ids(&archive, &log.state, 99, 3), [25, 24, 23]);
}

#[test]
fn segments_that_are_lost_or_damaged_come_from_another_member_even_the_one_that_grows() {
    let (good, bad) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for damage in ["removed", "flipped", "torn", "all removed"] {
        std::fs::remove_dir_all(bad.path()).unwrap();
        std::fs::create_dir(bad.path()).unwrap();
        let source = on_disk(good.path());
        let log = filled(&source, 25);
        left_behind(bad.path(), 25);
        for need in Need::of(&log.state) {
            let path = segment_file(bad.path(), need.first);
            let mut bytes = std::fs::read(&path).unwrap();
            match damage {
                "removed" => std::fs::remove_file(&path).unwrap(),
                "flipped" => {
                    bytes[3_000] ^= 8;
                    std::fs::write(&path, &bytes[..bytes.len() - 100]).unwrap();
                }
                "torn" => std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap(),
                _ => {}
            }
        }
        if damage == "all removed" {
            std::fs::remove_dir_all(bad.path().join("archive")).unwrap();
        }
        let archive = opened_at(bad.path(), &log.state);
        let lacks = archive.lacks(&log.state);
        assert_eq!(lacks, Need::of(&log.state), "{damage}");
        // The log goes on meanwhile.
        let mut log = log;
        for _ in 0..2 {
            let step = log.task(5_000);
            archive
                .take(vec![step.clone()], log.state.last_applied())
                .unwrap();
            source.take(vec![step], log.state.last_applied()).unwrap();
        }
        for need in lacks {
            hand_over(&source, &archive, &need).unwrap();
            archive.adopt(&need).unwrap();
        }
        assert_eq!(archive.lacks(&log.state), [], "{damage}");
        assert_eq!(ids(&archive, &log.state, 99, 99).len(), 27, "{damage}");
        for _ in 0..10 {
            let step = log.task(5_000);
            archive
                .take(vec![step.clone()], log.state.last_applied())
                .unwrap();
            source.take(vec![step], log.state.last_applied()).unwrap();
        }
        archive.close();
        source.close();
        assert!(files(bad.path()) == files(good.path()), "{damage}");
    }
}

#[test]
fn a_growing_segment_that_was_lost_and_then_cut_comes_as_a_whole() {
    let (good, bad) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let source = on_disk(good.path());
    let mut log = filled(&source, 5);
    let archive = opened_at(bad.path(), &log.state);
    let prefix = archive.lacks(&log.state);
    assert_eq!(prefix.len(), 1);
    for _ in 0..10 {
        let step = log.task(5_000);
        archive
            .take(vec![step.clone()], log.state.last_applied())
            .unwrap();
        source.take(vec![step], log.state.last_applied()).unwrap();
    }
    // What was fetched too late is of no use.
    hand_over(&source, &archive, &prefix[0]).unwrap();
    archive.adopt(&prefix[0]).unwrap();
    archive.flush().unwrap();
    let lacks = archive.lacks(&log.state);
    assert!(lacks.len() == 1 && lacks[0].closed, "{lacks:?}");
    hand_over(&source, &archive, &lacks[0]).unwrap();
    archive.adopt(&lacks[0]).unwrap();
    assert_eq!(ids(&archive, &log.state, 99, 99).len(), 15);
    archive.close();
    source.close();
    assert!(files(bad.path()) == files(good.path()));
}

#[test]
fn a_bit_that_flips_in_a_complete_segment_is_found_when_it_is_read_and_the_segment_fetched() {
    let (good, bad) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let source = on_disk(good.path());
    filled(&source, 25);
    let archive = on_disk(bad.path());
    let log = filled(&archive, 25);
    let first = log.state.segments().next().unwrap().first;
    archive.flush().unwrap();
    let path = segment_file(bad.path(), first);
    let whole = std::fs::read(&path).unwrap();
    // In the frames, and in the index behind them.
    for at in [whole.len() / 2, whole.len() - 100] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let everything = archive.tasks_below(&log.state, TaskId(99), 99);
        let error = everything.map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("is damaged"), "{error}");
        let lacks = archive.lacks(&log.state);
        assert_eq!(lacks.len(), 1);
        assert!(path.with_extension("damaged0").exists());
        hand_over(&source, &archive, &lacks[0]).unwrap();
        archive.adopt(&lacks[0]).unwrap();
        assert_eq!(ids(&archive, &log.state, 99, 99).len(), 25);
        assert!(std::fs::read(&path).unwrap() == whole);
        assert!(!path.with_extension("damaged0").exists());
    }
}

#[test]
fn a_peer_that_sends_something_else_changes_nothing() {
    let (good, bad) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let source = on_disk(good.path());
    let wrong = filled_with(&source, 25, 4_999);
    let (log, archive) = {
        let log = left_behind(bad.path(), 25);
        std::fs::remove_file(segment_file(bad.path(), 3)).unwrap();
        (log.state.clone(), opened_at(bad.path(), &log.state))
    };
    assert_eq!(wrong.state.last_applied(), log.last_applied());
    let lacks = archive.lacks(&log);
    assert_eq!(lacks.len(), 1);
    for need in [
        lacks[0].clone(),
        Need {
            end: 8,
            ..lacks[0].clone()
        },
        Need {
            bytes: 100,
            ..lacks[0].clone()
        },
    ] {
        let error = hand_over(&source, &archive, &need).unwrap_err();
        assert!(error.to_string().contains("other records"), "{error}");
    }
    assert_eq!(archive.lacks(&log), lacks);
    assert!(archive.task(&log, TaskId(20)).unwrap().is_some());
}

#[test]
fn two_readers_that_find_the_same_damage_lose_one_segment_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let fatal = FatalSignal::default();
    let archive = Archive::open(dir.path(), fatal.clone()).unwrap();
    archive.settle(&State::default()).unwrap();
    let log = filled(&archive, 25);
    archive.flush().unwrap();
    let first = log.state.segments().next().unwrap().first;
    for _ in 0..2 {
        let damage = io::Error::from(io::ErrorKind::InvalidData);
        archive.sound::<()>(first, Err(damage)).unwrap_err();
    }
    archive.flush().unwrap();
    assert_eq!(fatal.reason(), None);
    assert_eq!(archive.lacks(&log.state).len(), 1);
    assert!(archive.task(&log.state, TaskId(20)).unwrap().is_some());
    // One whose file went away is fetched, too.
    let next = log.state.segments().nth(1).unwrap().first;
    std::fs::remove_file(segment_file(dir.path(), next)).unwrap();
    let error = archive.tasks_below(&log.state, TaskId(18), 1).map(|_| ());
    assert!(error.unwrap_err().to_string().contains("gone"));
    assert_eq!(archive.lacks(&log.state).len(), 2);
    assert_eq!(fatal.reason(), None);
}

#[test]
fn what_did_not_come_or_is_something_else_leaves_a_lost_segment_lost() {
    let dir = tempfile::tempdir().unwrap();
    let log = left_behind(dir.path(), 25);
    let first = log.state.segments().next().unwrap().first;
    std::fs::remove_file(segment_file(dir.path(), first)).unwrap();
    let archive = opened_at(dir.path(), &log.state);
    let need = archive.lacks(&log.state).remove(0);
    archive.adopt(&need).unwrap();
    let path = catalog::fetched(&dir.path().join("archive"), first);
    std::fs::write(&path, b"something else").unwrap();
    archive.adopt(&need).unwrap();
    assert!(!path.exists());
    assert_eq!(archive.lacks(&log.state), [need]);
    assert!(archive.task(&log.state, TaskId(20)).unwrap().is_some());
}

#[test]
fn records_in_another_order_are_refused_though_their_sum_is_right() {
    let (good, bad) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let source = on_disk(good.path());
    let log = filled(&source, 25);
    let archive = opened_at(bad.path(), &log.state);
    let need = archive.lacks(&log.state).remove(0);
    let mut records = Vec::new();
    source
        .visit(need.first, need.end, &mut |record| {
            records.push(record);
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
    records.swap(3, 4);
    let error = archive.incoming(&need).unwrap().put(&records).unwrap_err();
    assert!(error.to_string().contains("other records"), "{error}");
}

#[test]
fn what_was_put_aside_stays_until_another_has_come() {
    let (good, bad) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let source = on_disk(good.path());
    let mut log = filled(&source, 5);
    left_behind(bad.path(), 5);
    let first = log.state.open_segment().unwrap().first;
    let path = segment_file(bad.path(), first);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[2_000] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    // Started twice before anybody had it, with more of the log each time.
    for _ in 0..2 {
        let archive = opened_at(bad.path(), &log.state);
        let step = log.task(5_000);
        source
            .take(vec![step.clone()], log.state.last_applied())
            .unwrap();
        archive.take(vec![step], log.state.last_applied()).unwrap();
        archive.close();
    }
    assert!(std::fs::read(path.with_extension("damaged0")).unwrap() == bytes);
    let archive = opened_at(bad.path(), &log.state);
    for need in archive.lacks(&log.state) {
        hand_over(&source, &archive, &need).unwrap();
        archive.adopt(&need).unwrap();
    }
    archive.close();
    source.close();
    assert!(files(bad.path()) == files(good.path()));
}
