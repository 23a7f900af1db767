//! The rules that must not bend, one test each.

use super::world::{
    World, agent_id, client, fence, finish_op, incarnation, placement, placement_on, profile, spec,
    submit, submit_op,
};
use crate::{
    Assignment, Command, Disposition, End, Entry, Generation, Interruption, Op, Outcome, Phase,
    Rejected, Reply, SPEC_MAX_BYTES, State, StateName, SystemCommand, TaskId, Timestamp,
};

fn finished(task: u64, disposition: Disposition) -> Result<Reply, Rejected> {
    Ok(Reply::Finished {
        task: TaskId(task),
        disposition,
    })
}

fn state_of(world: &World, task: u64) -> StateName {
    world
        .state
        .task(TaskId(task))
        .expect("it was submitted")
        .state()
}

/// A task that is assigned to a1; gives its epoch.
fn assigned(world: &mut World) -> u64 {
    world.register(profile("a1", 2, 1)).unwrap();
    world.submit(submit(spec("true"), None)).unwrap();
    world.assign(1, "a1").unwrap();
    world.index
}

#[test]
fn a_report_under_the_live_epoch_counts_once() {
    let mut world = World::new();
    let epoch = assigned(&mut world);
    let ok = End::Exited { code: 0 };
    assert_eq!(
        world.finish(1, epoch, "a1", ok.clone()),
        finished(1, Disposition::Accepted)
    );
    assert_eq!(
        world.finish(1, epoch, "a1", ok),
        finished(1, Disposition::Duplicate)
    );
    assert_eq!(state_of(&world, 1), StateName::Succeeded);
}

#[test]
fn a_late_report_after_lease_expiry_is_refused() {
    let mut world = World::new();
    let epoch = assigned(&mut world);
    let expiry = SystemCommand::ExpireLease {
        agent: agent_id("a1"),
        incarnation: incarnation(1),
    };
    world.system(expiry).unwrap();
    assert_eq!(state_of(&world, 1), StateName::Queued);
    let late = world.finish(1, epoch, "a1", End::Exited { code: 0 });
    assert_eq!(late, finished(1, Disposition::Stale));
    world.register(profile("a1", 2, 1)).unwrap();
    world.assign(1, "a1").unwrap();
    let late = world.finish(1, epoch, "a1", End::Exited { code: 0 });
    assert_eq!(
        late,
        finished(1, Disposition::Stale),
        "also while the next attempt runs"
    );
    assert_eq!(state_of(&world, 1), StateName::Assigned);
}

#[test]
fn a_report_by_another_agent_or_of_another_generation_changes_nothing() {
    let mut world = World::new();
    let epoch = assigned(&mut world);
    world.register(profile("a2", 2, 1)).unwrap();
    let foreign = world.finish(1, epoch, "a2", End::Exited { code: 0 });
    assert!(
        matches!(foreign, Err(Rejected::Forbidden { .. })),
        "{foreign:?}"
    );
    let mut old = fence(1, epoch);
    old.generation = Generation(0);
    let old = world.one(finish_op(old, "a1", Outcome::bare(End::Exited { code: 0 })));
    assert_eq!(old, finished(1, Disposition::Stale));
    assert_eq!(state_of(&world, 1), StateName::Assigned);
}

#[test]
fn a_report_of_a_task_that_never_was_is_answered_and_changes_nothing() {
    let mut world = World::new();
    world.register(profile("a1", 1, 1)).unwrap();
    let report = world.finish(7, 3, "a1", End::Exited { code: 0 });
    assert_eq!(report, finished(7, Disposition::UnknownTask));
    assert_eq!(world.state.task_count(), 0);
}

