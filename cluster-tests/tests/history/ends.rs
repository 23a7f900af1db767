//! Without a log: submits, results, starts and statuses against what the controllers have in the end.

use std::collections::BTreeMap;

use cluster_tests::checkers::{
    Evidence, Execution, Final, Kind, Sign, Violation, check, check_hashes, is_converged, judge,
};
use cluster_tests::cluster::{MemberStatus, Status};
use cluster_tests::history::{
    Action, Answer, History, Operation, Outcome, ResultSeen, TaskSeen, TaskState, Value,
};

use super::made::{at, kinds, operation};

fn seen(task: u64, request_id: &str, submit_index: u64, epoch: u64) -> TaskSeen {
    TaskSeen {
        id: task,
        state: TaskState::Succeeded,
        request_id: request_id.to_owned(),
        submit_index,
        last_index: epoch + 1,
        attempt: 1,
        epoch,
        ..TaskSeen::default()
    }
}

fn ended(task: u64, request_id: &str, submit_index: u64, epoch: u64) -> Final {
    Final {
        task: seen(task, request_id, submit_index, epoch),
        at_most_once: false,
    }
}

fn submit(id: u64, request_id: &str, outcome: Outcome) -> Operation {
    let action = Action::Submit {
        request_id: request_id.to_owned(),
        spec: Default::default(),
    };
    operation(id, action, (id, id + 100), outcome)
}

fn acknowledged(id: u64, shown: TaskSeen) -> Operation {
    let request_id = shown.request_id.clone();
    let value = Value::Submitted {
        task: shown,
        duplicate: false,
    };
    submit(
        id,
        &request_id,
        Outcome::Ok(Answer {
            position: None,
            value,
        }),
    )
}

fn refused() -> Outcome {
    Outcome::Refused {
        code: "over_limit".into(),
        message: "too many".into(),
    }
}

fn unknown() -> Outcome {
    Outcome::Unknown {
        code: "unreachable".into(),
        message: "reset".into(),
    }
}

/// Two tasks; the first was tried twice; the client of the third never heard of it.
fn good() -> Evidence {
    let mut first = ended(1, "r1", 10, 14);
    first.task.attempt = 2;
    let finals = vec![
        first.clone(),
        ended(2, "r2", 11, 11),
        ended(3, "r3", 12, 13),
    ];
    let history = History {
        operations: vec![
            acknowledged(1, first.task),
            acknowledged(2, seen(2, "r2", 11, 11)),
            submit(3, "r3", unknown()),
            submit(4, "r4", unknown()),
            submit(5, "r5", refused()),
        ],
        ..History::default()
    };
    Evidence {
        history,
        finals: BTreeMap::from([("c1".to_owned(), finals.clone()), ("c2".to_owned(), finals)]),
        executions: vec![
            Execution { task: 1, epoch: 10 },
            Execution { task: 2, epoch: 11 },
            Execution { task: 1, epoch: 14 },
        ],
        ..Evidence::default()
    }
}

/// What the checkers say of the good evidence after a change.
fn broken(change: impl FnOnce(&mut Evidence)) -> Vec<Violation> {
    let mut evidence = good();
    change(&mut evidence);
    check(&evidence)
}

fn finals<'a>(evidence: &'a mut Evidence, controller: &str) -> &'a mut Vec<Final> {
    evidence.finals.get_mut(controller).unwrap()
}

#[test]
fn a_good_history_breaks_nothing() {
    assert_eq!(check(&good()), []);
}

#[test]
fn of_a_thousand_losses_a_hundred_are_told_and_all_are_counted() {
    let mut evidence = good();
    let lost = (10..1_010).map(|n| acknowledged(n, seen(n, &format!("r{n}"), 10, 11)));
    evidence.history.operations.extend(lost);
    evidence.finals.remove("c2");
    let found = judge(&evidence).swap_remove(0);
    assert_eq!((found.violations.len(), found.broken()), (100, 1_000));
}

