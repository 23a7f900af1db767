//! In which order tasks go.

use model::Class::{self, Batch, Critical, Interactive, Scavenger, Standard};
use model::{Millis, Precedence, Served, TaskSpec, Timestamp};

use super::{NOW, apply_at, cluster, fleet, submission, task};
use crate::{Round, explain, plan};

const HOUR: u64 = 3_600_000;

fn of_class(class: Class) -> TaskSpec {
    TaskSpec {
        class: Some(class),
        ..task("")
    }
}

/// In which order tasks of these classes, each submitted so many milliseconds ago, go at [`NOW`] plus a day.
fn order(submits: &[(Class, u64)]) -> Vec<u64> {
    let day = Millis(24 * HOUR);
    let mut state = cluster(&[("a1", 100, "a")], &[]);
    for (class, ago) in submits {
        let at = Timestamp(NOW.plus(day).0 - ago);
        apply_at(&mut state, at, vec![submission(&of_class(*class))]);
    }
    let taken = Default::default();
    let round = Round {
        now: NOW.plus(day),
        taken: &taken,
        max: 100,
        after: None,
    };
    let plan = plan(&state, &fleet(&state), round);
    for (place, assigned) in plan.assignments.iter().enumerate() {
        let told = explain(&state, &fleet(&state), round.now, assigned.task).unwrap();
        assert_eq!(told.position(), Some(place + 1));
    }
    plan.assignments.iter().map(|it| it.task.0).collect()
}

#[test]
fn the_higher_class_goes_first_and_in_it_the_older() {
    let submits = [
        Scavenger,
        Batch,
        Standard,
        Critical,
        Interactive,
        Standard,
        Critical,
    ];
    let submits = submits.map(|class| (class, 1_000));
    assert_eq!(order(&submits), [4, 7, 5, 3, 6, 2, 1]);
}

#[test]
fn who_waited_for_too_long_goes_with_the_next_class_and_no_further_than_interactive() {
    // The first batch task goes as a standard one that is older than the other; the next has an hour to go.
    let rises = [(Batch, HOUR), (Batch, HOUR - 1), (Standard, 1_000)];
    assert_eq!(order(&rises), [1, 3, 2]);
    // Six hours, one hour, ten minutes: it is interactive then, but never critical.
    let long = [
        (Scavenger, 23 * HOUR),
        (Interactive, 2_000),
        (Critical, 1_000),
    ];
    assert_eq!(order(&long), [3, 1, 2]);
}

#[test]
fn one_of_before_it_was_written_down_since_when_a_task_waits_does_not_rise() {
    let (state, now) = (cluster(&[], &[task("")]), NOW.plus(Millis(24 * HOUR)));
    let mut task = state.task(model::TaskId(1)).unwrap().clone();
    let starved = Precedence {
        class: Interactive,
        served: Served::TooLongAgo,
    };
    assert_eq!(task.precedence(Timestamp(0), now), starved);
    let usual = Precedence::usual(Standard);
    assert_eq!(task.precedence(now, now), usual, "its line is served");
    task.waits_since = Timestamp(0);
    assert_eq!(task.precedence(Timestamp(0), now), usual);
}
