//! Cancels, attempts that the cluster gave up, and an agent that stops.

use model::{Disposition, End, Interruption};
use wire::v1::agent_frame::Body;

use super::{Bench, C1, C2, begins, endings, fence, records, said, starts, verdicts};
use crate::executor::{Exit, Urgency};
use crate::lease;
use crate::worker::{Effect, Input, Said, SessionId};

fn cancel(bench: &mut Bench, n: u64) -> Vec<Effect> {
    bench.say(C1, Said::Cancel { fence: fence(n) })
}

fn is_declined(end: &End) -> bool {
    matches!(end, End::Declined { .. })
}

#[test]
fn a_cancelled_attempt_that_waits_never_begins() {
    let mut bench = Bench::leased(1);
    bench.running(1);
    bench.assign(2);
    assert_eq!(records(&cancel(&mut bench, 2)), [(fence(2), End::Killed)]);
    assert_eq!(begins(&bench.ends(1, Exit::Exited(0))), []);
}

#[test]
fn a_cancelled_attempt_that_is_written_down_never_starts() {
    let mut bench = Bench::leased(1);
    bench.assign(1);
    bench.assign(2);
    assert_eq!(cancel(&mut bench, 1), []);
    let effects = bench.tell(Input::Begun(fence(1)));
    assert_eq!(starts(&effects), []);
    assert_eq!(records(&effects), [(fence(1), End::Killed)]);
    assert_eq!(begins(&effects), [fence(2)], "its slot is free");
}

#[test]
fn a_cancelled_attempt_that_runs_is_ended_gently_and_once() {
    let mut bench = Bench::leased(1);
    bench.running(1);
    assert_eq!(
        cancel(&mut bench, 1),
        [Effect::End {
            fence: fence(1),
            urgency: Urgency::Gently
        }]
    );
    assert_eq!(cancel(&mut bench, 1), []);
    let effects = bench.ends(1, Exit::Stopped);
    assert_eq!(records(&effects), [(fence(1), End::Killed)]);
}

#[test]
fn an_attempt_that_ended_by_itself_before_the_cancel_says_so() {
    let mut bench = Bench::leased(1);
    bench.running(1);
    cancel(&mut bench, 1);
    let effects = bench.ends(1, Exit::Exited(0));
    assert_eq!(records(&effects), [(fence(1), End::Exited { code: 0 })]);
    bench.tell(Input::Recorded(fence(1)));
    assert_eq!(cancel(&mut bench, 1), [], "its verdict stands");
}

#[test]
fn a_cancel_that_overtakes_its_assignment_holds() {
    let mut bench = Bench::leased(1);
    assert_eq!(records(&cancel(&mut bench, 1)), [(fence(1), End::Killed)]);
    assert_eq!(bench.assign(1), []);
    let effects = bench.tell(Input::Recorded(fence(1)));
    assert_eq!(verdicts(&effects), [(C1, fence(1))]);
    bench.settle(1, Disposition::Accepted);
    assert_eq!(cancel(&mut bench, 1), [], "nothing is left to cancel");
}

#[test]
fn an_attempt_that_the_cluster_gave_up_is_ended_and_reported_as_interrupted() {
    let mut bench = Bench::leased(1);
    bench.running(1);
    bench.assign(2);
    let stale = |n| Said::Stale { fence: fence(n) };
    let effects = bench.say(C1, stale(2));
    assert!(is_declined(&records(&effects)[0].1), "it never ran");
    let effects = bench.say(C1, stale(1));
    assert_eq!(endings(&effects), [(fence(1), Urgency::Gently)]);
    let effects = bench.ends(1, Exit::Stopped);
    assert!(matches!(
        records(&effects)[..],
        [(_, End::Interrupted { .. })]
    ));
    assert_eq!(bench.say(C1, stale(3)), [], "one that never came");
}

#[test]
fn what_is_recalled_is_given_back_if_it_waits_and_goes_on_if_it_has_begun() {
    let mut bench = Bench::leased(1);
    bench.running(1);
    bench.assign(2);
    let recall = |n| Said::Recall { fence: fence(n) };
    let effects = bench.say(C1, recall(2));
    assert!(is_declined(&records(&effects)[0].1), "it never ran");
    assert_eq!(bench.say(C1, recall(1)), []);
    assert_eq!(bench.say(C1, recall(3)), [], "one that never came");
    let effects = bench.ends(1, Exit::Exited(0));
    assert_eq!(records(&effects), [(fence(1), End::Exited { code: 0 })]);
    bench.assign(4);
    assert_eq!(bench.say(C1, recall(4)), [], "it is being written down");
    assert_eq!(starts(&bench.tell(Input::Begun(fence(4)))), [fence(4)]);
}

