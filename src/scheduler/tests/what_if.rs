//! What is said of a task that nobody has submitted.

use super::*;
use crate::what_if;

fn asked(spec: &TaskSpec) -> (Principal, Command) {
    match submission(spec) {
        Op::Client {
            principal, command, ..
        } => (principal, command),
        Op::System(_) => unreachable!("a submit is a client's"),
    }
}

#[test]
fn a_plan_is_what_a_submit_would_come_to_and_leaves_the_state_as_it_is() {
    let state = cluster(&[("a1", 1, "a"), ("a2", 3, "b")], &[task("zone=b")]);
    let fleet = fleet(&state);
    let before = state.hash();
    let planned = what_if(&state, &fleet, NOW, asked(&task("zone=b"))).unwrap();
    assert_eq!((state.hash(), state.task_count()), (before, 1));
    let record = planned.task.trace.expect("there is room");
    let trace = record.read().unwrap();
    assert_eq!(trace.winner.agent, id("a2"));
    // Behind the one that waits already, which comes to the same agent.
    assert_eq!(trace.winner.terms, [0, 0, 0, 333, 1_000]);
    let summary = planned.explanation.summary;
    assert!(
        summary.starts_with("It would be assigned to a2, the best by load"),
        "{summary}"
    );

    let mut real = state.clone();
    apply(&mut real, vec![submission(&task("zone=b"))]);
    let assignments = planned_now(&real, &fleet);
    assert_eq!(assignments[1].placement.trace, record);
}

fn planned_now(state: &State, fleet: &Fleet) -> Vec<model::Assignment> {
    planned(state, fleet).assignments
}

#[test]
fn what_would_wait_is_told_why_and_what_would_be_refused_is_refused() {
    let mut state = cluster(&[("a1", 1, "a")], &[task(""), task("")]);
    let fleet = fleet(&state);
    let waits = what_if(&state, &fleet, NOW, asked(&task("zone=b"))).unwrap();
    assert_eq!(waits.task.trace, None);
    assert_eq!(
        waits.explanation.summary,
        "It would wait as number 3 in the queue: of 1 agent 1 does not satisfy its `require`. 0 satisfy `zone=b`. None of them will take it as things are: have an agent join that does, or ask for what they have."
    );
    let behind = what_if(&state, &fleet, NOW, asked(&task(""))).unwrap();
    assert_eq!(
        (
            behind.task.trace,
            behind.explanation.ahead.map(|it| it.total())
        ),
        (None, Some(2))
    );

    let quota = Command::SetNamespace(model::SetNamespace {
        namespace: Namespace::new("default").unwrap(),
        weight: None,
        users: BTreeMap::new(),
        max_running: None,
        max_queued: Some(2),
    });
    let (principal, _) = asked(&task(""));
    apply(
        &mut state,
        vec![Op::Client {
            principal,
            command: quota,
            placement: None,
            held: None,
        }],
    );
    let refused = what_if(&state, &fleet, NOW, asked(&task("")));
    assert!(
        matches!(refused, Err(model::Rejected::QuotaUsedUp { .. })),
        "{refused:?}"
    );
}
