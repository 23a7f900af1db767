//! The archive on its own: what is found of what was taken; what a start, a crash, a power cut and a lost or damaged
//! file leave; and that a segment is what its digest says.

mod cuts;
mod repair;

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::{
    ArchiveStep, Entry, Generation, Op, Retention, Stamped, State, SystemCommand, TaskId, Timestamp,
};

use super::Archive;
use super::need::Need;
use crate::fatal::FatalSignal;
use crate::tests::golden::{self, assert_written};
use crate::tests::harness::ended_task;

/// A log that submits and cancels tasks, so that each is over at once, and archives them at once, in
/// segments of ten entries.
struct Log {
    state: State,
}

impl Log {
    fn new() -> (Self, Vec<ArchiveStep>) {
        let mut log = Self {
            state: State::default(),
        };
        let found = SystemCommand::Found {
            cluster_id: "test".to_owned(),
            generation: Generation(1),
        };
        let retention = Retention {
            hot_tasks: 0,
            segment_entries: 10,
            ..Retention::default()
        };
        let first = [found, SystemCommand::Retain(retention)];
        let steps = first.map(|command| log.apply(vec![Op::System(command)]));
        (log, steps.into())
    }

    fn apply(&mut self, ops: Vec<Op>) -> ArchiveStep {
        let index = self.state.last_applied() + 1;
        let stamp = Timestamp(1_000 * index);
        let entry = Entry {
            stamp,
            wall: stamp,
            ops,
        };
        let stamped = Stamped {
            index,
            term: 1,
            membership: 0,
            entry,
        };
        self.state.apply(stamped).archive
    }

    /// A task whose record has about so many bytes.
    fn task(&mut self, bytes: usize) -> ArchiveStep {
        let id = self.state.task_count() as u64 + self.submitted() + 1;
        self.apply(ended_task(id, bytes))
    }

    fn submitted(&self) -> u64 {
        let tasks = self.state.all_segments().filter_map(|it| it.tasks);
        tasks.map(|(_, greatest)| greatest.0).max().unwrap_or(0)
    }
}

/// A log of so many tasks, each of some KiB, in an archive.
fn filled(archive: &Archive, tasks: usize) -> Log {
    filled_with(archive, tasks, 5_000)
}

fn filled_with(archive: &Archive, tasks: usize, bytes: usize) -> Log {
    let (mut log, steps) = Log::new();
    archive.take(steps, log.state.last_applied()).unwrap();
    for _ in 0..tasks {
        let step = log.task(bytes);
        archive.take(vec![step], log.state.last_applied()).unwrap();
    }
    log
}

/// What a member leaves that archived so many tasks and stopped.
fn left_behind(dir: &Path, tasks: usize) -> Log {
    let archive = on_disk(dir);
    let log = filled(&archive, tasks);
    archive.close();
    log
}

/// An archive whose member has no snapshot.
fn on_disk(dir: &Path) -> Arc<Archive> {
    opened_at(dir, &State::default())
}

/// An archive whose member starts from a snapshot of this state.
fn opened_at(dir: &Path, state: &State) -> Arc<Archive> {
    let archive = Archive::open(dir, FatalSignal::default()).unwrap();
    archive.settle(state).unwrap();
    archive
}

fn segment_file(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("archive/{first:020}"))
}

/// Names and bytes of all files.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(dir.join("archive")).unwrap();
    let files = entries.map(|entry| {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        (name, std::fs::read(entry.path()).unwrap())
    });
    files.collect()
}

fn ids(archive: &Archive, state: &State, before: u64, limit: usize) -> Vec<u64> {
    let found = archive.tasks_below(state, TaskId(before), limit).unwrap();
    found.into_iter().map(|record| record.task.id.0).collect()
}

fn event_indexes(archive: &Archive, state: &State, from: u64, limit: usize) -> (Vec<u64>, u64) {
    let page = archive.events(state, from, limit).unwrap().unwrap();
    let indexes = page.entries.iter().map(|entry| entry.index).collect();
    (indexes, page.next)
}

fn numbers(range: std::ops::RangeInclusive<u64>) -> Vec<u64> {
    range.collect()
}

/// Copies a segment from one archive to another, as the network does.
fn hand_over(from: &Archive, to: &Archive, need: &Need) -> io::Result<()> {
    let mut incoming = to.incoming(need)?;
    from.visit(need.first, need.end, &mut |record| {
        incoming.put(&[record])?;
        Ok(ControlFlow::Continue(()))
    })?;
    incoming.finish()
}

