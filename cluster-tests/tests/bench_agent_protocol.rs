//! The bench agent keeps the protocol: otherwise what it measures, or provokes, says nothing.

use std::time::{Duration, Instant};

use cluster_tests::traffic::bench_agent::{Conduct, Counts, Journal, Key, Profile, exited};
use tokio::sync::mpsc;
use wire::v1;
use wire::v1::agent_frame::Body as Said;
use wire::v1::controller_frame::Body as Heard;

struct Talk {
    journal: Journal,
    now: Instant,
}

fn talk(conduct: Conduct) -> Talk {
    let profile = Profile {
        agent: "b1".into(),
        incarnation: [7; 16],
        slots: 4,
    };
    let (tell, _) = mpsc::unbounded_channel();
    Talk {
        journal: Journal::new(profile, conduct, tell),
        now: Instant::now(),
    }
}

impl Talk {
    fn hear(&mut self, session: usize, term: u64, body: Heard) -> Vec<Said> {
        let frame = v1::ControllerFrame {
            term,
            body: Some(body),
            ..Default::default()
        };
        self.journal.hear(session, frame, self.now)
    }

    fn lead(&mut self, session: usize, term: u64) -> Vec<Said> {
        self.hear(session, term, Heard::Leader(v1::Leader { leading: true }))
    }

    /// Leads, and confirms the lease.
    fn lead_with_lease(&mut self, session: usize, term: u64) {
        let said = self.lead(session, term);
        let nonce = said.iter().find_map(|said| match said {
            Said::Renew(renew) => Some(renew.nonce),
            _ => None,
        });
        let nonce = nonce.expect("a renewal follows Known");
        self.hear(session, term, Heard::RenewAck(v1::RenewAck { nonce }));
    }

    fn assign(&mut self, session: usize, term: u64, task: u64, epoch: u64) -> Vec<Said> {
        let fence = Some(v1::Fence {
            task,
            generation: 0,
            epoch,
        });
        self.hear(
            session,
            term,
            Heard::Assign(v1::Assign {
                fence,
                spec: None,
                attempt: 1,
                gpus: Vec::new(),
                after: Vec::new(),
            }),
        )
    }
}

fn verdicts(said: &[Said]) -> Vec<u64> {
    let task = |said: &Said| match said {
        Said::Verdict(verdict) => verdict.fence.map(|fence| fence.task),
        _ => None,
    };
    said.iter().filter_map(task).collect()
}

#[test]
fn nothing_is_taken_up_before_the_lease_is_confirmed() {
    let mut talk = talk(Conduct::AtOnce);
    let said = talk.lead(0, 1);
    assert!(
        matches!(said.as_slice(), [Said::Known(known), Said::Renew(_)] if known.attempts.is_empty())
    );
    assert_eq!(verdicts(&talk.assign(0, 1, 5, 10)), [0; 0]);
    let said = talk.hear(0, 1, Heard::RenewAck(v1::RenewAck { nonce: 1 }));
    assert_eq!(verdicts(&said), [5]);
}

#[test]
fn an_attempt_is_taken_up_once_however_often_it_is_assigned() {
    let mut talk = talk(Conduct::AtOnce);
    talk.lead_with_lease(0, 1);
    assert_eq!(verdicts(&talk.assign(0, 1, 5, 10)), [5]);
    assert_eq!(verdicts(&talk.assign(0, 1, 5, 10)), [0; 0]);
    assert_eq!(verdicts(&talk.assign(0, 1, 5, 12)), [5]);
    assert!(matches!(
        talk.journal.counts(),
        Counts {
            assigned: 2,
            repeated: 1,
            ..
        }
    ));
}

#[test]
fn frames_of_a_lower_term_are_ignored_and_end_that_sessions_leadership() {
    let mut talk = talk(Conduct::AtOnce);
    talk.lead_with_lease(0, 1);
    talk.lead_with_lease(1, 2);
    assert_eq!(verdicts(&talk.assign(0, 1, 5, 10)), [0; 0]);
    assert_eq!(verdicts(&talk.assign(1, 2, 5, 11)), [5]);
}

#[test]
fn a_controller_that_comes_back_is_greeted_though_it_does_not_know_the_term_yet() {
    let mut talk = talk(Conduct::AtOnce);
    talk.lead_with_lease(0, 2);
    talk.hear(1, 1, Heard::Welcome(v1::Welcome::default()));
    assert_eq!(talk.journal.open_sessions(), 1);
    assert_eq!(verdicts(&talk.assign(0, 2, 5, 10)), [5]);
}

#[test]
fn a_verdict_is_repeated_until_it_is_acknowledged() {
    let mut talk = talk(Conduct::AtOnce);
    talk.lead_with_lease(0, 1);
    talk.assign(0, 1, 5, 10);
    assert_eq!(verdicts(&talk.journal.due(0, talk.now)), [0; 0]);
    let later = talk.now + Duration::from_secs(3);
    assert_eq!(verdicts(&talk.journal.due(0, later)), [5]);
    // A new leader is told at once, and that it is known.
    let said = talk.lead(1, 2);
    assert_eq!(verdicts(&said), [5]);
    assert!(matches!(&said[0], Said::Known(known) if known.attempts.len() == 1));
    let fence = Some(v1::Fence {
        task: 5,
        generation: 0,
        epoch: 10,
    });
    let disposition = v1::Disposition::Stale.into();
    talk.hear(
        1,
        2,
        Heard::VerdictAck(v1::VerdictAck { fence, disposition }),
    );
    assert_eq!(
        verdicts(&talk.journal.due(1, later + Duration::from_secs(9))),
        [0; 0]
    );
    let key = Key {
        generation: 0,
        task: 5,
        epoch: 10,
    };
    assert_eq!(
        talk.journal.dispositions().get(&key),
        Some(&v1::Disposition::Stale)
    );
}

#[test]
fn a_lease_counts_from_when_its_renewal_was_sent() {
    let mut talk = talk(Conduct::AtOnce);
    talk.lead(0, 1);
    let sent = talk.now;
    talk.now += Duration::from_secs(11);
    talk.hear(0, 1, Heard::RenewAck(v1::RenewAck { nonce: 1 }));
    assert!(talk.journal.has_lease(talk.now));
    assert!(!talk.journal.has_lease(sent + Duration::from_secs(12)));
}

#[test]
fn a_silent_agent_says_nothing_and_later_everything() {
    let mut talk = talk(Conduct::WhenTold);
    talk.lead_with_lease(0, 1);
    talk.assign(0, 1, 5, 10);
    talk.journal.set_silent(true);
    talk.journal.report(
        v1::Fence {
            task: 5,
            generation: 0,
            epoch: 10,
        },
        exited(0, ""),
    );
    let later = talk.now + Duration::from_secs(60);
    assert!(talk.journal.due(0, later).is_empty() && talk.journal.status().is_none());
    talk.journal.set_silent(false);
    let said = talk.journal.due(0, later);
    assert_eq!(verdicts(&said), [5]);
    assert!(said.iter().any(|said| matches!(said, Said::Renew(_))));
}
