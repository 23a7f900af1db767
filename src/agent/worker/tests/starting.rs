//! What begins, when, and that it never begins twice.

use model::{Disposition, End};
use wire::v1::agent_frame::Body;

use super::{
    Bench, C1, C2, begins, endings, fence, known, records, recovered, renewals, said, starts,
    verdicts,
};
use crate::executor::Exit;
use crate::lease;
use crate::worker::{Effect, Input, SETTLED_MAX, Said, WAITING_MAX};

#[test]
fn an_attempt_starts_after_it_is_in_the_journal_and_not_before() {
    let mut bench = Bench::leased(1);
    let effects = bench.assign(1);
    assert!(matches!(
        effects[..],
        [Effect::Open(_), Effect::Begin { number: 1, .. }]
    ));
    assert_eq!(starts(&bench.tick_after(200)), []);
    assert_eq!(starts(&bench.tell(Input::Begun(fence(1)))), [fence(1)]);
    assert_eq!(
        starts(&bench.tell(Input::Begun(fence(1)))),
        [],
        "told twice"
    );
}

#[test]
fn that_it_runs_is_said_to_every_controller_once_if_it_still_does_at_the_next_tick() {
    let mut bench = Bench::leased(1);
    bench.assign(1);
    bench.tell(Input::Begun(fence(1)));
    assert_eq!(bench.tell(Input::Started(fence(1))), []);
    let effects = bench.tick_after(200);
    let sessions: Vec<_> = said(&effects).iter().map(|(session, _)| *session).collect();
    assert_eq!(sessions, [C1, C2]);
    assert_eq!(bench.tick_after(200), []);
    bench.ends(1, Exit::Exited(0));
    bench.running(2);
    bench.ends(2, Exit::Exited(0));
    assert_eq!(bench.tick_after(200), [], "it was too short to be told");
}

/// Whom it told since that it takes nothing, or something again.
fn draining(effects: &[Effect]) -> Vec<bool> {
    let status = |(_, body): (_, &Body)| match body {
        Body::Status(status) => Some(status.draining),
        _ => None,
    };
    said(effects).into_iter().filter_map(status).collect()
}

#[test]
fn an_agent_in_trouble_gives_back_what_it_has_and_tries_again_after_a_longer_and_longer_pause() {
    let mut bench = Bench::leased(2);
    let unable = || Exit::Unable("no space left on device".into());
    let is_declined = |effects: &[Effect], n| matches!(&records(effects)[..], [(of, End::Declined { .. }), ..] if *of == fence(n));
    for n in 1..=3 {
        bench.assign(n);
    }
    bench.tell(Input::Begun(fence(1)));
    bench.tell(Input::Begun(fence(2)));
    let effects = bench.ends(1, unable());
    assert_eq!(draining(&effects), [true, true]);
    assert_eq!(
        records(&effects).len(),
        2,
        "this one, and the one that waits"
    );
    let effects = bench.ends(2, unable());
    assert!(is_declined(&effects, 2) && draining(&effects).is_empty());
    assert!(is_declined(&bench.assign(4), 4));
    assert_eq!(draining(&bench.tick_after(999)), [false; 0]);
    assert_eq!(draining(&bench.tick_after(1)), [false, false]);

    bench.assign(5);
    bench.tell(Input::Begun(fence(5)));
    assert!(is_declined(&bench.ends(5, unable()), 5));
    assert_eq!(draining(&bench.tick_after(1_999)), [false; 0]);
    assert_eq!(draining(&bench.tick_after(1)), [false, false]);
    bench.running(6);
    bench.ends(6, unable());
    assert_eq!(
        draining(&bench.tick_after(1_000)),
        [false, false],
        "all was well"
    );
}

#[test]
fn an_agent_that_loses_what_it_starts_pauses_like_one_that_can_not_start_it() {
    let mut bench = Bench::leased(1);
    bench.assign(1);
    bench.tell(Input::Begun(fence(1)));
    bench.assign(2);
    let effects = bench.ends(1, Exit::Lost("can't watch it".into()));
    assert_eq!(draining(&effects), [true, true]);
    let [
        (first, End::Declined { .. }),
        (second, End::Interrupted { .. }),
    ] = &records(&effects)[..]
    else {
        panic!("it ran, and what waits is given back: {effects:?}");
    };
    assert_eq!((*first, *second), (fence(2), fence(1)));
    assert_eq!(begins(&bench.assign(3)), [], "or it would be lost as well");
    assert_eq!(draining(&bench.tick_after(1_000)), [false, false]);
    assert_eq!(begins(&bench.assign(4)), [fence(4)]);
}

#[test]
fn what_was_prevented_never_ran_and_what_was_lost_did() {
    let mut bench = Bench::leased(2);
    bench.running(1);
    bench.running(2);
    let effects = bench.ends(1, Exit::Prevented);
    assert!(matches!(records(&effects)[..], [(_, End::Declined { .. })]));
    let effects = bench.ends(2, Exit::Lost("out of descriptors".into()));
    assert!(matches!(
        records(&effects)[..],
        [(_, End::Interrupted { .. })]
    ));
}

