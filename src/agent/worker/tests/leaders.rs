//! Whom it obeys, and what happens when nobody renews its lease.

use std::collections::BTreeMap;

use model::{End, Generation};
use wire::v1::agent_frame::Body;

use super::{
    Bench, C1, C2, begins, endings, fence, known, records, renewals, said, spec, verdicts,
};
use crate::executor::{Exit, Urgency};
use crate::lease;
use crate::worker::{Effect, Input, Said, Stamp};

fn assign(n: u64) -> Said {
    Said::Assign {
        fence: fence(n),
        number: 1,
        gpus: model::Gpus::new(),
        after: Vec::new(),
        spec: spec(),
    }
}

#[test]
fn a_leader_is_told_what_is_known_and_asked_for_the_lease() {
    let mut bench = Bench::leased(2);
    bench.running(1);
    bench.pass(10);
    bench.term = 2;
    let effects = bench.lead(C2);
    assert_eq!(known(&effects), Some((C2, vec![fence(1)])));
    assert!(matches!(
        said(&effects)[..],
        [(C2, Body::Known(_)), (C2, Body::Renew(_))]
    ));
}

#[test]
fn orders_of_a_controller_that_does_not_lead_are_refused() {
    let mut bench = Bench::leased(2);
    bench.running(1);
    let cancel = Said::Cancel { fence: fence(1) };
    for order in [assign(2), cancel, Said::Stale { fence: fence(1) }] {
        assert_eq!(bench.say(C2, order), []);
    }
    bench.say(C1, Said::Following);
    assert_eq!(bench.say(C1, assign(2)), [], "nor of one that led");
}

#[test]
fn what_is_set_for_back_ends_counts_from_the_leader_alone() {
    let mut bench = Bench::leased(2);
    let settings = BTreeMap::from([("gpu".to_owned(), model::BackendSettings::default())]);
    assert_eq!(bench.say(C2, Said::Backends(settings.clone())), []);
    let told = bench.say(C1, Said::Backends(settings.clone()));
    assert_eq!(told, [Effect::SetBackends(settings)]);
}

#[test]
fn an_acknowledgement_of_a_controller_that_does_not_lead_is_refused() {
    let mut bench = Bench::new(1);
    bench.open(C1);
    bench.open(C2);
    let nonce = renewals(&bench.lead(C1))[0];
    bench.assign(1);
    assert_eq!(begins(&bench.say(C2, Said::Renewed { nonce })), []);
    assert_eq!(begins(&bench.say(C1, Said::Renewed { nonce })), [fence(1)]);
}

#[test]
fn a_leader_of_an_older_term_or_generation_is_refused() {
    let mut bench = Bench::leased(2);
    bench.running(1);
    bench.term = 5;
    bench.lead(C2);
    let older = |generation, term| Stamp {
        generation: Generation(generation),
        term,
    };
    for stamp in [older(1, 4), older(0, 9)] {
        assert_eq!(bench.say_as(C1, stamp, Said::Leading), []);
        assert_eq!(bench.say_as(C1, stamp, assign(2)), []);
        assert_eq!(bench.say_as(C1, stamp, Said::Stale { fence: fence(1) }), []);
    }
    assert_eq!(
        begins(&bench.say(C2, assign(3))),
        [fence(3)],
        "who leads is obeyed"
    );
}

#[test]
fn frames_of_an_older_term_end_the_leadership_of_their_session() {
    let mut bench = Bench::leased(2);
    bench.term = 2;
    bench.lead(C1);
    let older = Stamp {
        generation: Generation(1),
        term: 1,
    };
    assert_eq!(bench.say_as(C1, older, assign(1)), []);
    assert_eq!(
        bench.say(C1, assign(2)),
        [],
        "until it says again that it leads"
    );
    bench.lead(C1);
    assert_eq!(begins(&bench.say(C1, assign(2))), [fence(2)]);
}

#[test]
fn a_newer_leader_takes_over_without_the_older_one_saying_so() {
    let mut bench = Bench::leased(2);
    bench.term = 2;
    bench.lead(C2);
    assert_eq!(bench.say(C1, assign(1)), []);
    assert_eq!(begins(&bench.say(C2, assign(1))), [fence(1)]);
}