#[test]
fn a_new_generation_loses_every_attempt_and_hears_no_report_of_the_one_before() {
    let mut world = World::new();
    let epoch = assigned(&mut world);
    // Held by an incarnation that is not registered any more.
    world.register(profile("a1", 2, 2)).unwrap();
    let raise = |generation| SystemCommand::Found {
        cluster_id: "restored".into(),
        generation: Generation(generation),
    };
    assert!(matches!(world.system(raise(1)), Err(Rejected::Stale(_))));
    assert_eq!(world.state.cluster_id(), "test");

    world.system(raise(2)).unwrap();
    assert_eq!(world.state.generation(), Generation(2));
    assert_eq!(world.state.cluster_id(), "restored");
    assert_eq!(state_of(&world, 1), StateName::Queued);
    world.register(profile("a1", 2, 2)).unwrap();
    let op = Op::System(SystemCommand::Assign(Assignment {
        task: TaskId(1),
        placement: placement_on("a1", 2),
    }));
    world.one(op).unwrap();
    let again = world.index;
    assert_eq!(world.state.live_fence(TaskId(1)).unwrap().generation.0, 2);
    // Indexes may be used again: the same epoch, and another generation.
    for epoch in [epoch, again] {
        let late = world.finish(1, epoch, "a1", End::Exited { code: 0 });
        assert_eq!(late, finished(1, Disposition::Stale));
    }
    assert_eq!(state_of(&world, 1), StateName::Assigned);
    assert!(matches!(world.system(raise(1)), Err(Rejected::Stale(_))));
}

#[test]
fn an_entry_assigns_a_task_at_most_once() {
    let mut world = World::new();
    world.register(profile("a1", 4, 1)).unwrap();
    world.submit(submit(spec("false"), None)).unwrap();
    let assign = || {
        Op::System(SystemCommand::Assign(Assignment {
            task: TaskId(1),
            placement: placement("a1"),
        }))
    };
    let epoch = world.index + 1;
    let declined = Outcome::bare(End::Declined {
        reason: "stopping".into(),
    });
    let ops = vec![
        assign(),
        finish_op(fence(1, epoch), "a1", declined),
        assign(),
    ];
    let replies = world.apply(ops).replies;
    assert_eq!(replies[0], Ok(Reply::Done));
    assert_eq!(replies[1], finished(1, Disposition::Accepted));
    assert!(matches!(replies[2], Err(Rejected::Stale(_))), "{replies:?}");
}

#[test]
fn the_same_request_id_gives_the_same_task_and_another_spec_is_refused() {
    let mut world = World::new();
    let first = world.submit(submit(spec("true"), Some("r1")));
    assert_eq!(
        first,
        Ok(Reply::Submitted {
            task: TaskId(1),
            duplicate: false
        })
    );
    let again = world.submit(submit(spec("true"), Some("r1")));
    assert_eq!(
        again,
        Ok(Reply::Submitted {
            task: TaskId(1),
            duplicate: true
        })
    );
    let other = world.submit(submit(spec("false"), Some("r1")));
    assert!(
        matches!(other, Err(Rejected::RequestIdReused { .. })),
        "{other:?}"
    );
    let somebody_else = Op::Client {
        principal: client("bob"),
        command: Command::SubmitTask(submit(spec("false"), Some("r1"))),
        placement: None,
        held: None,
    };
    assert_eq!(
        world.one(somebody_else),
        Ok(Reply::Submitted {
            task: TaskId(2),
            duplicate: false
        }),
        "an id belongs to a principal"
    );
}

#[test]
fn an_at_most_once_task_is_never_assigned_again() {
    let mut world = World::new();
    world.register(profile("a1", 2, 1)).unwrap();
    let mut once = spec("true");
    once.at_most_once = true;
    world.submit(submit(once, None)).unwrap();
    world.assign(1, "a1").unwrap();
    let epoch = world.index;
    let expiry = SystemCommand::ExpireLease {
        agent: agent_id("a1"),
        incarnation: incarnation(1),
    };
    world.system(expiry).unwrap();
    assert_eq!(state_of(&world, 1), StateName::Unknown);
    world.register(profile("a1", 2, 1)).unwrap();
    assert!(matches!(world.assign(1, "a1"), Err(Rejected::Stale(_))));
    let late = world.finish(1, epoch, "a1", End::Exited { code: 0 });
    assert_eq!(
        late,
        finished(1, Disposition::Accepted),
        "its late result may still settle it"
    );
    assert_eq!(state_of(&world, 1), StateName::Succeeded);
}