#[test]
fn a_lost_submit_is_found_even_on_one_controller() {
    let found = broken(|evidence| finals(evidence, "c2").retain(|it| it.task.id != 2));
    // A process of it ran all the same, which the other controller explains.
    assert_eq!(kinds(&found), [Kind::Lost]);
    assert!(
        found[0].seen.contains("r2") && found[0].seen.contains("c2"),
        "{}",
        found[0]
    );
    assert_eq!(found[0].operations, [2]);
}

#[test]
fn a_request_that_became_another_task_is_found() {
    let found = broken(|evidence| {
        let again = acknowledged(6, seen(3, "r2", 12, 13));
        evidence.history.operations.push(again);
    });
    let told = [Kind::OtherTask, Kind::NotLinearizable];
    assert_eq!(
        kinds(&found),
        [&[Kind::Lost, Kind::Lost], &told[..]].concat()
    );
}

#[test]
fn a_request_that_became_two_tasks_is_found() {
    let found = broken(|evidence| finals(evidence, "c1").push(ended(4, "r3", 15, 15)));
    assert_eq!(kinds(&found), [Kind::Doubled]);
}

#[test]
fn a_refused_submit_that_happened_is_found() {
    let found = broken(|evidence| finals(evidence, "c1").push(ended(4, "r5", 15, 15)));
    assert_eq!(kinds(&found), [Kind::RefusedButDone]);
    assert_eq!(found[0].operations, [5]);
}

#[test]
fn a_task_without_an_end_is_found() {
    let found = broken(|evidence| finals(evidence, "c1")[0].task.state = TaskState::Queued);
    assert_eq!(kinds(&found), [Kind::NotEnded]);
}

#[test]
fn a_result_that_changed_is_found_between_client_and_controllers() {
    let found = broken(|evidence| {
        let first = &mut evidence.history.operations[0];
        let Outcome::Ok(Answer {
            value: Value::Submitted { task, .. },
            ..
        }) = &mut first.outcome
        else {
            unreachable!()
        };
        task.state = TaskState::Failed;
    });
    assert_eq!(kinds(&found), [Kind::ResultChanged, Kind::ResultChanged]);
    assert!(
        found[0].seen.contains("failed; and succeeded"),
        "{}",
        found[0]
    );
    let found = broken(|evidence| finals(evidence, "c2")[1].task.state = TaskState::Failed);
    assert_eq!(kinds(&found), [Kind::ResultChanged]);
}

/// Checksums as three answers about the same end have them.
fn printed(crcs: [Option<u32>; 3]) -> Vec<Violation> {
    let shown = |stdout_crc| {
        let mut task = seen(1, "r1", 10, 14);
        task.attempt = 2;
        task.result = Some(ResultSeen {
            stdout_bytes: 6_000,
            stdout_crc,
            ..ResultSeen::default()
        });
        task
    };
    broken(|evidence| {
        let [first, second, third] = crcs.map(shown);
        evidence.history.operations[0] = acknowledged(1, first);
        finals(evidence, "c1")[0].task = second;
        finals(evidence, "c2")[0].task = third;
    })
}

#[test]
fn an_output_that_is_not_shown_is_no_other_one_and_hides_none() {
    assert_eq!(printed([Some(7), None, Some(7)]), []);
    assert_eq!(printed([None, Some(7), None]), []);
    for other in [[Some(7), None, Some(8)], [None, Some(7), Some(8)]] {
        assert_eq!(kinds(&printed(other)), [Kind::ResultChanged]);
    }
}

#[test]
fn an_epoch_before_the_submit_is_found() {
    let found = broken(|evidence| {
        for controller in ["c1", "c2"] {
            finals(evidence, controller)[2].task.epoch = 9;
        }
    });
    assert_eq!(kinds(&found), [Kind::EpochTooLow, Kind::EpochTooLow]);
}

