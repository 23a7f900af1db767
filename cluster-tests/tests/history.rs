//! The checker against histories made by hand: a good one, and one for each way to be bad. A checker that
//! never caught anything would prove nothing.

use std::collections::BTreeMap;

use cluster_tests::checkers::{
    Execution, Final, History, Outcome, Record, Violation, check, check_hashes, is_converged,
};
use cluster_tests::cluster::{MemberStatus, Status};

fn acknowledged(request_id: &str, task: u64) -> Record {
    Record {
        request_id: request_id.to_owned(),
        outcome: Outcome::Acknowledged { task },
        result: Some("SUCCEEDED".to_owned()),
    }
}

fn ended(task: u64, request_id: &str, submit_index: u64, epoch: u64) -> Final {
    Final {
        task,
        request_id: request_id.to_owned(),
        submit_index,
        last_index: epoch + 1,
        attempts: 1,
        epoch,
        result: Some("SUCCEEDED".to_owned()),
        at_most_once: false,
    }
}

/// Two tasks; the first was tried twice; the client of the third never heard of it.
fn good() -> History {
    let finals = vec![
        Final {
            attempts: 2,
            ..ended(1, "r1", 10, 14)
        },
        ended(2, "r2", 11, 11),
        ended(3, "r3", 12, 13),
    ];
    History {
        records: vec![
            acknowledged("r1", 1),
            acknowledged("r2", 2),
            Record {
                request_id: "r3".into(),
                outcome: Outcome::Unknown,
                result: None,
            },
            Record {
                request_id: "r4".into(),
                outcome: Outcome::Unknown,
                result: None,
            },
            Record {
                request_id: "r5".into(),
                outcome: Outcome::Refused,
                result: None,
            },
        ],
        finals: BTreeMap::from([("c1".to_owned(), finals.clone()), ("c2".to_owned(), finals)]),
        executions: vec![
            Execution { task: 1, epoch: 10 },
            Execution { task: 2, epoch: 11 },
            Execution { task: 1, epoch: 14 },
        ],
    }
}

/// What the checker says of the good history after a change.
fn broken(change: impl FnOnce(&mut History)) -> Vec<Violation> {
    let mut history = good();
    change(&mut history);
    check(&history)
}

fn finals<'a>(history: &'a mut History, controller: &str) -> &'a mut Vec<Final> {
    history.finals.get_mut(controller).unwrap()
}

#[test]
fn a_good_history_breaks_nothing() {
    assert_eq!(check(&good()), []);
}

#[test]
fn a_lost_submit_is_found_even_on_one_controller() {
    let found = broken(|history| finals(history, "c2").retain(|task| task.task != 2));
    let lost = Violation::Lost {
        request_id: "r2".into(),
        task: 2,
        controller: "c2".into(),
    };
    assert_eq!(found, [lost]);
}

#[test]
fn a_request_that_became_another_task_is_found() {
    let found = broken(|history| history.records.push(acknowledged("r2", 3)));
    assert_eq!(
        found,
        [
            Violation::OtherTask {
                request_id: "r2".into(),
                promised: 3,
                found: 2
            },
            Violation::OtherTask {
                request_id: "r2".into(),
                promised: 3,
                found: 2
            },
        ]
    );
}

#[test]
fn a_request_that_became_two_tasks_is_found() {
    let found = broken(|history| finals(history, "c1").push(ended(4, "r3", 15, 15)));
    assert_eq!(
        found,
        [Violation::Doubled {
            request_id: "r3".into(),
            tasks: (3, 4)
        }]
    );
}

#[test]
fn a_refused_submit_that_happened_is_found() {
    let found = broken(|history| finals(history, "c1").push(ended(4, "r5", 15, 15)));
    assert_eq!(
        found,
        [Violation::RefusedButDone {
            request_id: "r5".into(),
            task: 4
        }]
    );
}

#[test]
fn a_task_without_an_end_is_found() {
    let found = broken(|history| finals(history, "c1")[0].result = None);
    assert_eq!(
        found,
        [Violation::NotEnded {
            task: 1,
            controller: "c1".into()
        }]
    );
}

#[test]
fn a_result_that_changed_is_found_between_client_and_controllers() {
    let found = broken(|history| history.records[0].result = Some("FAILED".into()));
    assert_eq!(found.len(), 2);
    assert!(matches!(&found[0], Violation::ResultChanged { task: 1, one, .. } if one == "FAILED"));
    let found = broken(|history| finals(history, "c2")[1].result = Some("FAILED".into()));
    assert_eq!(found.len(), 1);
}

#[test]
fn an_epoch_before_the_submit_is_found() {
    let found = broken(|history| {
        for controller in ["c1", "c2"] {
            finals(history, controller)[2].epoch = 9;
        }
    });
    let low = Violation::EpochTooLow {
        task: 3,
        epoch: 9,
        submit_index: 12,
    };
    assert_eq!(found, [low.clone(), low]);
}

#[test]
fn a_fall_of_epochs_is_found() {
    let found = broken(|history| history.executions.swap(0, 2));
    assert_eq!(
        found,
        [Violation::EpochFell {
            task: 1,
            from: 14,
            to: 10
        }]
    );
}

#[test]
fn a_second_run_under_one_epoch_is_found() {
    let found = broken(|history| history.executions.push(Execution { task: 2, epoch: 11 }));
    assert_eq!(found, [Violation::RanTwice { task: 2, epoch: 11 }]);
}

#[test]
fn a_second_run_of_an_at_most_once_task_is_found() {
    let found = broken(|history| {
        for controller in ["c1", "c2"] {
            finals(history, controller)[0].at_most_once = true;
        }
    });
    assert_eq!(
        found,
        [Violation::RanAgain {
            task: 1,
            epochs: (10, 14)
        }]
    );
}

#[test]
fn a_run_that_nobody_ordered_is_found() {
    let found = broken(|history| {
        history.executions.push(Execution { task: 2, epoch: 99 });
        history.executions.push(Execution { task: 7, epoch: 20 });
    });
    assert_eq!(
        found,
        [
            Violation::RanUnasked { task: 2, epoch: 99 },
            Violation::RanUnasked { task: 7, epoch: 20 },
        ]
    );
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
    assert!(
        matches!(
            found.as_slice(),
            [Violation::HashesDiffer { index: 300, .. }]
        ),
        "{found:?}"
    );
    let common = status(vec![member("c3", 310, "dd", (256, "22"))]);
    assert!(matches!(
        check_hashes([&early, &common]).as_slice(),
        [Violation::HashesDiffer { index: 256, .. }]
    ));
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