#[test]
fn an_assignment_that_is_repeated_in_any_phase_does_nothing() {
    let mut bench = Bench::leased(1);
    assert_eq!(begins(&bench.assign(1)), [fence(1)]);
    assert_eq!(bench.assign(1), [], "while it is written down");
    bench.tell(Input::Begun(fence(1)));
    assert_eq!(bench.assign(1), [], "while it runs");
    bench.ends(1, Exit::Exited(0));
    assert_eq!(bench.assign(1), [], "while its verdict is written down");
    bench.tell(Input::Recorded(fence(1)));
    assert_eq!(bench.assign(1), [], "while its verdict is on its way");
    bench.settle(1, Disposition::Accepted);
    assert_eq!(bench.assign(1), [], "after it was settled");
    bench.lead(C1);
    assert_eq!(bench.assign(1), [], "from the next leader");
}

#[test]
fn what_the_journal_knows_never_starts_again() {
    let mut bench = Bench::with(4, &recovered(&[fence(1)], &[fence(2)]));
    bench.open(C1);
    let effects = bench.lead(C1);
    assert_eq!(known(&effects), Some((C1, vec![fence(1)])));
    assert_eq!(
        verdicts(&effects),
        [(C1, fence(1))],
        "reported as interrupted"
    );
    bench.grant(C1, &effects);
    assert_eq!(bench.assign(1), []);
    assert_eq!(bench.assign(2), []);
    assert_eq!(begins(&bench.assign(3)), [fence(3)]);
}

#[test]
fn the_same_task_starts_again_under_another_epoch() {
    let mut bench = Bench::leased(1);
    bench.reported(1);
    bench.settle(1, Disposition::Accepted);
    let mut again = fence(1);
    again.epoch.0 += 50;
    let said = Said::Assign {
        fence: again,
        number: 2,
        gpus: model::Gpus::new(),
        after: Vec::new(),
        spec: super::spec(),
    };
    let effects = bench.say(C1, said);
    assert!(effects.contains(&Effect::Begin {
        fence: again,
        number: 2
    }));
}

#[test]
fn nothing_begins_before_a_lease_was_granted() {
    let mut bench = Bench::new(2);
    bench.open(C1);
    let asked = bench.lead(C1);
    assert_eq!(begins(&bench.assign(1)), []);
    assert_eq!(begins(&bench.tick_after(200)), []);
    assert_eq!(begins(&bench.grant(C1, &asked)), [fence(1)]);
}

#[test]
fn an_answer_to_a_renewal_that_is_too_old_grants_nothing() {
    let mut bench = Bench::new(1);
    bench.open(C1);
    let asked = bench.lead(C1);
    bench.assign(1);
    bench.pass(lease::HOLDS.0);
    assert_eq!(begins(&bench.grant(C1, &asked)), []);
    let effects = bench.tell(Input::Tick);
    assert_eq!(renewals(&effects).len(), 1, "it asks again");
    assert_eq!(endings(&effects), []);
}

#[test]
fn an_attempt_whose_lease_ran_out_in_the_journal_does_not_start() {
    let mut bench = Bench::leased(1);
    bench.assign(1);
    bench.pass(lease::HOLDS.0);
    let effects = bench.tell(Input::Begun(fence(1)));
    assert_eq!(starts(&effects), []);
    let [(_, End::Declined { .. })] = &records(&effects)[..] else {
        panic!("nothing ran: {effects:?}");
    };
}

#[test]
fn no_more_run_than_there_are_slots_and_the_rest_waits_in_order() {
    let mut bench = Bench::leased(2);
    for n in [5, 9, 1, 7, 3] {
        bench.assign(n);
    }
    bench.tell(Input::Begun(fence(5)));
    bench.tell(Input::Begun(fence(9)));
    assert_eq!(begins(&bench.ends(9, Exit::Exited(0))), [fence(1)]);
    assert_eq!(begins(&bench.ends(5, Exit::Signalled(9))), [fence(7)]);
    bench.tell(Input::Begun(fence(1)));
    assert_eq!(
        begins(&bench.ends(1, Exit::NotStarted("no".into()))),
        [fence(3)]
    );
}

#[test]
fn far_too_many_attempts_are_given_back() {
    let mut bench = Bench::leased(1);
    let room = WAITING_MAX as u64 + 1;
    for n in 0..=room {
        assert_eq!(records(&bench.assign(n)), []);
    }
    let [(given_back, End::Declined { .. })] = &records(&bench.assign(room + 1))[..] else {
        panic!("there is no room left");
    };
    assert_eq!(*given_back, fence(room + 1));
}

#[test]
fn only_so_many_settled_attempts_are_remembered_the_latest_ones() {
    let many = SETTLED_MAX as u64 + 10;
    let settled: Vec<_> = (0..many).map(fence).collect();
    let mut bench = Bench::with(1, &recovered(&[], &settled));
    bench.open(C1);
    bench.lead(C1);
    assert_eq!(bench.assign(many - 1), []);
    assert_eq!(bench.assign(10), []);
    assert_ne!(bench.assign(9), []);
}
