//! The budget of bytes: what is kept is counted, submits beyond are refused, results never are.

use super::world::{World, fence, finish_op, profile, spec, submit};
use crate::{
    End, KEPT_MAX_BYTES, Outcome, Rejected, Reply, Retention, State, SystemCommand, TaskId,
};

/// Out of sight of the invariants, which would find the count untrue.
fn fill(world: &mut World) {
    world.state.index.kept_bytes = KEPT_MAX_BYTES as u64 - 10;
}

fn noisy() -> Outcome {
    let mut outcome = Outcome::bare(End::Exited { code: 0 });
    outcome.stdout = vec![b'x'; 1_000];
    outcome.stdout_bytes = 1_000;
    outcome
}

#[test]
fn specs_and_results_count_for_as_long_as_they_are_in_memory() {
    let mut world = World::new();
    world.register(profile("a1", 1, 1)).unwrap();
    let spec = spec("true");
    let size = spec.size() as u64;
    world.submit(submit(spec, None)).unwrap();
    assert_eq!(world.state.kept_bytes(), size);
    world.assign(1, "a1").unwrap();
    let report = finish_op(fence(1, world.index), "a1", noisy());
    world.one(report).unwrap();
    assert_eq!(world.state.kept_bytes(), size + noisy().size() as u64);
    let restored = State::decode(&world.state.encode()).unwrap();
    assert_eq!(restored.kept_bytes(), world.state.kept_bytes());
    let none_hot = Retention {
        hot_tasks: 0,
        ..Retention::default()
    };
    world.system(SystemCommand::Retain(none_hot)).unwrap();
    assert_eq!(world.state.kept_bytes(), 0);
}

#[test]
fn a_submit_beyond_the_budget_is_refused_by_name_and_a_repeated_one_is_not() {
    let mut world = World::new();
    world.submit(submit(spec("true"), Some("r1"))).unwrap();
    fill(&mut world);
    let refused = world.unchecked(submit(spec("true"), Some("r2")));
    assert!(
        matches!(&refused, Err(Rejected::OverLimit { unit, .. }) if unit == "bytes"),
        "{refused:?}"
    );
    let again = world.unchecked(submit(spec("true"), Some("r1")));
    let known = Reply::Submitted {
        task: TaskId(1),
        duplicate: true,
    };
    assert_eq!(again, Ok(known));
}

#[test]
fn a_result_beyond_the_budget_is_accepted_without_its_tails() {
    let mut world = World::new();
    world.register(profile("a1", 1, 1)).unwrap();
    world.submit(submit(spec("true"), None)).unwrap();
    world.assign(1, "a1").unwrap();
    fill(&mut world);
    world.state.write_result(TaskId(1), noisy());
    let kept = world.state.result(TaskId(1)).unwrap();
    assert_eq!(kept.end, End::Exited { code: 0 });
    assert!(kept.stdout.is_empty() && kept.truncated());
}
