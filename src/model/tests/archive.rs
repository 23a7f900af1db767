//! What leaves memory, when, and what is still known of it.

use super::world::{World, agent_id, incarnation, profile, spec, submit};
use crate::{
    ARCHIVE_AGE, Archived, Disposition, End, EventsRecord, Millis, REQUEST_KEPT, Reply, Retention,
    StateName, SystemCommand, TaskId, TaskRecord,
};

/// Nothing finished stays in memory, and a segment has ten entries.
fn world() -> World {
    emptied(World::new())
}

fn emptied(mut world: World) -> World {
    retain(&mut world, |retention| retention.hot_tasks = 0);
    world.register(profile("a1", 4, 1)).unwrap();
    world
}

fn retain(world: &mut World, change: impl FnOnce(&mut Retention)) {
    let mut retention = Retention {
        segment_entries: 10,
        ..world.state.retention().clone()
    };
    change(&mut retention);
    world.system(SystemCommand::Retain(retention)).unwrap();
}

/// Submits a task and ends it.
fn done(world: &mut World, request: Option<&str>) -> TaskId {
    let reply = world.submit(submit(spec("true"), request)).unwrap();
    let Reply::Submitted { task, .. } = reply else {
        panic!("{reply:?}");
    };
    world.assign(task.0, "a1").unwrap();
    let epoch = world.index;
    world
        .finish(task.0, epoch, "a1", End::Exited { code: 0 })
        .unwrap();
    task
}

fn record_of(world: &World, id: TaskId) -> Option<TaskRecord> {
    let mut records = world.kept.records();
    let found = records.find(|record| record.task == Some(id))?;
    Some(TaskRecord::decode(&found.bytes).unwrap())
}

#[test]
fn the_newest_finished_tasks_stay_in_memory_and_the_others_leave_in_the_order_of_their_ends() {
    let mut world = world();
    retain(&mut world, |retention| retention.hot_tasks = 2);
    for n in 1..=5 {
        assert_eq!(done(&mut world, None), TaskId(n));
    }
    let hot: Vec<u64> = (1..=5)
        .filter(|n| world.state.task(TaskId(*n)).is_some())
        .collect();
    assert_eq!(hot, [4, 5]);
    let left: Vec<TaskId> = world.kept.records().filter_map(|it| it.task).collect();
    assert_eq!(left, [TaskId(1), TaskId(2), TaskId(3)]);
    let record = record_of(&world, TaskId(1)).unwrap();
    assert_eq!(record.task.state(), StateName::Succeeded);
    assert_eq!(record.spec, spec("true"));
    assert!(record.result.is_some() && record.task.trace.is_some());
    assert_eq!(world.state.archived(TaskId(1)), Archived::Left);
    assert_eq!(world.state.archived(TaskId(5)), Archived::Never);
    assert_eq!(world.state.archived(TaskId(6)), Archived::Never);
}

#[test]
fn a_task_whose_end_may_still_change_stays_for_as_long_as_anything_is_kept() {
    let mut world = world();
    let mut once = spec("true");
    once.at_most_once = true;
    world.submit(submit(once, None)).unwrap();
    world.assign(1, "a1").unwrap();
    let epoch = world.index;
    let lost = || SystemCommand::ExpireLease {
        agent: agent_id("a1"),
        incarnation: incarnation(1),
    };
    world.system(lost()).unwrap();
    done_on_another_agent(&mut world);
    assert!(world.state.task(TaskId(1)).is_some());
    world.now += ARCHIVE_AGE.0 - 1;
    world.register(profile("a3", 1, 1)).unwrap();
    assert!(world.state.task(TaskId(1)).is_some());
    let late = world.finish(1, epoch, "a1", End::Exited { code: 0 });
    let accepted = Disposition::Accepted;
    assert_eq!(
        late,
        Ok(Reply::Finished {
            task: TaskId(1),
            disposition: accepted
        })
    );
    let record = record_of(&world, TaskId(1)).expect("settled, it leaves as any other");
    assert_eq!(record.task.state(), StateName::Succeeded);
}

fn done_on_another_agent(world: &mut World) {
    world.register(profile("a2", 1, 1)).unwrap();
    world.submit(submit(spec("true"), None)).unwrap();
    world.assign(2, "a2").unwrap();
    let epoch = world.index;
    let end = End::Exited { code: 0 };
    world.finish(2, epoch, "a2", end).unwrap();
}

