//! Leases: when they end, what renews them, and what a new leader makes of them.

use super::*;

#[test]
fn a_lost_lease_requeues_closes_and_never_renews() {
    let mut leader = Leader::new();
    let session = leader.agent("a1", 1, 1);
    leader.submit("true");
    leader.pass(LEASE.0 - 1);
    assert_eq!(leader.task(1), StateName::Assigned);
    leader.pass(1);
    assert_eq!(leader.task(1), StateName::Queued);
    assert!(
        leader
            .seen
            .iter()
            .any(|output| matches!(output, Output::Close { .. }))
    );
    leader.seen.clear();
    let received = Millis(leader.millis);
    leader.input(Input::LeaseConfirmed {
        session,
        nonce: 1,
        received,
    });
    assert_eq!(
        leader.seen,
        [],
        "a lost incarnation gets no acknowledgement"
    );
    leader.agent("a1", 2, 1);
    assert_eq!(
        leader.task(1),
        StateName::Assigned,
        "it came back, registered, and got it again"
    );
    leader.pass(LEASE.0 - 1);
    assert_eq!(
        leader.task(1),
        StateName::Assigned,
        "its new lease is a full one"
    );
}

#[test]
fn a_renewal_counts_from_when_it_arrived() {
    let mut leader = Leader::new();
    let session = leader.agent("a1", 1, 1);
    leader.submit("true");
    leader.pass(5_000);
    leader.input(Input::LeaseConfirmed {
        session,
        nonce: 7,
        received: Millis(3_000),
    });
    assert!(leader.seen.contains(&Output::Send {
        session,
        message: Message::RenewAck { nonce: 7 }
    }));
    leader.pass(3_000 + LEASE.0 - 5_000 - 1);
    assert_eq!(leader.task(1), StateName::Assigned);
    leader.pass(1);
    assert_eq!(leader.task(1), StateName::Queued);
}

#[test]
fn a_renewal_before_the_registration_is_acknowledged_with_it() {
    let mut leader = Leader::new();
    leader.hold = true;
    let session = leader.agent("a1", 1, 1);
    leader.input(Input::LeaseConfirmed {
        session,
        nonce: 7,
        received: Millis(0),
    });
    let acknowledged = Output::Send {
        session,
        message: Message::RenewAck { nonce: 7 },
    };
    assert!(!leader.seen.contains(&acknowledged));
    leader.release();
    assert!(leader.seen.contains(&acknowledged));
}

#[test]
fn a_new_leader_restarts_every_lease_in_full() {
    let mut leader = Leader::new();
    leader.agent("a1", 1, 1);
    leader.submit("true");
    leader.pass(LEASE.0 - 1);
    leader.input(Input::Follow);
    leader.pass(60_000);
    assert_eq!(
        leader.task(1),
        StateName::Assigned,
        "a follower expires nothing"
    );
    leader.input(Input::Lead { term: 2 });
    leader.pass(LEASE.0 - 1);
    assert_eq!(leader.task(1), StateName::Assigned);
    leader.pass(1);
    assert_eq!(leader.task(1), StateName::Queued);
}
