//! The archive on its own: what is found of what was taken, whether it waits or is on disk; what a restart, a
//! power cut and a lost file leave; and that a segment is what its digest says.

mod cuts;

use std::path::Path;
use std::sync::Arc;

use model::{
    ArchiveStep, Command, Entry, Generation, Namespace, Op, Principal, Retention, Role, Stamped,
    State, Submit, SystemCommand, TaskId, TaskSpec, Timestamp,
};

use super::engines::{MemorySegments, SledSegments};
use super::need::Need;
use super::{Archive, Pressure};

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
            entry: &entry,
        };
        self.state.apply(&stamped).archive
    }

    /// A task whose record has about so many bytes.
    fn task(&mut self, bytes: usize) -> ArchiveStep {
        let client = |command| Op::Client {
            principal: Principal {
                name: "ann".to_owned(),
                role: Role::Client,
                fingerprint: [0; 32],
            },
            command,
            placement: None,
        };
        let namespace = Namespace::new("default").unwrap();
        let spec = TaskSpec::process(namespace, vec!["echo".to_owned(), "x".repeat(bytes)]);
        let submit = Submit {
            spec,
            request_id: None,
        };
        let cancel = Command::CancelTask {
            task: TaskId(self.state.task_count() as u64 + self.submitted() + 1),
            reason: String::new(),
        };
        self.apply(vec![client(Command::SubmitTask(submit)), client(cancel)])
    }

    fn submitted(&self) -> u64 {
        let tasks = self.state.all_segments().filter_map(|it| it.tasks);
        tasks.map(|(_, greatest)| greatest.0).max().unwrap_or(0)
    }
}

/// A log of so many tasks, each a little larger than a part holds, in an archive.
fn filled(archive: &Archive, tasks: usize) -> Log {
    let (mut log, steps) = Log::new();
    for step in steps {
        archive.take(step);
    }
    for _ in 0..tasks {
        archive.take(log.task(5_000));
    }
    log
}

fn on_disk(dir: &Path) -> Arc<Archive> {
    Archive::new(Box::new(SledSegments::open(dir).unwrap()))
}

fn ids(archive: &Archive, state: &State, before: u64, limit: usize) -> Vec<u64> {
    let found = archive.tasks_below(state, TaskId(before), limit).unwrap();
    found.into_iter().map(|id| id.0).collect()
}

fn event_indexes(archive: &Archive, state: &State, from: u64, limit: usize) -> (Vec<u64>, u64) {
    let page = archive.events(state, from, limit).unwrap().unwrap();
    let indexes = page.entries.iter().map(|entry| entry.index).collect();
    (indexes, page.next)
}

#[test]
fn what_was_taken_is_found_the_same_whether_it_waits_or_is_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let archive = on_disk(dir.path());
    let log = filled(&archive, 25);
    let state = &log.state;
    for round in ["waiting", "flushed"] {
        let record = archive.task(state, TaskId(7)).unwrap().expect(round);
        assert_eq!(record.task.id, TaskId(7), "{round}");
        assert!(archive.task(state, TaskId(26)).unwrap().is_none());
        assert_eq!(ids(&archive, state, 26, 4), [25, 24, 23, 22], "{round}");
        assert_eq!(ids(&archive, state, 3, 10), [2, 1], "{round}");
        assert_eq!(
            event_indexes(&archive, state, 5, 3),
            (vec![5, 6, 7], 8),
            "{round}"
        );
        assert_eq!(event_indexes(&archive, state, 26, 9), (vec![26, 27], 28));
        assert_eq!(event_indexes(&archive, state, 0, 99).0.len(), 25, "{round}");
        archive.flush().unwrap();
    }
    drop(archive);
    let again = on_disk(dir.path());
    assert!(again.task(state, TaskId(7)).unwrap().is_some());
    assert_eq!(again.missing(&Need::of(state)).unwrap(), []);
}

#[test]
fn a_replay_writes_the_same_records_again_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = {
        let archive = on_disk(dir.path());
        let log = filled(&archive, 25);
        archive.flush().unwrap();
        log
    };
    let archive = on_disk(dir.path());
    filled(&archive, 25);
    archive.flush().unwrap();
    assert_eq!(archive.missing(&Need::of(&log.state)).unwrap(), []);
    assert_eq!(ids(&archive, &log.state, 26, 99).len(), 25);
}

#[test]
fn a_segment_that_lost_a_record_or_its_file_is_missed_and_others_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let (log, segments) = {
        let archive = on_disk(dir.path());
        let log = filled(&archive, 25);
        archive.flush().unwrap();
        let segments: Vec<u64> = log.state.segments().map(|it| it.first).collect();
        (log, segments)
    };
    std::fs::remove_dir_all(dir.path().join(format!("archive/{:020}", segments[0]))).unwrap();
    let archive = on_disk(dir.path());
    let missing = archive.missing(&Need::of(&log.state)).unwrap();
    assert_eq!(
        missing.iter().map(|it| it.first).collect::<Vec<_>>(),
        [segments[0]]
    );
    let error = archive.task(&log.state, TaskId(1)).unwrap_err();
    assert!(error.to_string().contains("not here yet"), "{error}");
    assert!(archive.task(&log.state, TaskId(25)).unwrap().is_some());
}

#[test]
fn a_segment_is_verified_before_it_counts_as_complete() {
    let (mut log, steps) = Log::new();
    let archive = Archive::new(Box::<MemorySegments>::default());
    for step in steps {
        archive.take(step);
    }
    for n in 0..20 {
        let mut step = log.task(10);
        if n == 3 {
            step.records.pop();
        }
        archive.take(step);
    }
    let error = archive.flush().unwrap_err();
    assert!(
        error.to_string().contains("is not what the log says"),
        "{error}"
    );
}

#[test]
fn what_retention_drops_is_gone_from_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let archive = on_disk(dir.path());
    let mut log = filled(&archive, 25);
    archive.flush().unwrap();
    let retention = Retention {
        max_bytes: 1,
        ..log.state.retention().clone()
    };
    let drop_all = SystemCommand::Retain(retention);
    assert_eq!(
        archive.take(log.apply(vec![Op::System(drop_all)])),
        Pressure::Flush
    );
    archive.flush().unwrap();
    let left: Vec<_> = std::fs::read_dir(dir.path().join("archive"))
        .unwrap()
        .collect();
    assert_eq!(left.len(), 1, "the open one");
    assert!(archive.task(&log.state, TaskId(1)).unwrap().is_none());
    assert!(log.state.archived_from() > 0);
    assert_eq!(archive.events(&log.state, 1, 9).unwrap(), None);
}

#[test]
fn another_state_brings_its_own_segments() {
    let dir = tempfile::tempdir().unwrap();
    let archive = on_disk(dir.path());
    let log = filled(&archive, 25);
    archive.replace(&State::default()).unwrap();
    assert!(ids(&archive, &State::default(), 99, 99).is_empty());
    assert_eq!(archive.missing(&Need::of(&log.state)).unwrap().len(), 3);
}

/// Once a reader opened a database that was just being made, and was told that another process has it.
#[test]
fn a_segment_is_read_while_it_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let archive = on_disk(dir.path());
    let log = filled(&archive, 60);
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| archive.flush());
        while !writing.is_finished() {
            assert_eq!(event_indexes(&archive, &log.state, 0, 99).0.len(), 60);
            assert!(archive.task(&log.state, TaskId(31)).unwrap().is_some());
        }
        writing.join().unwrap().unwrap();
    });
}