#[test]
fn segments_are_cut_at_fixed_indexes_and_by_bytes() {
    let mut world = world();
    for _ in 0..9 {
        done(&mut world, None);
    }
    let ends: Vec<u64> = world.state.segments().map(|it| it.end).collect();
    assert_eq!(ends, [10, 20, 30]);
    assert_eq!(world.state.open_segment().map(|it| it.first), Some(30));
    retain(&mut world, |retention| retention.segment_bytes = 1);
    let before = world.state.segments().count();
    done(&mut world, None);
    // Each of its three entries has records of its own.
    assert_eq!(world.state.segments().count(), before + 3);
}

#[test]
fn every_event_is_kept_at_the_index_where_it_happened() {
    let mut world = world();
    let applied = world.apply(vec![super::world::submit_op(
        submit(spec("true"), None),
        None,
    )]);
    let at = world.index;
    let mut events = world.kept.records().filter(|it| it.key.is_events());
    let record = events.find(|record| record.key.index == at).unwrap();
    let record = EventsRecord::decode(&record.bytes).unwrap();
    assert_eq!(record.events, applied.events);
    assert_eq!(record.wall.0, world.now);
}

#[test]
fn whole_segments_go_by_age_and_by_bytes_and_never_the_open_one() {
    let mut world = world();
    retain(&mut world, |it| it.max_age = Millis(1_000_000));
    for _ in 0..6 {
        done(&mut world, None);
    }
    let first = world.state.segments().next().cloned().unwrap();
    world.now += 1_000_000;
    world.register(profile("a2", 1, 1)).unwrap();
    assert!(
        world
            .state
            .segments()
            .all(|segment| segment.first > first.end)
    );
    assert!(world.state.archived_from() >= first.end);
    for _ in 0..9 {
        done(&mut world, None);
    }
    let bytes = world.state.archive_bytes();
    retain(&mut world, |it| it.max_bytes = bytes / 2);
    done(&mut world, None);
    assert!(world.state.archive_bytes() <= bytes / 2 + 2_000);
    retain(&mut world, |it| it.max_bytes = 1);
    done(&mut world, None);
    assert_eq!(world.state.segments().count(), 0);
    assert!(world.state.open_segment().is_some());
}

#[test]
fn a_request_id_is_kept_as_long_as_its_tasks_record_and_at_least_a_day() {
    for world in [World::new(), World::today()] {
        a_request_id_is_kept_in(emptied(world));
    }
}

fn a_request_id_is_kept_in(mut world: World) {
    let task = done(&mut world, Some("r1"));
    let again = |world: &mut World| world.submit(submit(spec("true"), Some("r1")));
    let known = Ok(Reply::Submitted {
        task,
        duplicate: true,
    });
    world.now += 3 * REQUEST_KEPT.0;
    assert_eq!(again(&mut world), known, "its record is still there");
    // The open segment is cut by its age with one entry, and dropped with the next.
    retain(&mut world, |it| it.max_age = Millis(1));
    world.register(profile("a2", 1, 1)).unwrap();
    world.now += 1;
    world.register(profile("a3", 1, 1)).unwrap();
    assert!(record_of(&world, task).is_none());
    assert_ne!(again(&mut world), known, "neither the record nor the day");

    let young = done(&mut world, Some("r2"));
    for n in 0..3 {
        world.now += 1_000;
        world.register(profile(&format!("b{n}"), 1, 1)).unwrap();
    }
    assert!(record_of(&world, young).is_none());
    let reply = world.submit(submit(spec("true"), Some("r2")));
    assert_eq!(
        reply,
        Ok(Reply::Submitted {
            task: young,
            duplicate: true
        }),
        "a day is not over"
    );
}

#[test]
fn a_report_of_an_attempt_whose_task_is_archived_changes_nothing() {
    let mut world = world();
    let task = done(&mut world, None);
    let hash = world.kept.clone();
    let answer = world.finish(task.0, world.index - 1, "a1", End::Exited { code: 1 });
    assert_eq!(
        answer,
        Ok(Reply::Finished {
            task,
            disposition: Disposition::UnknownTask
        })
    );
    assert_eq!(world.kept, hash);
}

#[test]
fn limits_that_would_keep_nothing_are_refused() {
    let mut world = world();
    let retention = Retention {
        segment_entries: 0,
        ..Retention::default()
    };
    assert!(world.system(SystemCommand::Retain(retention)).is_err());
}

#[test]
fn shorter_segments_begin_with_the_one_that_is_open() {
    let mut world = World::new();
    world.register(profile("a1", 4, 1)).unwrap();
    assert_eq!(world.state.open_segment().map(|it| it.first), Some(2));
    retain(&mut world, |retention| retention.hot_tasks = 0);
    for _ in 0..4 {
        done(&mut world, None);
    }
    let ends: Vec<u64> = world.state.segments().map(|it| it.end).collect();
    assert_eq!(ends, [10]);
}