#[test]
fn a_fall_of_epochs_is_found() {
    let found = broken(|evidence| evidence.executions.swap(0, 2));
    assert_eq!(kinds(&found), [Kind::EpochFell]);
    assert_eq!(found[0].entries, [14, 10]);
}

#[test]
fn a_second_run_under_one_epoch_is_found() {
    let again = Execution { task: 2, epoch: 11 };
    let found = broken(|evidence| evidence.executions.push(again));
    assert_eq!(kinds(&found), [Kind::RanTwice]);
}

#[test]
fn a_process_that_lives_on_beside_the_next_one_of_its_task_is_found_once() {
    let sign = |epoch, starts| Sign {
        of: Execution { task: 1, epoch },
        starts,
    };
    // The second attempt is the third start.
    let good = vec![sign(10, 1), sign(10, 2), sign(14, 3)];
    assert_eq!(broken(|evidence| evidence.signs = good.clone()), []);
    let found = broken(|evidence| {
        evidence.signs = good;
        evidence
            .signs
            .extend([sign(10, 3), sign(14, 3), sign(10, 3)]);
    });
    assert_eq!(kinds(&found), [Kind::TwoAtOnce]);
    assert_eq!(found[0].entries, [10, 14]);
}

#[test]
fn a_second_run_of_an_at_most_once_task_is_found() {
    let found = broken(|evidence| {
        for controller in ["c1", "c2"] {
            finals(evidence, controller)[0].at_most_once = true;
        }
    });
    assert_eq!(kinds(&found), [Kind::RanAgain]);
    assert_eq!(found[0].entries, [10, 14]);
}

#[test]
fn a_run_that_nobody_ordered_is_found() {
    let found = broken(|evidence| {
        evidence.executions.push(Execution { task: 2, epoch: 99 });
        evidence.executions.push(Execution { task: 7, epoch: 20 });
    });
    assert_eq!(kinds(&found), [Kind::RanUnasked, Kind::RanUnasked]);
}

fn member(id: &str, applied: u64, hash: &str, common: (u64, &str)) -> MemberStatus {
    MemberStatus {
        id: id.into(),
        role: "voter".into(),
        state: "follower".into(),
        applied: Some(applied),
        lag: Some(0),
        state_hash: Some(hash.into()),
        hash_index: Some(common.0),
        hash_at: Some(common.1.into()),
    }
}

fn status(members: Vec<MemberStatus>) -> Status {
    let cluster_id = "q".into();
    Status {
        cluster_id,
        leader: Some("c1".into()),
        term: 1,
        stale: false,
        members,
    }
}

#[test]
fn different_hashes_at_one_index_are_found_across_samples() {
    let early = status(vec![
        member("c1", 300, "aa", (256, "11")),
        member("c2", 299, "bb", (256, "11")),
    ]);
    let late = status(vec![member("c2", 300, "cc", (256, "11"))]);
    assert_eq!(check_hashes([&early]), []);
    let found = check_hashes([&early, &late]);
    assert_eq!(
        (kinds(&found), &found[0].entries),
        (vec![Kind::HashesDiffer], &vec![300])
    );
    let common = status(vec![member("c3", 310, "dd", (256, "22"))]);
    let found = check_hashes([&early, &common]);
    assert_eq!(
        (kinds(&found), &found[0].entries),
        (vec![Kind::HashesDiffer], &vec![256])
    );
}

#[test]
fn a_member_without_a_common_index_says_nothing_about_it() {
    let young = status(vec![
        member("c1", 3, "aa", (0, "")),
        member("c2", 3, "aa", (0, "00")),
    ]);
    assert_eq!(check_hashes([&young]), []);
}

#[test]
fn converged_means_that_all_answer_at_one_index() {
    let mut both = status(vec![
        member("c1", 5, "a", (0, "")),
        member("c2", 5, "a", (0, "")),
    ]);
    assert!(is_converged(&both));
    both.members[1].applied = Some(4);
    assert!(!is_converged(&both));
    both.members[1].applied = None;
    assert!(!is_converged(&both));
    assert!(!is_converged(&status(Vec::new())));
}