/// A controller that lost its peers stands for election again and again, and each try raises the
/// term it speaks in. Nobody elected it, so this says nothing about who leads.
#[test]
fn the_term_of_a_lonely_follower_does_not_silence_the_leader() {
    let mut bench = Bench::leased(1);
    let lonely = Stamp {
        generation: Generation(1),
        term: 99,
    };
    bench.say_as(C2, lonely, Said::Following);
    assert_eq!(begins(&bench.assign(1)), [fence(1)]);
    let asked = bench.tick_after(lease::EVERY.0);
    bench.grant(C1, &asked);
    let effects = bench.tick_after(lease::HOLDS.0 - 1);
    assert_eq!(endings(&effects), [], "and the lease is renewed");
}

#[test]
fn the_lease_is_renewed_every_five_seconds_at_the_leader_only() {
    let mut bench = Bench::leased(1);
    assert!(renewals(&bench.tick_after(lease::EVERY.0 - 1)).is_empty());
    let effects = bench.tick_after(1);
    assert!(matches!(said(&effects)[..], [(C1, Body::Renew(_))]));
    bench.tell(Input::Closed { session: C1 });
    assert_eq!(said(&bench.tick_after(lease::EVERY.0)), []);
}

#[test]
fn a_renewed_lease_holds_from_when_the_renewal_was_sent() {
    let mut bench = Bench::leased(1);
    bench.running(1);
    let asked = bench.tick_after(lease::EVERY.0);
    bench.pass(lease::HOLDS.0 - lease::EVERY.0 - 1);
    bench.grant(C1, &asked);
    assert_eq!(endings(&bench.tick_after(lease::EVERY.0)), []);
    let effects = bench.tick_after(1);
    assert_eq!(endings(&effects), [(fence(1), Urgency::AtOnce)]);
}

#[test]
fn a_lost_lease_ends_everything_at_once_before_a_word_is_said() {
    let mut bench = Bench::leased(3);
    bench.running(1);
    bench.running(2);
    bench.assign(3);
    bench.assign(4);
    bench.pass(lease::HOLDS.0);
    // Whatever the first thing is that it hears when it wakes up.
    let effects = bench.lead(C1);
    let firsts: Vec<_> = effects.iter().take(3).collect();
    let Effect::End {
        urgency: Urgency::AtOnce,
        ..
    } = firsts[0]
    else {
        panic!("{effects:?}")
    };
    let Effect::End {
        urgency: Urgency::AtOnce,
        ..
    } = firsts[1]
    else {
        panic!("{effects:?}")
    };
    let Effect::Record(waited) = firsts[2] else {
        panic!("{effects:?}")
    };
    assert_eq!(waited.fence, fence(4), "it waited for a slot");
    let known = known(&effects).expect("it still answers");
    assert_eq!(known.1.len(), 4, "until their verdicts are settled");
}

#[test]
fn what_a_lost_lease_ended_is_reported_as_interrupted() {
    let mut bench = Bench::leased(1);
    bench.running(1);
    bench.tick_after(lease::HOLDS.0);
    let effects = bench.ends(1, Exit::Stopped);
    let [(_, End::Interrupted { reason, .. })] = &records(&effects)[..] else {
        panic!("{effects:?}");
    };
    assert!(reason.contains("lease"), "{reason}");
    let told = bench.tell(Input::Recorded(fence(1)));
    assert_eq!(verdicts(&told), [(C1, fence(1))]);
}

#[test]
fn after_a_lost_lease_a_new_one_lets_it_work_again() {
    let mut bench = Bench::leased(1);
    bench.running(1);
    let effects = bench.tick_after(lease::HOLDS.0);
    assert_eq!(endings(&effects).len(), 1);
    bench.assign(2);
    assert_eq!(
        begins(&bench.ends(1, Exit::Stopped)),
        [],
        "a slot, but no lease"
    );
    assert_eq!(begins(&bench.grant(C1, &effects)), [fence(2)]);
}

#[test]
fn a_session_that_closed_is_told_nothing() {
    let mut bench = Bench::leased(1);
    bench.running(1);
    bench.tell(Input::Closed { session: C1 });
    bench.ends(1, Exit::Exited(0));
    let effects = bench.tell(Input::Recorded(fence(1)));
    assert_eq!(said(&effects), []);
    let effects = bench.tell(Input::Load(crate::worker::Load::default()));
    assert!(said(&effects).iter().all(|(session, _)| *session == C2));
}
