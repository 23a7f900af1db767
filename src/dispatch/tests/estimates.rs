//! What is written down of when a task was expected to start.

use model::Millis;

use super::*;

fn one_runs_and_one_waits() -> (Leader, SessionId, Fence) {
    let mut leader = Leader::new();
    let session = leader.agent("a1", 1, 1);
    leader.submit("true");
    leader.submit("true");
    let first = leader.assigned()[0].1;
    (leader, session, first)
}

#[test]
fn a_task_that_waited_says_how_long_it_was_expected_to_and_how_long_it_did() {
    let (mut leader, session, first) = one_runs_and_one_waits();
    // Looked at when the leader plans the next time.
    leader.pass(1_000);
    leader.pass(2_000);
    leader.finish(session, first);
    assert_eq!(leader.task(2), StateName::Assigned);
    let waits = leader
        .state
        .task(TaskId(2))
        .unwrap()
        .live()
        .unwrap()
        .waits();
    let (expected, real) = waits.expect("it was asked about");
    assert!(
        (Millis(1)..=Millis(1_000)).contains(&expected),
        "{expected:?}"
    );
    assert!((Millis(1_000)..=Millis(3_000)).contains(&real), "{real:?}");
    // One that did not wait has nothing to tell.
    let first = leader.state.task(TaskId(1)).unwrap().latest.clone();
    assert_eq!(first.unwrap().waits(), None);
}

#[test]
fn a_new_term_expects_anew() {
    let (mut leader, session, first) = one_runs_and_one_waits();
    leader.pass(1_000);
    leader.input(Input::Lead { term: 2 });
    leader.input(Input::Known {
        session,
        attempts: vec![first],
    });
    leader.finish(session, first);
    let latest = leader.state.task(TaskId(2)).unwrap().latest.clone();
    assert_eq!(latest.expect("it is assigned").estimate, None);
}
