//! What is learned of agents: how long work takes there, and how far they are.

use super::*;

impl Leader {
    fn ends(&mut self, (session, fence): (SessionId, Fence), end: End) {
        let mut outcome = Outcome::bare(end);
        (outcome.started_at, outcome.finished_at) = (Timestamp(1_000), Timestamp(9_192));
        self.input(Input::Verdict {
            session,
            verdict: Verdict { fence, outcome },
            held: None,
        });
    }

    pub(super) fn view(&self, agent: &str) -> scheduler::AgentView {
        let fleet = self.dispatcher.fleet(&self.state, self.clock());
        fleet.agents[&AgentId::new(agent).unwrap()].clone()
    }

    fn is_away(&mut self, session: SessionId, latency_us: u32) {
        self.input(Input::Status {
            session,
            load: Load {
                latency_us,
                ..Load::default()
            },
            intake: Intake::Open,
        });
    }
}

/// Where all fails at once it would look quick, and draw all there is.
#[test]
fn how_long_work_takes_is_learned_from_what_succeeded_and_from_nothing_else() {
    let mut leader = Leader::new();
    leader.agent("a1", 1, 2);
    for end in [End::Exited { code: 1 }, End::Killed, End::TimedOut] {
        leader.submit("true");
        let sent = leader.assigned()[0];
        leader.ends(sent, end);
        assert!(leader.view("a1").service.is_empty());
    }
    leader.submit("true");
    let sent = leader.assigned()[0];
    leader.ends(sent, End::Exited { code: 0 });
    let learned = leader.view("a1").service;
    assert_eq!(
        learned.values().map(|it| it.value()).collect::<Vec<_>>(),
        [8_192]
    );
}

/// The state may be ahead of the events that a controller has heard of.
#[test]
fn an_agent_that_lost_a_task_is_not_credited_with_how_it_went_elsewhere() {
    let mut leader = Leader::new();
    leader.agent("a1", 1, 1);
    leader.submit("true");
    let (_, first) = leader.assigned()[0];
    let second = leader.agent("a2", 2, 1);
    let incarnation = profile("a1", 1).incarnation;
    let lost = SystemCommand::ExpireLease {
        agent: AgentId::new("a1").unwrap(),
        incarnation,
    };
    let unheard = leader.commit(vec![Op::System(lost)]);
    assert_eq!(leader.state.live_fence(first.task), None);
    let heard = leader.index;
    // It goes to the other one, and ends well there.
    let placement = model::Placement {
        agent: AgentId::new("a2").unwrap(),
        incarnation: profile("a2", 1).incarnation,
        trace: leader
            .state
            .task(first.task)
            .unwrap()
            .trace
            .clone()
            .unwrap(),
        estimate: None,
    };
    let assign = model::Assignment {
        task: first.task,
        placement,
    };
    leader.commit(vec![Op::System(SystemCommand::Assign(assign))]);
    let fence = leader.state.live_fence(first.task).unwrap();
    let mut outcome = Outcome::bare(End::Exited { code: 0 });
    (outcome.started_at, outcome.finished_at) = (Timestamp(1_000), Timestamp(9_192));
    let ended = Command::FinishAttempt(Verdict { fence, outcome });
    leader.commit(vec![Op::Client {
        principal: principal("a2", Role::Agent),
        command: ended,
        placement: None,
        held: None,
    }]);
    assert_eq!(leader.task(first.task.0), StateName::Succeeded);
    leader.input(Input::Applied {
        index: heard,
        events: unheard.events,
    });
    assert!(leader.view("a1").service.is_empty());
    assert!(leader.dispatcher.agents.session(second).is_some());
}

#[test]
fn one_slow_round_trip_says_little() {
    let mut leader = Leader::new();
    let session = leader.agent("a1", 1, 1);
    let away = |leader: &Leader| leader.view("a1").sample.load.latency.value();
    // Not measured yet is no round trip.
    for (said, shown) in [(0, 0), (1_024, 1_024), (17_408, 4_871), (0, 4_871)] {
        leader.is_away(session, said);
        assert_eq!(away(&leader), shown, "{said}");
    }
}

/// Attempts are short on the average, and it would wait for this one all the same.
#[test]
fn nothing_is_sent_ahead_behind_what_has_run_for_long_on_all_slots() {
    let mut leader = Leader::with_a_quick_agent(2);
    leader.submit("long");
    leader.pass(1_000);
    // On the other slot they may be short.
    leader.submit("another");
    leader.submit("ahead");
    assert_eq!(leader.assigned().len(), 3);
    leader.pass(1_000);
    let view = leader.view("a1");
    assert_eq!(view.sample.prefetch, 0);
}

/// It may have become one by chance: what it waits behind was short on the average.
#[test]
fn what_waits_ahead_for_long_is_asked_back_and_goes_where_a_slot_is_free() {
    let mut leader = Leader::with_a_quick_agent(2);
    leader.submit("long");
    leader.submit("another");
    leader.submit("ahead");
    let sent = leader.assigned();
    let (session, ahead) = sent[2];
    leader.pass(900);
    assert_eq!(leader.told(), [], "they are short");
    leader.pass(200);
    // The agent goes on with what has begun.
    let told: Vec<_> = leader.told();
    let all = sent
        .iter()
        .map(|(session, fence)| (*session, fence.task, Cause::Recalled));
    assert_eq!(told, all.collect::<Vec<_>>());
    leader.pass(100);
    assert_eq!(leader.told(), [], "it was told once");
    let other = leader.agent("a2", 2, 1);
    let declined = Outcome::bare(End::Declined {
        reason: "it was asked back".into(),
    });
    let verdict = Verdict {
        fence: ahead,
        outcome: declined,
    };
    leader.input(Input::Verdict {
        session,
        verdict,
        held: None,
    });
    let again = leader.assigned();
    assert_eq!(again.len(), 1);
    assert_eq!((again[0].0, again[0].1.task), (other, ahead.task));
    leader.pass(2_000);
    assert_eq!(leader.told(), [], "it has its slot");

    let mut leader = Leader::with_a_quick_agent(1);
    leader.submit("long");
    leader.submit_once();
    let sent = leader.assigned();
    let (_, once) = sent[1];
    leader.pass(5_000);
    let told = leader.told();
    let given_back = told.iter().any(|(_, task, _)| *task == once.task);
    assert!(!given_back, "it would end for good: {told:?}");
}

/// What is there for long may be from before this leader.
#[test]
fn a_new_leader_asks_back_what_waits_since_another_one() {
    let mut leader = Leader::with_a_quick_agent(1);
    leader.submit("long");
    leader.submit("ahead");
    let sent = leader.assigned();
    assert_eq!(sent.len(), 2);
    leader.dispatcher = Dispatcher::new();
    leader.input(Input::Lead { term: 1 });
    let session = SessionId(2);
    leader.open("a1", session, 1);
    leader.input(Input::Known {
        session,
        attempts: sent.iter().map(|(_, fence)| *fence).collect(),
    });
    leader.pass(1_100);
    let told = leader.told();
    let wanted = sent
        .iter()
        .map(|(_, it)| (session, it.task, Cause::Recalled));
    assert_eq!(told, wanted.collect::<Vec<_>>());
}