#[test]
fn what_was_taken_is_found_whether_its_segment_grows_or_is_complete() {
    let dir = tempfile::tempdir().unwrap();
    let archive = on_disk(dir.path());
    let log = filled(&archive, 25);
    let look = |archive: &Archive| {
        let state = &log.state;
        for id in 1..=25 {
            let record = archive.task(state, TaskId(id)).unwrap().unwrap();
            assert_eq!(record.task.id, TaskId(id));
        }
        assert!(archive.task(state, TaskId(26)).unwrap().is_none());
        assert_eq!(ids(archive, state, 26, 4), [25, 24, 23, 22]);
        assert_eq!(ids(archive, state, 3, 10), [2, 1]);
        assert_eq!(ids(archive, state, 100, 100).len(), 25);
        assert_eq!(event_indexes(archive, state, 5, 3), (vec![5, 6, 7], 8));
        assert_eq!(event_indexes(archive, state, 26, 9), (vec![26, 27], 28));
        assert_eq!(event_indexes(archive, state, 0, 99).0, numbers(3..=27));
    };
    look(&archive);
    archive.close();
    drop(archive);
    look(&opened_at(dir.path(), &log.state));
}

#[test]
fn a_segment_is_written_and_read_as_the_first_release_did() {
    const GOLDEN: &str = include_str!("../../golden/v1/segment.hex");
    let dir = tempfile::tempdir().unwrap();
    let archive = on_disk(dir.path());
    let log = filled_with(&archive, 12, 10);
    archive.close();
    let file = segment_file(dir.path(), 3);
    let now = std::fs::read(&file).unwrap();
    assert_written(&[("segment.hex", GOLDEN, now)]);
    drop(archive);
    std::fs::write(&file, golden::bytes(GOLDEN)).unwrap();
    let archive = opened_at(dir.path(), &log.state);
    for id in 1..=12 {
        let record = archive.task(&log.state, TaskId(id)).unwrap().unwrap();
        assert_eq!(record.task.id, TaskId(id));
    }
    assert_eq!(
        event_indexes(&archive, &log.state, 0, 99).0,
        numbers(3..=14)
    );
}

#[test]
fn events_are_read_from_a_mark_and_none_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let archive = on_disk(dir.path());
    let (mut log, _) = Log::new();
    let retention = Retention {
        hot_tasks: 0,
        ..Retention::default()
    };
    log.apply(vec![Op::System(SystemCommand::Retain(retention))]);
    // 60 MiB, so that there are many marks and no cut.
    for _ in 0..600 {
        let step = log.task(100_000);
        archive.take(vec![step], log.state.last_applied()).unwrap();
    }
    let state = &log.state;
    assert_eq!(state.segments().count(), 0);
    for from in 4..=603 {
        let (indexes, next) = event_indexes(&archive, state, from, 2);
        let wanted = from..=603.min(from + 1);
        assert_eq!((indexes, next), (wanted.collect(), 604.min(from + 2)));
    }
}

#[test]
fn two_members_have_the_same_bytes_however_their_entries_came() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    left_behind(one.path(), 35);
    let archive = on_disk(other.path());
    let (mut log, mut steps) = Log::new();
    for n in 0..35 {
        steps.push(log.task(5_000));
        if n % 4 == 0 {
            let batch = std::mem::take(&mut steps);
            archive.take(batch, log.state.last_applied()).unwrap();
            archive.flush().unwrap();
        }
    }
    archive.take(steps, log.state.last_applied()).unwrap();
    archive.close();
    let (one, other) = (files(one.path()), files(other.path()));
    assert_eq!(one.len(), 4);
    assert!(one == other);
}

#[test]
fn a_start_from_any_index_leaves_what_the_log_goes_on_from_and_ends_with_the_same_bytes() {
    let whole = tempfile::tempdir().unwrap();
    left_behind(whole.path(), 35);
    let wanted = files(whole.path());
    for from in 0..=35 {
        let dir = tempfile::tempdir().unwrap();
        left_behind(dir.path(), 35);
        // A snapshot was taken after so many tasks, and the log has the rest.
        let (mut log, _) = Log::new();
        for _ in 0..from {
            log.task(5_000);
        }
        let archive = opened_at(dir.path(), &log.state);
        assert_eq!(archive.lacks(&log.state), [], "{from}");
        assert_eq!(ids(&archive, &log.state, 99, 99).len(), from, "{from}");
        for _ in from..35 {
            let step = log.task(5_000);
            archive.take(vec![step], log.state.last_applied()).unwrap();
        }
        archive.close();
        assert!(files(dir.path()) == wanted, "{from}");
    }
}

