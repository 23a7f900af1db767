//! What the dispatcher must not do: spin, lose answers, do things twice, or trust an agent that the
//! log does not know.

use model::{
    AddRule, AgentProfile, Agents, Incarnation, Op, RuleAction, Scope, SetBackend, StateName,
    StateVersion, SystemCommand,
};

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
    /// Placements that are held back, of new tasks and of those that wait.
    pub(super) fn placed(&self) -> usize {
        let is_assigned = |op: &Op| matches!(op, Op::System(SystemCommand::Assign(_)));
        let ops = held_ops(self).into_iter();
        ops.filter(|op| is_placed(op) || is_assigned(op)).count()
    }

    /// Applies the oldest proposal that is held back, and tells of it, but not that it was answered.
    fn apply_oldest(&mut self) -> (ProposalId, Vec<Result<Reply, model::Rejected>>) {
        let (proposal, ops) = self.held.remove(0);
        let applied = self.commit(ops);
        self.input(Input::Applied {
            index: self.index,
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

    /// The oldest proposal that is held back is refused.
    pub(super) fn fail_oldest(&mut self) -> Vec<Op> {
        let (proposal, ops) = self.held.remove(0);
        self.input(Input::Proposed {
            proposal,
            result: Err(Failure::Unavailable {
                hindrance: Hindrance::NoQuorum,
                why: "no quorum".into(),
            }),
        });
        ops
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
fn an_agent_is_suspect_after_fifteen_seconds_of_silence_and_gets_no_work() {
    let mut leader = Leader::new();
    leader.agent("a1", 1, 2);
    leader.hold = true;
    leader.millis += 14_999;
    let presence = |leader: &Leader| leader.view("a1").sample.presence;
    assert_eq!(presence(&leader), model::Presence::Open);
    leader.submit("true");
    assert!(held_ops(&leader).into_iter().any(is_placed));
    leader.held.clear();
    leader.millis += 1;
    assert_eq!(presence(&leader), model::Presence::Suspect);
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
        held: None,
    }]);
    leader.input(Input::Applied {
        index: leader.index,
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
fn a_lease_whose_end_is_on_the_way_to_the_log_is_not_renewed_and_gets_no_work() {
    let mut leader = Leader::new();
    leader.agent("a1", 1, 1);
    leader.submit("true");
    let (_, fence) = leader.assigned()[0];
    leader.hold = true;
    leader.pass(LEASE.0);
    assert!(held_ops(&leader).into_iter().any(is_expiry));
    // It comes back before that is committed: in the state it is ready, and holds the task.
    leader.seen.clear();
    let session = leader.agent("a1", 2, 1);
    let received = Millis(leader.millis);
    leader.input(Input::LeaseConfirmed {
        session,
        nonce: 1,
        received,
    });
    let renewed = Output::Send {
        session,
        message: Message::RenewAck { nonce: 1 },
    };
    assert_eq!(
        leader.assigned(),
        [],
        "another agent may have it in a moment"
    );
    assert!(!leader.seen.contains(&renewed));
    leader.release();
    assert_eq!(leader.task(1), StateName::Queued);
    assert_ne!(leader.state.live_fence(TaskId(1)), Some(fence));
}

#[test]
fn an_agent_that_registers_again_has_its_renewal_answered_then() {
    let mut leader = Leader::new();
    leader.agent("a1", 1, 1);
    leader.pass(LEASE.0);
    leader.hold = true;
    let session = leader.agent("a1", 2, 1);
    leader.seen.clear();
    leader.input(Input::LeaseConfirmed {
        session,
        nonce: 1,
        received: Millis(leader.millis),
    });
    assert_eq!(
        leader.seen,
        [],
        "its session is not closed for having been lost"
    );
    leader.release();
    let renewed = Output::Send {
        session,
        message: Message::RenewAck { nonce: 1 },
    };
    assert!(leader.seen.contains(&renewed));
}

#[test]
fn a_registration_that_was_not_heard_of_yet_has_not_run_out() {
    let mut leader = Leader::new();
    leader.pass(LEASE.0);
    leader.hold = true;
    leader.agent("a1", 1, 1);
    // Applied, and in the state that the dispatcher sees; its events come a moment later.
    let (_, ops) = leader.held.remove(0);
    let applied = leader.commit(ops);
    leader.pass(100);
    assert!(!held_ops(&leader).into_iter().any(is_expiry));
    leader.input(Input::Applied {
        index: leader.index,
        events: applied.events,
    });
    leader.pass(LEASE.0 - 1);
    assert!(!held_ops(&leader).into_iter().any(is_expiry));
    leader.pass(1);
    assert!(held_ops(&leader).into_iter().any(is_expiry));
}

#[test]
fn a_cancel_counts_with_its_reason() {
    let mut leader = Leader::new();
    leader.hold = true;
    let reason = "x".repeat(3 * 1024 * 1024);
    for number in 1..=40 {
        let ticket = leader.request(Command::CancelTask {
            task: TaskId(1),
            reason: reason.clone(),
        });
        assert_eq!(ticket, Ticket(number));
    }
    let refused = (1..=40).filter(|number| leader.answer(Ticket(*number)).is_some());
    assert!(refused.count() > 10, "120 MiB do not wait where 64 may");
    let largest = leader.held.iter().map(|(_, ops)| ops.len()).max();
    assert_eq!(largest, Some(1), "each of them fills an entry");
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
    let [Op::System(SystemCommand::Assign(assignment)), ..] = &ops[..] else {
        panic!("{ops:?}");
    };
    assert_eq!(assignment.task, TaskId(4));
}

/// In an entry, a member of the release before could not even read it.
#[test]
fn what_the_state_s_version_does_not_admit_is_answered_and_never_proposed() {
    let mut leader = Leader::new();
    leader.state = at_version_1();
    leader.hold = true;
    let ticket = leader.request(Command::SetBackend(SetBackend {
        agent: model::AgentId::new("a1").expect("it is a name"),
        name: "gpu".into(),
        weight: Some(2),
        limit: None,
        max_fails: None,
        fail_timeout: None,
    }));
    let refused = Refusal::Rejected(model::Rejected::NotYet {
        needs: StateVersion(2),
        version: StateVersion(1),
    });
    assert_eq!(leader.answer(ticket), Some(&Err(refused)));
    assert!(held_ops(&leader).is_empty());
}

/// A cluster that the release before has founded.
fn at_version_1() -> State {
    let found = SystemCommand::Found {
        cluster_id: "test".into(),
        generation: model::Generation(1),
    };
    let entry = model::Entry {
        stamp: Timestamp(1_000_000),
        wall: Timestamp(1_000_000),
        ops: vec![Op::System(found)],
    };
    let mut state = State::default();
    state.apply(model::Stamped {
        index: 1,
        term: 1,
        membership: 0,
        entry,
    });
    state
}

#[test]
fn what_is_on_its_way_to_the_log_counts_for_a_rule_that_caps_it() {
    let mut leader = Leader::new();
    leader.agent("a1", 1, 4);
    let ticket = leader.request(Command::AddRule(AddRule {
        action: RuleAction::Cap(1),
        scope: Scope::default(),
        agents: Agents {
            names: AgentId::new("a1").into_iter().collect(),
            require: Vec::new(),
        },
        reason: "its disk is slow".into(),
        ttl: None,
    }));
    assert!(matches!(leader.answer(ticket), Some(Ok(_))));
    leader.hold = true;
    for _ in 0..3 {
        leader.submit("sleep");
        leader.pass(100);
    }
    assert_eq!(leader.placed(), 1, "what would be refused is not proposed");
    leader.release();
    leader.pass(100);
    assert_eq!(leader.task(1), StateName::Assigned);
    assert_eq!(leader.task(2), StateName::Queued);
}