#[test]
fn what_is_evicted_ends_gently_and_says_for_what() {
    let mut bench = Bench::leased(1);
    bench.running(1);
    bench.assign(2);
    let evict = |n| Said::Evict { fence: fence(n) };
    let effects = bench.say(C1, evict(2));
    assert!(is_declined(&records(&effects)[0].1), "it never ran");
    let effects = bench.say(C1, evict(1));
    assert_eq!(endings(&effects), [(fence(1), Urgency::Gently)]);
    assert_eq!(bench.say(C1, evict(1)), [], "once is enough");
    let effects = bench.ends(1, Exit::Stopped);
    let interrupted = End::Interrupted {
        cause: Interruption::EndedByAgent,
        reason: "the agent is being drained".into(),
    };
    assert_eq!(records(&effects), [(fence(1), interrupted)]);
}

#[test]
fn a_lost_lease_is_more_urgent_than_a_cancel() {
    let mut bench = Bench::leased(1);
    bench.running(1);
    cancel(&mut bench, 1);
    let effects = bench.tick_after(lease::HOLDS.0);
    assert_eq!(endings(&effects), [(fence(1), Urgency::AtOnce)]);
    let effects = bench.ends(1, Exit::Stopped);
    assert_eq!(
        records(&effects),
        [(fence(1), End::Killed)],
        "it was cancelled first"
    );
}

#[test]
fn what_the_guard_killed_when_the_lease_was_over_is_interrupted() {
    let mut bench = Bench::leased(1);
    bench.running(1);
    bench.pass(lease::HOLDS.0);
    // The agent was stopped, and hears of it before it looked at its lease.
    let effects = bench.ends(1, Exit::Signalled(9));
    let [(_, end)] = &records(&effects)[..] else {
        panic!("{effects:?}")
    };
    assert!(matches!(end, End::Interrupted { .. }), "{end:?}");
}

#[test]
fn an_end_that_nobody_asked_for_is_an_interruption() {
    let mut bench = Bench::leased(1);
    bench.running(1);
    let effects = bench.ends(1, Exit::Stopped);
    assert!(matches!(
        records(&effects)[..],
        [(_, End::Interrupted { .. })]
    ));
}

#[test]
fn a_stopping_agent_gives_back_what_waits_and_ends_what_runs() {
    let mut bench = Bench::leased(1);
    bench.running(1);
    bench.assign(2);
    let effects = bench.tell(Input::Stop);
    let [(waited, end)] = &records(&effects)[..] else {
        panic!("{effects:?}")
    };
    assert!(*waited == fence(2) && is_declined(end));
    assert_eq!(endings(&effects), [(fence(1), Urgency::Gently)]);
    assert_eq!(bench.tell(Input::Stop), [], "once");
    assert!(!bench.worker.is_quiet());
    bench.ends(1, Exit::Stopped);
    assert!(bench.worker.is_quiet());
}

#[test]
fn a_stopping_agent_says_so_to_every_controller_before_it_gives_anything_back() {
    let mut bench = Bench::leased(1);
    bench.running(1);
    bench.assign(2);
    let draining = |(session, body): (SessionId, &Body)| match body {
        Body::Status(status) => Some((session, status.draining)),
        _ => None,
    };
    let told =
        |effects: &[Effect]| -> Vec<_> { said(effects).into_iter().filter_map(draining).collect() };
    assert_eq!(told(&bench.open(SessionId(3))), [(SessionId(3), false)]);
    let effects = bench.tell(Input::Stop);
    let all = [C1, C2, SessionId(3)].map(|session| (session, true));
    assert_eq!(told(&effects[..3]), all);
    assert_eq!(told(&bench.open(SessionId(4))), [(SessionId(4), true)]);
}

#[test]
fn a_stopping_agent_starts_nothing_and_gives_back_what_still_comes() {
    let mut bench = Bench::leased(2);
    bench.assign(1);
    bench.tell(Input::Stop);
    assert_eq!(
        starts(&bench.tell(Input::Begun(fence(1)))),
        [],
        "not even what was begun"
    );
    let effects = bench.assign(2);
    assert_eq!(begins(&effects), []);
    assert!(matches!(&records(&effects)[..], [(f, end)] if *f == fence(2) && is_declined(end)));
}

#[test]
fn a_leaving_agent_waits_until_all_it_held_is_settled() {
    let mut bench = Bench::leased(1);
    bench.running(1);
    bench.tell(Input::Stop);
    bench.ends(1, Exit::Stopped);
    bench.tell(Input::Recorded(fence(1)));
    // On its way while the agent stopped.
    bench.assign(2);
    bench.settle(1, Disposition::Accepted);
    assert!(!bench.worker.is_settled(), "the late one is given back");
    bench.tell(Input::Recorded(fence(2)));
    bench.settle(2, Disposition::Accepted);
    assert!(bench.worker.is_settled());
}
