//! When tasks that wait are expected to start, and whether they do.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::{Assignment, Class, Kind, Magnitude, SetNamespace, Work};
use proptest::prelude::*;

use super::*;
use crate::{Budget, waits};

const AMPLE: Budget = Budget {
    tasks: 100,
    looks: 100_000,
};

/// Processes that take just as long as is known, in milliseconds: a power of two.
const LONG: u64 = 8_192;

fn takes(fleet: &mut Fleet, agent: &str, millis: u64) {
    let view = fleet.agents.get_mut(&id(agent)).unwrap();
    let service = Arc::make_mut(&mut view.service);
    service.insert(Work::Kind(Kind::Process), Magnitude::of(millis));
    assert_eq!(Magnitude::of(millis).value(), millis);
}

fn at(millis: u64) -> Timestamp {
    NOW.plus(Millis(millis))
}

/// A quota of the namespace of all tasks.
fn at_most(running: u32) -> Op {
    asked(Command::SetNamespace(SetNamespace {
        namespace: Namespace::new("default").unwrap(),
        weight: None,
        users: BTreeMap::new(),
        max_running: Some(running),
        max_queued: None,
    }))
}

/// One round, whose decisions are applied.
fn begin(state: &mut State, fleet: &Fleet, now: Timestamp) -> Vec<Assignment> {
    let taken = BTreeSet::new();
    let round = Round {
        now,
        taken: &taken,
        max: 256,
        after: None,
    };
    let decided = plan(state, fleet, round).assignments;
    let ops = decided.iter().cloned();
    let ops = ops.map(|it| Op::System(SystemCommand::Assign(it)));
    apply_at(state, now, ops.collect());
    decided
}

fn expected(state: &State, fleet: &Fleet, now: Timestamp) -> Vec<(u64, u64, bool)> {
    let (all, _) = waits(state, fleet, now, AMPLE);
    all.into_iter()
        .map(|(task, wait)| (task.0, wait.millis.0, wait.is_rough))
        .collect()
}

#[test]
fn who_waits_starts_once_what_runs_has_ended_and_what_goes_before_it() {
    let mut state = cluster(&[("a1", 1, "a"), ("a2", 1, "b")], &vec![task(""); 5]);
    let mut fleet = fleet(&state);
    takes(&mut fleet, "a1", LONG);
    takes(&mut fleet, "a2", 4 * LONG);
    begin(&mut state, &fleet, NOW);
    let four = 4_000;
    assert_eq!(
        expected(&state, &fleet, at(four)),
        [
            (3, LONG - four, false),
            (4, 2 * LONG - four, false),
            (5, 3 * LONG - four, false)
        ]
    );
    // One that runs for longer than is usual goes on for as long again.
    let late = LONG + 1_000;
    assert_eq!(expected(&state, &fleet, at(late))[0], (3, late, false));
    // Those that can run on one agent only hold up nobody on the other.
    apply(
        &mut state,
        vec![submission(&TaskSpec {
            class: Some(Class::Interactive),
            ..task("zone=b")
        })],
    );
    assert_eq!(
        expected(&state, &fleet, at(four))[..2],
        [(6, 4 * LONG - four, false), (3, LONG - four, false)]
    );
}

#[test]
fn of_work_that_nobody_knows_it_is_a_guess_and_nothing_is_said_of_what_can_not_start() {
    let mut state = cluster(&[("a1", 1, "a")], &vec![task(""); 3]);
    let fleet = fleet(&state);
    begin(&mut state, &fleet, NOW);
    // A tenant's first tasks are taken to take a second.
    assert_eq!(
        expected(&state, &fleet, at(250)),
        [(2, 750, true), (3, 1_750, true)]
    );
    apply(&mut state, vec![submission(&task("zone=nowhere"))]);
    assert_eq!(expected(&state, &fleet, at(250)).len(), 2);
    apply(&mut state, vec![at_most(1)]);
    // One after the other, as they do anyway.
    assert_eq!(
        expected(&state, &fleet, at(250)),
        [(2, 750, true), (3, 1_750, true)]
    );
}

