//! Output on disk and in memory, read from any offset.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use model::{Epoch, Fence, Generation, TaskId};
use rustix::fs::{CWD, Mode, mkfifoat};

use super::{AttemptLog, Captured, Fate, Limits, Logs, Source, Stream, remove_old};
use crate::output::sweep::remove_old_with;

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

fn first_segment(log: &AttemptLog, stream: Stream) -> PathBuf {
    log.dir().join(format!("{}.{:020}", stream.name(), 0))
}

/// From now on whoever writes to the disk waits: where the file would be is a pipe that nobody reads.
pub(crate) fn hang(log: &AttemptLog, stream: Stream) {
    fs::create_dir_all(log.dir()).unwrap();
    let mode = Mode::RUSR | Mode::WUSR;
    mkfifoat(CWD, first_segment(log, stream), mode).unwrap();
}

/// The disk works again, and says in the end how many bytes it got.
pub(crate) fn recover(log: &AttemptLog, stream: Stream) -> JoinHandle<u64> {
    let path = first_segment(log, stream);
    thread::spawn(move || io::copy(&mut File::open(path).unwrap(), &mut io::sink()).unwrap())
}

/// Written, and on disk.
async fn write(log: &Arc<AttemptLog>, stream: Stream, bytes: &[u8]) {
    log.write(stream, bytes).await;
    log.stored(stream).await;
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

#[tokio::test]
async fn output_is_read_again_from_any_offset_open_or_finished() {
    let dir = tempfile::tempdir().unwrap();
    let logs = logs(&dir, 64 << 20, 1 << 30);
    let log = logs.open(fence(1));
    let all = pattern(0, 300_000);
    for piece in all.chunks(7_001) {
        log.write(Stream::Stdout, piece).await;
    }
    log.stored(Stream::Stdout).await;
    write(&log, Stream::Stderr, b"oops").await;
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

#[tokio::test]
async fn the_oldest_part_goes_when_there_is_too_much_and_offsets_stay_true() {
    let dir = tempfile::tempdir().unwrap();
    let logs = logs(&dir, 8 * 100_000, 1 << 30);
    let log = logs.open(fence(1));
    let all = pattern(0, 1_000_000);
    write(&log, Stream::Stdout, &all).await;
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

#[tokio::test]
async fn a_follower_still_reads_a_log_whose_files_were_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let logs = logs(&dir, 1 << 20, 1 << 20);
    let log = logs.open(fence(1));
    write(&log, Stream::Stdout, b"hello").await;
    assert!(is_whole(&log.end()));
    let source = logs.find(fence(1)).unwrap();
    logs.settle(fence(1), Fate::Drop);
    assert_eq!(read_all(&source, 1), (1, b"ello".to_vec()));
}

/// All that can be done is to go round it.
#[tokio::test]
async fn a_log_that_can_not_be_removed_or_is_gone_already_does_not_keep_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let logs = logs(&dir, 1 << 20, 1_500);
    let now = SystemTime::now();
    for n in 1..=4 {
        let log = logs.open(fence(n));
        write(&log, Stream::Stdout, &[0; 1000]).await;
        let segment = first_segment(&log, Stream::Stdout);
        let file = fs::File::options().append(true).open(segment).unwrap();
        file.set_modified(now - Duration::from_secs(600 - 60 * n))
            .unwrap();
        logs.settle(fence(n), Fate::Keep);
    }
    let gone = dir.path().join(fence(1).to_string());
    let stuck = dir.path().join(fence(2).to_string());
    let remove = |dir: &Path| {
        if dir == gone {
            fs::remove_dir_all(dir).unwrap();
        }
        if dir == stuck {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        fs::remove_dir_all(dir)
    };
    assert_eq!(remove_old_with(&logs, now, remove).unwrap(), 2);
    let left: Vec<u64> = (1..=4).filter(|n| logs.find(fence(*n)).is_some()).collect();
    assert_eq!(left, [2], "which still counts");
}

#[tokio::test]
async fn old_logs_go_and_then_the_oldest_until_the_rest_fits() {
    let dir = tempfile::tempdir().unwrap();
    let logs = logs(&dir, 1 << 20, 2_500);
    let now = SystemTime::now();
    for n in 1..=5 {
        write(&logs.open(fence(n)), Stream::Stdout, &[0; 1000]).await;
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

#[tokio::test]
async fn what_a_disk_that_hangs_did_not_take_is_in_the_verdict_and_nobody_waits_to_settle_it() {
    let dir = tempfile::tempdir().unwrap();
    let logs = logs(&dir, 1 << 20, 1 << 20);
    let log = logs.open(fence(1));
    hang(&log, Stream::Stdout);
    let all = pattern(0, 65_536);
    for piece in all.chunks(1000) {
        log.write(Stream::Stdout, piece).await;
    }
    let source = logs.find(fence(1)).unwrap();
    assert!(log.is_behind());
    assert_eq!(
        source.read(Stream::Stdout, 0).unwrap(),
        None,
        "not safe yet"
    );
    {
        let mut more = std::pin::pin!(log.write(Stream::Stdout, b"more"));
        assert!(futures::poll!(more.as_mut()).is_pending(), "memory is full");
    }
    assert_eq!(log.end().tails[0], all);
    assert_eq!(read_all(&source, 10), (10, all[10..].to_vec()));
    logs.settle(fence(1), Fate::Drop);
    recover(&log, Stream::Stdout);
}

#[tokio::test]
async fn output_that_was_dropped_before_the_disk_had_it_does_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let logs = logs(&dir, 1 << 20, 1 << 20);
    let log = logs.open(fence(1));
    log.close();
    write(&log, Stream::Stdout, b"late").await;
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}
