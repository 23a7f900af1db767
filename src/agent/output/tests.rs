//! Output on disk and in memory, read from any offset.

use std::fs;
use std::time::{Duration, SystemTime};

use model::{Epoch, Fence, Generation, TaskId};

use super::{Captured, Fate, Limits, Logs, Source, Stream, remove_old};

fn fence(n: u64) -> Fence {
    Fence {
        task: TaskId(n),
        generation: Generation(0),
        epoch: Epoch(n),
    }
}

fn logs(dir: &tempfile::TempDir, per_attempt: u64, total: u64) -> Logs {
    let retention = Duration::from_secs(3600);
    Logs::start(Limits {
        dir: dir.path().to_owned(),
        per_attempt,
        total,
        retention,
    })
    .unwrap()
}

fn pattern(from: usize, count: usize) -> Vec<u8> {
    (0..=250).cycle().skip(from % 251).take(count).collect()
}

/// Whether the tails are all there is.
fn is_whole(captured: &Captured) -> bool {
    captured
        .tails
        .iter()
        .zip(captured.totals)
        .all(|(tail, total)| tail.len() as u64 == total)
}

/// All of a stream from `offset` on: where it begins, and the bytes.
fn read_all(source: &Source, offset: u64) -> (u64, Vec<u8>) {
    let (mut begin, mut all) = (None, Vec::new());
    let mut at = offset;
    while let Some(chunk) = source.read(Stream::Stdout, at).unwrap() {
        begin.get_or_insert(chunk.offset);
        assert!(chunk.offset >= at);
        at = chunk.offset + chunk.data.len() as u64;
        all.extend_from_slice(&chunk.data);
    }
    (begin.unwrap_or(offset), all)
}

#[test]
fn output_is_read_again_from_any_offset_open_or_finished() {
    let dir = tempfile::tempdir().unwrap();
    let logs = logs(&dir, 64 << 20, 1 << 30);
    let log = logs.open(fence(1));
    let all = pattern(0, 300_000);
    all.chunks(7_001)
        .for_each(|piece| log.write(Stream::Stdout, piece));
    log.write(Stream::Stderr, b"oops");
    let captured = log.end();
    assert_eq!(captured.totals, [300_000, 4]);
    assert_eq!(captured.tails[0], all[300_000 - 65_536..]);
    assert!(!is_whole(&captured));
    let open = logs.find(fence(1)).unwrap();
    logs.settle(fence(1), Fate::Keep);
    let finished = logs.find(fence(1)).unwrap();
    assert!(matches!(finished, Source::Disk(_)));
    for source in [open, finished] {
        for offset in [0, 1, 65_536, 250_000, 299_999, 300_000] {
            let at = usize::try_from(offset).unwrap();
            assert_eq!(read_all(&source, offset), (offset, all[at..].to_vec()));
        }
    }
    assert_eq!(logs.captured(fence(1)), captured);
}

#[test]
fn the_oldest_part_goes_when_there_is_too_much_and_offsets_stay_true() {
    let dir = tempfile::tempdir().unwrap();
    let logs = logs(&dir, 8 * 100_000, 1 << 30);
    let log = logs.open(fence(1));
    let all = pattern(0, 1_000_000);
    all.chunks(9_973)
        .for_each(|piece| log.write(Stream::Stdout, piece));
    log.end();
    let (begin, rest) = read_all(&logs.find(fence(1)).unwrap(), 0);
    assert_eq!(begin, 600_000);
    assert_eq!(rest, all[600_000..]);
    let on_disk: u64 = fs::read_dir(dir.path().join(fence(1).to_string()))
        .unwrap()
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum();
    assert!(on_disk <= 400_000, "{on_disk}");
}

#[test]
fn an_attempt_without_output_leaves_nothing_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let logs = logs(&dir, 1 << 20, 1 << 20);
    assert!(is_whole(&logs.open(fence(1)).end()));
    logs.settle(fence(1), Fate::Drop);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    assert!(logs.find(fence(1)).is_none());
    assert_eq!(logs.captured(fence(1)), Captured::default());
}

#[test]
fn a_follower_still_reads_a_log_whose_files_were_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let logs = logs(&dir, 1 << 20, 1 << 20);
    let log = logs.open(fence(1));
    log.write(Stream::Stdout, b"hello");
    assert!(is_whole(&log.end()));
    let source = logs.find(fence(1)).unwrap();
    logs.settle(fence(1), Fate::Drop);
    assert_eq!(read_all(&source, 1), (1, b"ello".to_vec()));
}

#[test]
fn old_logs_go_and_then_the_oldest_until_the_rest_fits() {
    let dir = tempfile::tempdir().unwrap();
    let logs = logs(&dir, 1 << 20, 2_500);
    let now = SystemTime::now();
    for n in 1..=5 {
        logs.open(fence(n)).write(Stream::Stdout, &[0; 1000]);
        let segment = dir.path().join(format!("{}/stdout.{:020}", fence(n), 0));
        let age = if n == 1 { 7200 } else { 600 - 60 * n };
        let file = fs::File::options().append(true).open(segment).unwrap();
        file.set_modified(now - Duration::from_secs(age)).unwrap();
        if n != 3 {
            logs.settle(fence(n), Fate::Keep);
        }
    }
    // 1 is too old; of 2, 4 and 5 only two fit; 3 is still open.
    assert_eq!(remove_old(&logs, now).unwrap(), 2);
    let left: Vec<u64> = (1..=5).filter(|n| logs.find(fence(*n)).is_some()).collect();
    assert_eq!(left, [3, 4, 5]);
}