#[test]
fn a_refused_placement_leaves_the_submit_standing() {
    let mut world = World::new();
    world.register(profile("a1", 1, 2)).unwrap();
    let op = submit_op(submit(spec("true"), None), Some(placement_on("a1", 1)));
    assert_eq!(
        world.one(op),
        Ok(Reply::Submitted {
            task: TaskId(1),
            duplicate: false
        })
    );
    assert_eq!(state_of(&world, 1), StateName::Queued);
    let op = submit_op(submit(spec("true"), None), Some(placement_on("a1", 2)));
    world.one(op).unwrap();
    assert_eq!(state_of(&world, 2), StateName::Assigned);
    let live = world
        .state
        .task(TaskId(2))
        .unwrap()
        .live()
        .cloned()
        .unwrap();
    assert_eq!(live.epoch.0, world.index);
}

#[test]
fn a_placement_with_a_repeated_request_assigns_nothing() {
    let mut world = World::new();
    world.register(profile("a1", 4, 1)).unwrap();
    world.submit(submit(spec("true"), Some("r1"))).unwrap();
    let again = submit_op(submit(spec("true"), Some("r1")), Some(placement("a1")));
    assert_eq!(
        world.one(again),
        Ok(Reply::Submitted {
            task: TaskId(1),
            duplicate: true
        })
    );
    assert_eq!(state_of(&world, 1), StateName::Queued);
}

#[test]
fn attempts_of_an_old_incarnation_live_until_its_own_lease_ends() {
    let mut world = World::new();
    let _epoch = assigned(&mut world);
    world.register(profile("a1", 2, 2)).unwrap();
    assert_eq!(state_of(&world, 1), StateName::Assigned);
    let old = SystemCommand::ExpireLease {
        agent: agent_id("a1"),
        incarnation: incarnation(1),
    };
    world.system(old).unwrap();
    assert_eq!(state_of(&world, 1), StateName::Queued);
    let agent = world.state.agent(&agent_id("a1")).unwrap();
    assert_eq!(
        agent.state,
        crate::AgentState::Ready,
        "the new incarnation has its own lease"
    );
}

#[test]
fn three_lost_agents_end_in_the_dead_letter_queue() {
    let mut world = World::new();
    world.submit(submit(spec("true"), None)).unwrap();
    for agent in ["a1", "a2", "a3"] {
        world.register(profile(agent, 1, 1)).unwrap();
        world.now += 1_200;
        world.assign(1, agent).unwrap();
        let expiry = SystemCommand::ExpireLease {
            agent: agent_id(agent),
            incarnation: incarnation(1),
        };
        world.system(expiry).unwrap();
    }
    assert_eq!(state_of(&world, 1), StateName::DeadLetter);
}

#[test]
fn a_task_goes_on_at_once_when_it_was_interrupted_and_waits_when_that_happens_again() {
    let mut world = World::new();
    world.register(profile("a1", 1, 1)).unwrap();
    world.submit(submit(spec("true"), None)).unwrap();
    let died = |world: &mut World| {
        let end = End::Interrupted {
            cause: Interruption::AgentDied,
            reason: "it was killed".into(),
        };
        world.finish(1, world.index, "a1", end).unwrap();
    };
    world.assign(1, "a1").unwrap();
    died(&mut world);
    world.assign(1, "a1").unwrap();
    died(&mut world);
    let at_once = world.assign(1, "a1");
    assert!(matches!(at_once, Err(Rejected::Stale(_))), "{at_once:?}");
    world.now += 1_200;
    world.assign(1, "a1").unwrap();
}

#[test]
fn retries_wait_and_then_end_in_the_dead_letter_queue() {
    let mut world = World::new();
    world.register(profile("a1", 1, 1)).unwrap();
    let mut twice = spec("false");
    twice.retries = 1;
    world.submit(submit(twice, None)).unwrap();
    world.assign(1, "a1").unwrap();
    world
        .finish(1, world.index, "a1", End::Exited { code: 1 })
        .unwrap();
    assert!(
        matches!(world.assign(1, "a1"), Err(Rejected::Stale(_))),
        "its backoff is not over"
    );
    world.now += 1_200;
    world.assign(1, "a1").unwrap();
    world
        .finish(1, world.index, "a1", End::Exited { code: 1 })
        .unwrap();
    assert_eq!(state_of(&world, 1), StateName::DeadLetter);
}

