//! The search without a log: hand-made cases of one task, and a register against another program's search.

use std::cell::Cell;

use cluster_tests::history::TaskState;
use cluster_tests::model::search::{Specification, Timed, Verdict, search};
use cluster_tests::model::task::{Answer, Call, OneTask, Seen};
use proptest::prelude::*;

const STEPS: u64 = 100_000;

fn timed(call: Call, (invoked, answered): (u64, u64), answer: Answer) -> Timed<Call, Answer> {
    Timed {
        invoked,
        answered: Some(answered),
        call,
        answer: Some(answer),
    }
}

fn unknown(call: Call, invoked: u64) -> Timed<Call, Answer> {
    Timed {
        invoked,
        answered: None,
        call,
        answer: None,
    }
}

fn submitted(times: (u64, u64)) -> Timed<Call, Answer> {
    let (id, duplicate) = (1, false);
    timed(Call::Submit, times, Answer::Submitted { id, duplicate })
}

fn seen(times: (u64, u64), version: u64, state: TaskState) -> Timed<Call, Answer> {
    let answer = Answer::Seen(Seen {
        id: 1,
        state,
        version,
        epoch: 0,
        cancelling: false,
    });
    timed(Call::Look, times, answer)
}

fn is_explained(operations: &[Timed<Call, Answer>]) -> bool {
    match search(&OneTask, operations, STEPS) {
        Verdict::Linearizable => true,
        Verdict::Not { .. } => false,
        Verdict::TooLong => panic!("too long"),
    }
}

#[test]
fn a_task_goes_forward_for_everybody() {
    let queued = |times| seen(times, 5, TaskState::Queued);
    let ended = |times| seen(times, 9, TaskState::Succeeded);
    assert!(is_explained(&[
        submitted((0, 10)),
        queued((20, 30)),
        ended((40, 50))
    ]));
    assert!(!is_explained(&[
        submitted((0, 10)),
        ended((20, 30)),
        queued((40, 50))
    ]));
    // At the same time either may have been first.
    assert!(is_explained(&[
        submitted((0, 10)),
        ended((20, 45)),
        queued((40, 50))
    ]));
    let failed = seen((60, 70), 10, TaskState::Failed);
    assert!(!is_explained(&[
        submitted((0, 10)),
        ended((20, 30)),
        failed
    ]));
}

#[test]
fn a_submit_whose_outcome_is_unknown_may_take_effect_later_or_never() {
    let none = |times| timed(Call::Look, times, Answer::NoSuchTask);
    let queued = |times| seen(times, 5, TaskState::Queued);
    assert!(is_explained(&[
        unknown(Call::Submit, 0),
        none((10, 20)),
        queued((30, 40))
    ]));
    assert!(is_explained(&[unknown(Call::Submit, 0), none((10, 20))]));
    assert!(!is_explained(&[
        unknown(Call::Submit, 0),
        queued((10, 20)),
        none((30, 40))
    ]));
    // Not before it was asked for.
    assert!(!is_explained(&[
        unknown(Call::Submit, 50),
        queued((10, 20))
    ]));
    assert!(!is_explained(&[queued((10, 20))]));
}

#[test]
fn a_request_is_one_task_and_new_once() {
    let again = |id, duplicate| {
        let answer = Answer::Submitted { id, duplicate };
        timed(Call::Submit, (20, 30), answer)
    };
    assert!(is_explained(&[submitted((0, 10)), again(1, true)]));
    assert!(!is_explained(&[submitted((0, 10)), again(1, false)]));
    assert!(!is_explained(&[submitted((0, 10)), again(2, true)]));
}

#[test]
fn a_cancelled_task_is_never_seen_to_wait_again() {
    let cancel = |times| timed(Call::Cancel, times, Answer::Cancelled);
    let queued = |times| seen(times, 5, TaskState::Queued);
    assert!(is_explained(&[
        submitted((0, 10)),
        queued((12, 15)),
        cancel((20, 30))
    ]));
    assert!(!is_explained(&[
        submitted((0, 10)),
        cancel((20, 30)),
        queued((40, 50))
    ]));
    let ended = seen((40, 50), 9, TaskState::Cancelled);
    let too_late = timed(Call::Cancel, (60, 70), Answer::HasEnded);
    assert!(is_explained(&[
        submitted((0, 10)),
        cancel((20, 30)),
        ended.clone()
    ]));
    assert!(!is_explained(&[
        submitted((0, 10)),
        cancel((20, 30)),
        ended,
        too_late
    ]));
    let succeeded = seen((20, 30), 9, TaskState::Succeeded);
    assert!(!is_explained(&[
        submitted((0, 10)),
        succeeded,
        cancel((40, 50))
    ]));
}

