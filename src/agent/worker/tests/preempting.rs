//! Attempts that have got the places of others.

use model::{End, Interruption};

use super::{Bench, C1, begins, endings, fence, records, starts};
use crate::executor::{Exit, Urgency};
use crate::worker::{Effect, Input, Said};

fn preempt(bench: &mut Bench, n: u64) -> Vec<Effect> {
    bench.say(C1, Said::Preempt { fence: fence(n) })
}

#[test]
fn who_gets_the_place_of_another_begins_once_that_has_ended_and_before_what_was_sent_ahead() {
    let mut bench = Bench::leased(1);
    bench.running(1);
    bench.assign(2);
    assert_eq!(begins(&bench.assign_after(3, &[1])), []);
    let effects = preempt(&mut bench, 1);
    assert_eq!(endings(&effects), [(fence(1), Urgency::Gently)]);
    assert_eq!(preempt(&mut bench, 1), [], "once is enough");
    let effects = bench.ends(1, Exit::Stopped);
    let interrupted = End::Interrupted {
        cause: Interruption::EndedByAgent,
        reason: "another task got its place".into(),
    };
    assert_eq!(records(&effects), [(fence(1), interrupted)]);
    assert_eq!(begins(&effects), [fence(3)]);
}

/// It needs more than a slot, and what it needs is not free yet.
#[test]
fn a_slot_alone_is_not_enough_and_others_may_have_it_meanwhile() {
    let mut bench = Bench::leased(2);
    bench.running(1);
    assert_eq!(begins(&bench.assign_after(3, &[1])), []);
    bench.running(2);
    bench.assign(4);
    assert_eq!(begins(&bench.ends(2, Exit::Exited(0))), [fence(4)]);
    assert_eq!(begins(&bench.ends(1, Exit::Stopped)), [fence(3)]);
}

#[test]
fn it_waits_for_all_of_them_in_whatever_order_they_end_and_not_for_what_it_never_had() {
    let mut bench = Bench::leased(3);
    bench.running(1);
    bench.running(2);
    assert_eq!(begins(&bench.assign_after(3, &[1, 2, 9])), []);
    assert_eq!(begins(&bench.ends(2, Exit::Stopped)), []);
    assert_eq!(begins(&bench.ends(1, Exit::Exited(0))), [fence(3)]);
    assert_eq!(begins(&bench.assign_after(4, &[8])), [fence(4)]);
}

#[test]
fn what_has_not_begun_is_given_back_and_makes_room_at_once() {
    let mut bench = Bench::leased(1);
    bench.assign(1);
    bench.assign(2);
    bench.assign_after(3, &[1, 2]);
    // The one is waiting, the other is being written down.
    let effects = preempt(&mut bench, 2);
    assert!(matches!(records(&effects)[..], [(_, End::Declined { .. })]));
    assert_eq!(preempt(&mut bench, 1), []);
    let effects = bench.tell(Input::Begun(fence(1)));
    assert_eq!(starts(&effects), []);
    assert!(matches!(records(&effects)[..], [(_, End::Declined { .. })]));
    assert_eq!(begins(&effects), [fence(3)]);
}

#[test]
fn one_that_never_came_counts_as_given_back_and_does_not_start_if_it_comes() {
    let mut bench = Bench::leased(1);
    let effects = preempt(&mut bench, 1);
    assert!(matches!(records(&effects)[..], [(_, End::Declined { .. })]));
    assert_eq!(bench.assign(1), []);
    assert_eq!(begins(&bench.assign_after(2, &[1])), [fence(2)]);
}

#[test]
fn several_that_have_got_places_begin_in_the_order_in_which_they_came() {
    let mut bench = Bench::leased(2);
    bench.running(1);
    bench.running(2);
    bench.assign(5);
    bench.assign_after(3, &[1]);
    bench.assign_after(4, &[2]);
    assert_eq!(begins(&bench.ends(2, Exit::Stopped)), [fence(4)]);
    assert_eq!(begins(&bench.ends(1, Exit::Stopped)), [fence(3)]);
    bench.tell(Input::Begun(fence(3)));
    assert_eq!(begins(&bench.ends(3, Exit::Exited(0))), [fence(5)]);
}

/// It would wait for the other one, which nobody has asked to end, and nobody would look for another place.
#[test]
fn it_is_given_back_where_what_ended_for_it_had_no_slot() {
    let mut bench = Bench::leased(1);
    bench.running(1);
    bench.assign(2);
    bench.assign_after(3, &[2]);
    let effects = preempt(&mut bench, 2);
    let ends = records(&effects);
    assert_eq!(
        ends.iter().map(|(fence, _)| *fence).collect::<Vec<_>>(),
        [fence(2), fence(3)]
    );
    let is_declined = |end: &End| matches!(end, End::Declined { .. });
    assert!(ends.iter().all(|(_, end)| is_declined(end)));
    assert_eq!(begins(&bench.ends(1, Exit::Exited(0))), []);
}