#[test]
fn state_time_never_goes_back() {
    let mut world = World::new();
    let start = world.state.time();
    world.now = 5;
    world.apply(vec![]);
    assert_eq!(world.state.time(), start, "a clock that was set back");
}

#[test]
fn an_entry_that_was_applied_changes_nothing_when_it_comes_again() {
    let mut world = World::new();
    let before = world.state.hash();
    let entry = Entry {
        stamp: Timestamp(world.now),
        wall: Timestamp(world.now),
        ops: vec![submit_op(submit(spec("true"), None), None)],
    };
    let stamped = crate::Stamped {
        index: world.index,
        term: world.term,
        membership: 0,
        entry,
    };
    let applied = world.state.apply(stamped);
    assert!(matches!(applied.replies[0], Err(Rejected::Stale(_))));
    assert_eq!(world.state.hash(), before);
}

#[test]
fn an_unreadable_entry_is_an_error_and_never_a_panic() {
    let entry = Entry {
        stamp: Timestamp(1),
        wall: Timestamp(1),
        ops: vec![],
    };
    let good = entry.encode();
    assert!(Entry::decode(&[]).is_err());
    assert!(Entry::decode(&good[..good.len() - 1]).is_err());
    let mut other_format = good.clone();
    other_format[0] = 9;
    assert!(Entry::decode(&other_format).is_err());
    let mut longer = good;
    longer.push(0);
    assert!(Entry::decode(&longer).is_err());
}

#[test]
fn a_snapshot_gives_the_same_state_back() {
    let mut world = World::new();
    let epoch = assigned(&mut world);
    world.submit(submit(spec("sleep 1"), Some("r9"))).unwrap();
    world
        .finish(1, epoch, "a1", End::Signalled { signal: 9 })
        .unwrap();
    let restored = State::decode(&world.state.encode()).expect("it was just encoded");
    assert_eq!(restored.hash(), world.state.hash());
    assert_eq!(restored.hash_at(), world.state.hash_at());
    assert_eq!(restored.index, world.state.index);
}

#[test]
fn a_cancelled_attempt_keeps_its_slot_until_the_agent_has_ended_it() {
    let mut world = World::new();
    let epoch = assigned(&mut world);
    let cancel = Command::CancelTask {
        task: TaskId(1),
        reason: "enough".into(),
    };
    let cancel = Op::Client {
        principal: client("ann"),
        command: cancel,
        placement: None,
        held: None,
    };
    world.one(cancel.clone()).unwrap();
    let phase = &world.state.task(TaskId(1)).unwrap().phase;
    assert!(matches!(
        phase,
        Phase::Assigned {
            cancel: Some(_),
            ..
        }
    ));
    assert_eq!(world.state.busy(&agent_id("a1")), 1);
    world.finish(1, epoch, "a1", End::Killed).unwrap();
    assert_eq!(state_of(&world, 1), StateName::Cancelled);
    assert_eq!(world.state.busy(&agent_id("a1")), 0);
    assert_eq!(
        world.one(cancel),
        Ok(Reply::Cancelled { task: TaskId(1) }),
        "it may be repeated"
    );
}

#[test]
fn a_spec_over_its_limit_is_refused_when_it_is_applied_whoever_let_it_through() {
    let mut world = World::new();
    let mut largest = spec("true");
    largest.cwd = "x".repeat(SPEC_MAX_BYTES - largest.size());
    let mut larger = largest.clone();
    larger.cwd.push('x');
    let before = world.state.meta.last_task;
    let refused = world.submit(submit(larger, Some("r1")));
    assert_eq!(
        refused,
        Err(Rejected::over("spec", SPEC_MAX_BYTES, "bytes"))
    );
    assert_eq!(world.state.meta.last_task, before);
    // Nor does its request id count as used.
    let accepted = world.submit(submit(largest, Some("r1")));
    let task = TaskId(1);
    let duplicate = false;
    assert_eq!(accepted, Ok(Reply::Submitted { task, duplicate }));
}