#[test]
fn where_it_gets_stuck_is_told() {
    let ended = seen((20, 30), 9, TaskState::Succeeded);
    let back = seen((40, 50), 5, TaskState::Queued);
    let found = search(&OneTask, &[submitted((0, 10)), ended, back], STEPS);
    let wanted = Verdict::Not {
        stuck: vec![2],
        explained: 2,
    };
    assert_eq!(found, wanted);
}

#[test]
fn many_who_look_at_the_same_time_are_no_trouble() {
    // Forty clients, four of them at any time, while the task goes through ten versions.
    let looks = (0..40).map(|n| seen((10 + n * 10, 50 + n * 10), 1 + n / 4, TaskState::Queued));
    let all: Vec<_> = std::iter::once(submitted((0, 5))).chain(looks).collect();
    assert_eq!(search(&OneTask, &all, 200), Verdict::Linearizable);
}

#[test]
fn a_search_that_would_take_too_long_says_so() {
    let looks = (0..40).map(|n| seen((10, 100), 40 - n, TaskState::Queued));
    let mut all: Vec<_> = std::iter::once(submitted((0, 5))).chain(looks).collect();
    all.push(timed(Call::Look, (10, 100), Answer::NoSuchTask));
    assert_eq!(search(&OneTask, &all, 50), Verdict::TooLong);
}

/// One number, written and read.
struct Register;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Write(u8),
    Read,
}

impl Specification for Register {
    type State = u8;
    type Call = Access;
    /// What was read; of a write nothing.
    type Answer = Option<u8>;

    fn initial(&self) -> u8 {
        0
    }

    fn step(&self, state: &u8, call: &Access, answer: Option<&Option<u8>>) -> Option<u8> {
        match (call, answer) {
            (Access::Write(value), None | Some(None)) => Some(*value),
            (Access::Read, None) => Some(*state),
            (Access::Read, Some(Some(read))) => (read == state).then_some(*state),
            (Access::Write(_), Some(Some(_))) | (Access::Read, Some(None)) => None,
        }
    }
}

/// A history of some clients that each do one thing after the other. A step is a client and what it begins if it has
/// nothing under way; else its answer comes.
fn history() -> impl Strategy<Value = Vec<(usize, Access, u8)>> {
    let access = prop_oneof![(0..3_u8).prop_map(Access::Write), Just(Access::Read)];
    prop::collection::vec((0..3_usize, access, 0..3_u8), 0..16)
}

fn ours(steps: &[(usize, Access, u8)]) -> bool {
    let mut operations: Vec<Timed<Access, Option<u8>>> = Vec::new();
    let mut under_way: [Option<usize>; 3] = [None; 3];
    for (time, (client, access, read)) in (0..).zip(steps) {
        match under_way[*client].take() {
            Some(at) => {
                let begun = &mut operations[at];
                begun.answered = Some(time);
                begun.answer = Some((begun.call == Access::Read).then_some(*read));
            }
            None => {
                under_way[*client] = Some(operations.len());
                operations.push(Timed {
                    invoked: time,
                    answered: None,
                    call: *access,
                    answer: None,
                });
            }
        }
    }
    match search(&Register, &operations, 10_000_000) {
        Verdict::Linearizable => true,
        Verdict::Not { .. } => false,
        Verdict::TooLong => panic!("too long"),
    }
}

fn theirs(steps: &[(usize, Access, u8)]) -> bool {
    use stateright::semantics::register::{Register, RegisterOp, RegisterRet};
    use stateright::semantics::{ConsistencyTester, LinearizabilityTester};

    let mut tester = LinearizabilityTester::new(Register(0_u8));
    let mut under_way: [Option<Access>; 3] = [None; 3];
    for (client, access, read) in steps {
        match under_way[*client].take() {
            Some(Access::Write(_)) => drop(tester.on_return(*client, RegisterRet::WriteOk)),
            Some(Access::Read) => drop(tester.on_return(*client, RegisterRet::ReadOk(*read))),
            None => {
                under_way[*client] = Some(*access);
                let op = match access {
                    Access::Write(value) => RegisterOp::Write(*value),
                    Access::Read => RegisterOp::Read,
                };
                drop(tester.on_invoke(*client, op));
            }
        }
    }
    tester.is_consistent()
}

#[test]
fn it_agrees_with_another_program_s_search_on_any_history() {
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 3_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let (good, bad) = (Cell::new(0), Cell::new(0));
    runner
        .run(&history(), |steps| {
            match theirs(&steps) {
                true => good.set(good.get() + 1),
                false => bad.set(bad.get() + 1),
            }
            prop_assert_eq!(ours(&steps), theirs(&steps));
            Ok(())
        })
        .unwrap();
    // It would agree with anything on histories that are all alike.
    let (good, bad) = (good.get(), bad.get());
    assert!(good > 300 && bad > 300, "{good} good, {bad} bad");
}
