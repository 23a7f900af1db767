//! What the dispatcher must not do: spin, lose answers, do things twice, or trust an agent that the
//! log does not know.

use model::{AgentProfile, Incarnation, Op, StateName, SystemCommand};

use super::*;

/// Proposals that are held back, each as its operations.
fn held_ops(leader: &Leader) -> Vec<&Op> {
    leader.held.iter().flat_map(|(_, ops)| ops).collect()
}

fn is_expiry(op: &Op) -> bool {
    matches!(op, Op::System(SystemCommand::ExpireLease { .. }))
}

fn is_placed(op: &Op) -> bool {
    matches!(
        op,
        Op::Client {
            placement: Some(_),
            ..
        }
    )
}

impl Leader {
    /// Applies the oldest proposal that is held back, and tells of it, but not that it was answered.
    fn apply_oldest(&mut self) -> (ProposalId, Vec<Result<Reply, model::Rejected>>) {
        let (proposal, ops) = self.held.remove(0);
        let applied = self.commit(ops);
        self.input(Input::Applied {
            events: applied.events,
        });
        (proposal, applied.replies)
    }

    fn answer_proposal(
        &mut self,
        (proposal, replies): (ProposalId, Vec<Result<Reply, model::Rejected>>),
    ) {
        self.input(Input::Proposed {
            proposal,
            result: Ok(replies),
        });
    }

    fn fail_oldest(&mut self) {
        let (proposal, _) = self.held.remove(0);
        self.input(Input::Proposed {
            proposal,
            result: Err(Failure::Unavailable {
                hindrance: Hindrance::NoQuorum,
                why: "no quorum".into(),
            }),
        });
    }
}

#[test]
fn a_leader_without_a_quorum_tries_again_at_the_next_tick_and_not_before() {
    let mut leader = Leader::new();
    leader.agent("a1", 1, 1);
    leader.hold = true;
    leader.pass(LEASE.0);
    assert!(held_ops(&leader).into_iter().all(is_expiry));
    assert_eq!(leader.held.len(), 1);
    leader.fail_oldest();
    assert_eq!(leader.held.len(), 0, "at once would be for ever");
    leader.pass(100);
    assert_eq!(leader.held.len(), 1, "nothing is forgotten");
}

#[test]
fn nothing_is_placed_on_an_agent_whose_lease_has_run_out() {
    let mut leader = Leader::new();
    let session = leader.agent("a1", 1, 2);
    leader.hold = true;
    // It is not silent: only its renewals did not get through.
    leader.millis += LEASE.0 - 1;
    let load = crate::Load::default();
    leader.input(Input::Status {
        session,
        load,
        intake: Intake::Open,
    });
    leader.submit("true");
    assert!(held_ops(&leader).into_iter().any(is_placed));
    leader.held.clear();
    leader.millis += 1;
    leader.submit("true");
    assert!(!held_ops(&leader).into_iter().any(is_placed));
}

#[test]
fn what_is_due_comes_first_in_its_entry() {
    let mut leader = Leader::new();
    leader.agent("a1", 1, 1);
    leader.submit("true");
    leader.submit("true");
    leader.pass(LEASE.0 - 1);
    // Another agent comes just before the lease of the first runs out.
    leader.hold = true;
    leader.open("a2", SessionId(2), 1);
    let registered = leader.apply_oldest();
    leader.answer_proposal(registered);
    leader.millis += 1;
    leader.dispatcher.batch.want_due();
    leader.input(Input::Known {
        session: SessionId(2),
        attempts: vec![],
    });
    let ops = held_ops(&leader);
    assert!(is_expiry(ops[0]), "{ops:?}");
    let decided = matches!(ops[1], Op::System(SystemCommand::Assign(_)));
    assert!(decided, "{ops:?}");
}