mod healing {
    //! After the last fault is healed.

    use super::*;
    use cluster_tests::checkers::{Invariant, Standing, healing_times};
    use cluster_tests::history::{Fault, Moment};

    const SECOND: u64 = 1_000_000;

    fn fault(id: u64, begun: u64, healed: Option<u64>) -> Fault {
        Fault {
            id,
            name: "kill".into(),
            target: "c1".into(),
            begun: Moment(begun * SECOND),
            effect: None,
            healed: healed.map(|at| Moment(at * SECOND)),
        }
    }

    /// Writes that were asked for and answered at these tenths of a second.
    fn history(faults: Vec<Fault>, writes: &[(u64, u64)]) -> History {
        let operations = writes.iter().enumerate().map(|(n, (asked, told))| {
            let mut write = acknowledged(n as u64, seen(1, "r1", 10, 11));
            (write.invoked, write.answered) =
                (at(asked * SECOND / 10), Some(at(told * SECOND / 10)));
            write
        });
        History {
            operations: operations.collect(),
            faults,
            ..History::default()
        }
    }

    /// What became of the promise.
    fn standing(faults: Vec<Fault>, writes: &[(u64, u64)]) -> (Standing, Vec<Kind>) {
        let evidence = Evidence {
            history: history(faults, writes),
            ..Evidence::default()
        };
        let mut found = judge(&evidence).into_iter();
        let found = found.find(|it| it.invariant == Invariant::I13).unwrap();
        (found.standing(), kinds(&found.violations))
    }

    #[test]
    fn a_success_within_two_seconds_is_wanted_once_nothing_is_broken_any_more() {
        let one = || vec![fault(1, 10, Some(20))];
        assert_eq!(standing(one(), &[(150, 215)]), (Standing::Holds, vec![]));
        // It ended too early to show anything.
        assert_eq!(standing(one(), &[(150, 160)]), (Standing::Unproven, vec![]));
        let slow = (Standing::Violated, vec![Kind::SlowToHeal]);
        assert_eq!(standing(one(), &[(150, 225)]), slow);
        assert_eq!(standing(one(), &[(205, 225)]), slow);
        // Nobody asked in time: nothing is known, and nothing is green.
        assert_eq!(standing(one(), &[(300, 301)]), (Standing::Unproven, vec![]));
    }

    #[test]
    fn a_fault_beside_another_that_is_still_open_is_not_judged() {
        let two = vec![fault(1, 10, Some(20)), fault(2, 15, Some(30))];
        assert_eq!(standing(two, &[(210, 305)]), (Standing::Holds, vec![]));
        let soon_again = vec![fault(1, 10, Some(20)), fault(2, 21, None)];
        let nothing = standing(soon_again, &[(200, 400)]);
        assert_eq!(nothing, (Standing::NothingSeen, vec![]));
    }

    #[test]
    fn each_healing_that_shows_something_is_timed_slow_ones_too() {
        let times = |faults, writes: &[(u64, u64)]| {
            let history = history(faults, writes);
            let times = healing_times(&history).into_iter();
            let times = times.map(|(fault, took)| (fault.id, took.as_millis()));
            times.collect::<Vec<_>>()
        };
        let apart = || vec![fault(1, 10, Some(20)), fault(2, 25, Some(30))];
        let served = times(apart(), &[(150, 203), (300, 345), (300, 350)]);
        assert_eq!(served, [(1, 300), (2, 4_500)]);
        assert_eq!(
            times(apart(), &[(255, 300)]),
            [(2, 0)],
            "the next came first"
        );
        let at_once = vec![fault(1, 10, Some(20)), fault(2, 15, Some(30))];
        assert_eq!(times(at_once, &[(210, 211), (300, 301)]), [(2, 100)]);
        assert_eq!(times(apart(), &[]), []);
    }
}
