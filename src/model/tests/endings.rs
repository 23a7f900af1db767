//! What becomes of a task whose attempt did not come to an end of its own, one rule each.

use super::world::{World, agent_id, fence, finish_op, incarnation, profile, spec, submit};
use crate::{
    End, Interruption, Millis, Outcome, StateName, SystemCommand, Task, TaskId, Timestamp,
};

/// Longer than any backoff, in milliseconds.
const LONG: u64 = 75_000;

fn task(world: &World) -> &Task {
    world.state.task(TaskId(1)).expect("it was submitted")
}

fn declined() -> End {
    End::Declined {
        reason: "stopping".into(),
    }
}

fn interrupted(cause: Interruption) -> End {
    End::Interrupted {
        cause,
        reason: "because".into(),
    }
}

/// An at-most-once task that a1 holds; gives its epoch.
fn once(world: &mut World) -> u64 {
    world.register(profile("a1", 1, 1)).unwrap();
    let mut once = spec("true");
    once.at_most_once = true;
    world.submit(submit(once, None)).unwrap();
    world.assign(1, "a1").unwrap();
    world.index
}

#[test]
fn an_at_most_once_task_that_was_declined_failed_and_is_not_unknown() {
    let mut world = World::new();
    let epoch = once(&mut world);
    world.finish(1, epoch, "a1", declined()).unwrap();
    assert_eq!(task(&world).state(), StateName::Failed);
    assert_eq!(
        task(&world).reason(),
        "declined by a1: stopping; nothing ran"
    );
}

#[test]
fn when_an_attempt_began_is_known_from_its_report_alone_and_forgotten_with_the_next_try() {
    let mut world = World::new();
    world.register(profile("a1", 1, 1)).unwrap();
    let mut twice = spec("false");
    twice.retries = 1;
    world.submit(submit(twice, None)).unwrap();
    let times = |world: &World| (task(world).started_at, task(world).finished_at);
    for (code, known) in [
        (1, (None, None)),
        (0, (Some(Timestamp(7)), Some(Timestamp(9)))),
    ] {
        world.assign(1, "a1").unwrap();
        assert_eq!(
            times(&world),
            (None, None),
            "that it runs is not in the log"
        );
        let mut outcome = Outcome::bare(End::Exited { code });
        (outcome.started_at, outcome.finished_at) = (Timestamp(7), Timestamp(9));
        let report = finish_op(fence(1, world.index), "a1", outcome);
        world.one(report).unwrap();
        assert_eq!(times(&world), known);
        world.now += LONG;
    }
}

#[test]
fn an_at_most_once_task_that_was_interrupted_is_unknown_for_that_reason() {
    let mut world = World::new();
    let epoch = once(&mut world);
    let end = interrupted(Interruption::EndedByAgent);
    world.finish(1, epoch, "a1", end).unwrap();
    assert_eq!(task(&world).state(), StateName::Unknown);
    assert_eq!(
        task(&world).reason(),
        "interrupted on a1: because; it may have run, and at-most-once tasks are not tried again"
    );
}

#[test]
fn an_agent_that_ends_its_work_in_order_is_not_lost_under_it_and_one_that_died_is_once() {
    let mut world = World::new();
    world.register(profile("a1", 1, 1)).unwrap();
    world.submit(submit(spec("true"), None)).unwrap();
    for _ in 0..5 {
        world.now += LONG;
        world.assign(1, "a1").unwrap();
        let end = interrupted(Interruption::EndedByAgent);
        world.finish(1, world.index, "a1", end).unwrap();
    }
    assert_eq!(task(&world).lost_agents, []);
    for _ in 0..5 {
        world.now += LONG;
        world.assign(1, "a1").unwrap();
        let end = interrupted(Interruption::AgentDied);
        world.finish(1, world.index, "a1", end).unwrap();
    }
    assert_eq!(task(&world).lost_agents, [agent_id("a1")]);
    assert_eq!(task(&world).state(), StateName::Queued);
}

#[test]
fn three_agents_that_died_under_it_make_it_a_dead_letter() {
    let mut world = World::new();
    world.submit(submit(spec("true"), None)).unwrap();
    for agent in ["a1", "a2", "a3"] {
        world.register(profile(agent, 1, 1)).unwrap();
        world.now += LONG;
        world.assign(1, agent).unwrap();
        let end = interrupted(Interruption::AgentDied);
        world.finish(1, world.index, agent, end).unwrap();
    }
    assert_eq!(task(&world).state(), StateName::DeadLetter);
}

#[test]
fn a_deadline_that_was_met_does_not_fail_a_task_that_comes_back() {
    let mut world = World::new();
    world.register(profile("a1", 1, 1)).unwrap();
    let mut urgent = spec("true");
    urgent.deadline = Some(Millis(1_000));
    world.submit(submit(urgent, None)).unwrap();
    assert_eq!(world.state.deadlines().count(), 1);
    world.assign(1, "a1").unwrap();
    let lost = SystemCommand::ExpireLease {
        agent: agent_id("a1"),
        incarnation: incarnation(1),
    };
    world.system(lost).unwrap();
    world.now += 1_000;
    assert_eq!(world.state.deadlines().count(), 0);
    let expiry = SystemCommand::ExpireDeadline { task: TaskId(1) };
    assert!(world.system(expiry).is_err());
    assert_eq!(task(&world).state(), StateName::Queued);
}

#[test]
fn an_agent_that_registers_with_fewer_slots_keeps_what_it_holds_and_gets_no_more() {
    let mut world = World::new();
    world.register(profile("a1", 2, 1)).unwrap();
    for id in 1..=4 {
        world.submit(submit(spec("true"), None)).unwrap();
        let slots_and_prefetch = id <= 3;
        assert_eq!(world.assign(id, "a1").is_ok(), slots_and_prefetch);
    }
    world.register(profile("a1", 1, 1)).unwrap();
    assert_eq!(world.state.busy(&agent_id("a1")), 3);
    assert!(world.assign(4, "a1").is_err());
}