#[test]
fn a_tail_that_a_crash_tore_is_told_again_by_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let log = left_behind(dir.path(), 7);
    let (mut before, _) = Log::new();
    for _ in 0..5 {
        before.task(5_000);
    }
    let (name, whole) = files(dir.path()).pop_first().unwrap();
    let path = dir.path().join("archive").join(name);
    // Of the last two of seven, each somewhere torn, or full of zeros.
    let kept = whole.len() * 5 / 7 + 200;
    for cut in (kept..whole.len()).step_by(997) {
        let mut torn = whole[..cut].to_vec();
        torn.resize(whole.len() + cut % 3, 0);
        std::fs::write(&path, &torn).unwrap();
        let archive = opened_at(dir.path(), &before.state);
        assert_eq!(archive.lacks(&before.state), [], "{cut}");
        let mut log = Log {
            state: before.state.clone(),
        };
        for _ in 5..7 {
            let step = log.task(5_000);
            archive.take(vec![step], log.state.last_applied()).unwrap();
        }
        archive.close();
        assert!(std::fs::read(&path).unwrap() == whole, "{cut}");
    }
    assert_eq!(log.state.segments().count(), 0);
}

#[test]
fn what_came_for_a_snapshot_is_used_when_it_replaces_the_state() {
    let (good, late) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let source = on_disk(good.path());
    let log = filled(&source, 35);
    // It knows the first tasks only.
    let archive = on_disk(late.path());
    filled(&archive, 14);
    let needs = Need::of(&log.state);
    let missing = archive.missing(&needs).unwrap();
    assert_eq!(missing.len(), needs.len() - 1, "the first segment is here");
    for need in &missing {
        hand_over(&source, &archive, need).unwrap();
    }
    assert_eq!(archive.missing(&needs).unwrap(), []);
    // A crash in between forgets nothing.
    archive.close();
    drop(archive);
    let archive = opened_at(late.path(), &log.state);
    assert_eq!(archive.lacks(&log.state), []);
    assert_eq!(ids(&archive, &log.state, 99, 99).len(), 35);
    archive.close();
    source.close();
    assert!(files(late.path()) == files(good.path()));
}

#[test]
fn a_segment_that_is_not_what_the_log_says_ends_the_member() {
    let dir = tempfile::tempdir().unwrap();
    let fatal = FatalSignal::default();
    let archive = Archive::open(dir.path(), fatal.clone()).unwrap();
    archive.settle(&State::default()).unwrap();
    let (mut log, steps) = Log::new();
    archive.take(steps, log.state.last_applied()).unwrap();
    for n in 0..20 {
        let mut step = log.task(10);
        if n == 3 {
            step.records.pop();
        }
        // It may have ended already.
        archive.take(vec![step], log.state.last_applied()).ok();
    }
    archive.flush().unwrap_err();
    archive.close();
    let reason = fatal.reason().unwrap();
    assert!(reason.contains("this is a defect"), "{reason}");
    let error = archive.task(&log.state, TaskId(1)).unwrap_err();
    assert!(error.to_string().contains("this is a defect"), "{error}");
}

#[test]
fn what_retention_drops_is_gone_from_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let archive = on_disk(dir.path());
    let mut log = filled(&archive, 25);
    let retention = Retention {
        max_bytes: 1,
        ..log.state.retention().clone()
    };
    let drop_all = SystemCommand::Retain(retention);
    let step = log.apply(vec![Op::System(drop_all)]);
    archive.take(vec![step], log.state.last_applied()).unwrap();
    archive.flush().unwrap();
    assert_eq!(files(dir.path()).len(), 1, "the growing one");
    assert!(archive.task(&log.state, TaskId(1)).unwrap().is_none());
    assert!(log.state.archived_from() > 0);
    assert_eq!(archive.events(&log.state, 1, 9).unwrap(), None);
}

#[test]
fn readers_find_all_that_their_state_archived_while_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let archive = on_disk(dir.path());
    let (mut log, steps) = Log::new();
    archive.take(steps, log.state.last_applied()).unwrap();
    for n in 1..=200 {
        let step = log.task(2_000);
        archive.take(vec![step], log.state.last_applied()).unwrap();
        assert!(archive.task(&log.state, TaskId(n)).unwrap().is_some());
        assert_eq!(event_indexes(&archive, &log.state, n + 2, 9).0, [n + 2]);
        assert_eq!(ids(&archive, &log.state, n + 1, 1), [n]);
    }
}