#[test]
fn why_says_when_a_task_is_likely_to_start_and_afterwards_how_wrong_that_was() {
    let mut state = cluster(&[("a1", 1, "a")], &vec![task(""); 2]);
    let mut fleet = fleet(&state);
    let first = begin(&mut state, &fleet, NOW);
    let told = |state: &State, fleet: &Fleet, now| explain(state, fleet, now, TaskId(2)).unwrap();
    let guess = told(&state, &fleet, at(0));
    assert!(
        guess
            .summary
            .ends_with("1 has no free slot. It is likely to start in 1 s, by a guess."),
        "{}",
        guess.summary
    );
    takes(&mut fleet, "a1", 16 * LONG);
    let known = told(&state, &fleet, at(0));
    assert!(
        known
            .summary
            .ends_with("1 has no free slot. It is likely to start in 2 min."),
        "{}",
        known.summary
    );
    assert_eq!(known.wait.map(|it| it.millis), Some(Millis(16 * LONG)));
    let estimate = model::Estimate {
        made: at(0),
        start: at(16 * LONG),
    };
    let fence = state.live_fence(first[0].task).unwrap();
    let ended = report("a1", fence, Outcome::bare(End::Exited { code: 0 }));
    apply_at(&mut state, at(9_000), vec![ended]);
    let next = plan(
        &state,
        &fleet,
        Round {
            now: at(9_000),
            taken: &BTreeSet::new(),
            max: 1,
            after: None,
        },
    );
    let next = next.into_commands().next().unwrap();
    let next = next.with_estimate(Some(estimate));
    apply_at(&mut state, at(9_000), vec![Op::System(next)]);
    let summary = told(&state, &fleet, at(9_000)).summary;
    assert!(
        summary.ends_with("It was estimated to wait 2 min, and waited 9 s from then on."),
        "{summary}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Where work takes what it is known to take, and nothing else comes, each task starts when it was expected to.
    #[test]
    fn what_was_expected_comes_true_where_nothing_unforeseen_happens(
        slots in prop::collection::vec(1..4u32, 1..5),
        classes in prop::collection::vec(0..3usize, 1..40),
        quota in prop::option::of(1..6u32),
    ) {
        let names: Vec<String> = (0..slots.len()).map(|n| format!("a{n}")).collect();
        let agents: Vec<_> = names.iter().zip(&slots).map(|(name, slots)| (name.as_str(), *slots, "a")).collect();
        let tasks: Vec<TaskSpec> = classes.iter().map(|class| TaskSpec {
            class: Some([Class::Interactive, Class::Standard, Class::Batch][*class]),
            ..task("")
        }).collect();
        let mut state = cluster(&agents, &tasks);
        apply(&mut state, quota.map(at_most).into_iter().collect());
        let mut fleet = fleet(&state);
        names.iter().for_each(|name| takes(&mut fleet, name, LONG));
        let expected: BTreeMap<u64, u64> = waits(&state, &fleet, NOW, AMPLE).0.into_iter().map(|(task, wait)| (task.0, wait.millis.0)).collect();
        prop_assert_eq!(expected.len(), tasks.len());
        let mut real = BTreeMap::new();
        let mut now = NOW;
        while !state.queue_is_empty() {
            let begun = begin(&mut state, &fleet, now);
            for assigned in &begun {
                real.insert(assigned.task.0, now.since(NOW).0);
            }
            now = now.plus(Millis(LONG));
            let ended = begun.iter().map(|assigned| {
                let fence = state.live_fence(assigned.task).unwrap();
                report(assigned.placement.agent.as_str(), fence, Outcome::bare(End::Exited { code: 0 }))
            });
            let ended = ended.collect();
            apply_at(&mut state, now, ended);
        }
        prop_assert_eq!(expected, real);
    }
}