#[test]
fn another_incarnation_gets_neither_assignments_nor_cancels_of_the_one_in_the_log() {
    let mut leader = Leader::new();
    leader.agent("a1", 1, 4);
    leader.submit("true");
    leader.hold = true;
    let reborn = AgentProfile {
        incarnation: Incarnation([2; 16]),
        ..profile("a1", 4)
    };
    leader.open_as(reborn, SessionId(2));
    leader.held.clear();
    leader.input(Input::Known {
        session: SessionId(2),
        attempts: vec![],
    });
    leader.submit("true");
    assert!(!held_ops(&leader).into_iter().any(is_placed));
    let cancel = Command::CancelTask {
        task: TaskId(1),
        reason: String::new(),
    };
    let applied = leader.commit(vec![Op::Client {
        principal: principal("ann", Role::Client),
        command: cancel,
        placement: None,
    }]);
    leader.input(Input::Applied {
        events: applied.events,
    });
    let cancelled = |output: &Output| {
        matches!(
            output,
            Output::Send {
                message: Message::Cancel { .. },
                ..
            }
        )
    };
    assert!(!leader.seen.iter().any(cancelled));
}

#[test]
fn requests_over_the_limit_of_bytes_are_refused_though_the_pipeline_is_full() {
    let mut leader = Leader::new();
    leader.hold = true;
    let large = "x".repeat(200 * 1024);
    let fit = crate::pending::PENDING_MAX_BYTES / large.len();
    let mut last = leader.submit(&large);
    for _ in 0..fit + 20 {
        last = leader.submit(&large);
    }
    assert_eq!(leader.held.len(), 3);
    let refused = leader.answer(last);
    assert!(
        matches!(
            refused,
            Some(Err(Refusal::Unavailable {
                hindrance: Hindrance::Busy,
                ..
            }))
        ),
        "{refused:?}"
    );
}

#[test]
fn a_report_that_is_sent_again_waits_once_and_may_come_again_after_a_failure() {
    let mut leader = Leader::new();
    let session = leader.agent("a1", 1, 1);
    leader.submit("true");
    let (_, fence) = leader.assigned()[0];
    leader.hold = true;
    for _ in 0..5 {
        leader.finish(session, fence);
    }
    assert_eq!(held_ops(&leader).len(), 1);
    leader.fail_oldest();
    leader.finish(session, fence);
    assert_eq!(held_ops(&leader).len(), 1);
    leader.release();
    assert_eq!(leader.task(1), StateName::Succeeded);
}

#[test]
fn what_is_due_is_not_proposed_again_while_it_waits() {
    let mut leader = Leader::new();
    leader.agent("a1", 1, 1);
    leader.hold = true;
    for _ in 0..3 {
        leader.submit("true");
    }
    assert_eq!(leader.held.len(), 3, "the pipeline is full");
    leader.pass(LEASE.0);
    leader.pass(100);
    leader.pass(100);
    let first = leader.apply_oldest();
    leader.answer_proposal(first);
    let expiries = held_ops(&leader).into_iter().filter(|op| is_expiry(op));
    assert_eq!(expiries.count(), 1);
}

#[test]
fn a_new_term_answers_those_who_waited_in_the_old_one() {
    let mut leader = Leader::new();
    leader.hold = true;
    let tickets: Vec<Ticket> = (0..6).map(|_| leader.submit("true")).collect();
    leader.input(Input::Lead { term: 2 });
    for ticket in &tickets[3..] {
        assert_eq!(leader.answer(*ticket), Some(&Err(Refusal::NotLeader)));
    }
}

#[test]
fn room_that_counted_twice_is_used_once_the_proposal_is_answered() {
    let mut leader = Leader::new();
    let session = leader.agent("a1", 1, 2);
    for _ in 0..4 {
        leader.submit("true");
    }
    let fences = leader.assigned();
    // Long enough that nothing is sent ahead to this agent.
    leader.pass(2_000);
    leader.hold = true;
    leader.finish(session, fences[0].1);
    let verdict = leader.apply_oldest();
    leader.answer_proposal(verdict);
    let third = leader.apply_oldest();
    leader.finish(session, fences[1].1);
    let verdict = leader.apply_oldest();
    leader.answer_proposal(verdict);
    assert!(leader.held.is_empty(), "the third task counts twice");
    leader.answer_proposal(third);
    let ops = held_ops(&leader);
    let [Op::System(SystemCommand::Assign(assignment))] = &ops[..] else {
        panic!("{ops:?}");
    };
    assert_eq!(assignment.task, TaskId(4));
}
