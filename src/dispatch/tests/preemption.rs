//! What agents are told when a task gets the place of another one.

use model::{AgentProtocol, Class, Interruption, Phase};

use super::*;

impl Leader {
    fn submit_of(&mut self, class: Class, preemptible: bool) {
        let namespace = Namespace::new("default").expect("it is a name");
        self.submit_spec(TaskSpec {
            class: Some(class),
            preemptible,
            ..TaskSpec::process(namespace, vec!["true".into()])
        });
    }

    /// What was assigned, and after what.
    fn sent(&mut self) -> Vec<(SessionId, u64, Vec<u64>)> {
        let mut found = Vec::new();
        self.seen.retain(|output| match output {
            Output::Send {
                session,
                message: Message::Assign { fence, after, .. },
            } => {
                let after = after.iter().map(|it| it.task.0).collect();
                found.push((*session, fence.task.0, after));
                false
            }
            _ => true,
        });
        found
    }

    /// What was said so far is no matter.
    fn heard(&mut self) {
        self.seen.clear();
    }

    fn gave_up(&mut self, session: SessionId, task: u64) {
        let fence = self.state.live_fence(TaskId(task)).expect("it runs");
        let end = End::Interrupted {
            cause: Interruption::EndedByAgent,
            reason: "another task got its place".into(),
        };
        self.input(Input::Verdict {
            session,
            verdict: Verdict {
                fence,
                outcome: Outcome::bare(end),
            },
            held: None,
        });
    }

    fn knows(&mut self, session: u64, protocol: AgentProtocol, tasks: &[u64]) -> SessionId {
        let session = SessionId(session);
        self.open_as(
            AgentProfile {
                protocol,
                ..profile("a1", 1)
            },
            session,
        );
        let fences = tasks.iter().map(|it| self.state.live_fence(TaskId(*it)));
        let attempts = fences.map(|it| it.expect("it runs")).collect();
        self.input(Input::Known { session, attempts });
        session
    }
}

const NEWEST: AgentProtocol = AgentProtocol::NEWEST;

/// One that yields runs on `a1`, and has to end for another.
fn preempted() -> (Leader, SessionId) {
    let mut leader = Leader::new();
    let session = leader.agent("a1", 1, 1);
    leader.submit_of(Class::Batch, true);
    assert_eq!(leader.sent(), [(session, 1, vec![])]);
    leader.submit_of(Class::Critical, false);
    assert_eq!(leader.told(), [], "its place may come free by itself");
    leader.pass(1_000);
    (leader, session)
}

#[test]
fn one_entry_gives_a_task_the_place_of_another_and_the_agent_is_told_both() {
    let (mut leader, session) = preempted();
    assert_eq!(leader.sent(), [(session, 2, vec![1])]);
    assert_eq!(leader.told(), [(session, TaskId(1), Cause::Preempted)]);
    leader.pass(5_000);
    assert_eq!((leader.sent(), leader.told()), (vec![], vec![]), "once");
    leader.gave_up(session, 1);
    assert_eq!(leader.task(1), StateName::Queued);
    let fence = leader.state.live_fence(TaskId(2)).expect("it runs");
    leader.finish(session, fence);
    assert_eq!(leader.sent(), [(session, 1, vec![])], "there is room again");
}

#[test]
fn each_waits_for_its_own_place_while_decisions_are_on_their_way() {
    let mut leader = Leader::new();
    let sessions = [leader.agent("a1", 1, 1), leader.agent("a2", 2, 1)];
    leader.submit_of(Class::Batch, true);
    leader.submit_of(Class::Batch, true);
    leader.sent();
    leader.submit_of(Class::Critical, false);
    leader.submit_of(Class::Critical, false);
    leader.hold = true;
    leader.pass(1_000);
    leader.pass(100);
    leader.release();
    leader.pass(100);
    let mut told = leader.told();
    told.sort_unstable_by_key(|(session, ..)| *session);
    let told: Vec<SessionId> = told.into_iter().map(|(session, ..)| session).collect();
    assert_eq!(told, sessions);
    leader.pass(100);
    assert_eq!(leader.told(), []);
}

#[test]
fn a_new_session_is_told_again_and_what_never_came_there_is_not_begun_to_be_ended() {
    let (mut leader, _) = preempted();
    leader.heard();
    // The agent knows the one that has to end, and not the one that waits for it.
    let session = leader.knows(2, NEWEST, &[1]);
    assert_eq!(leader.sent(), [(session, 2, vec![1])]);
    assert_eq!(leader.told(), [(session, TaskId(1), Cause::Preempted)]);
    // The other way round.
    let session = leader.knows(3, NEWEST, &[2]);
    assert_eq!(leader.sent(), []);
    assert_eq!(leader.told(), [(session, TaskId(1), Cause::Preempted)]);
}

#[test]
fn a_new_leader_goes_on_with_it() {
    let (mut leader, session) = preempted();
    leader.heard();
    leader.input(Input::Follow);
    leader.input(Input::Lead { term: 2 });
    assert_eq!(
        leader.told(),
        [],
        "not before it is known what its agent holds"
    );
    let attempts = [1, 2].map(|it| leader.state.live_fence(TaskId(it)).expect("it runs"));
    leader.input(Input::Known {
        session,
        attempts: attempts.to_vec(),
    });
    assert_eq!(leader.sent(), []);
    assert_eq!(leader.told(), [(session, TaskId(1), Cause::Preempted)]);
}

/// It would know neither the cause, nor that it has to wait.
#[test]
fn an_agent_that_comes_back_as_an_older_release_ends_the_one_and_is_not_sent_the_other() {
    let (mut leader, _) = preempted();
    leader.heard();
    let session = leader.knows(2, AgentProtocol::RESOURCES, &[1]);
    assert_eq!(leader.sent(), []);
    assert_eq!(leader.told(), [(session, TaskId(1), Cause::Cancelled)]);
    assert_eq!(leader.task(2), StateName::Queued, "it was given back");
}

#[test]
fn one_whose_agent_is_lost_meanwhile_is_queued_again_like_any_other() {
    let (mut leader, _) = preempted();
    leader.pass(LEASE.0);
    for task in [1, 2] {
        let phase = &leader.state.task(TaskId(task)).expect("it is known").phase;
        assert!(matches!(phase, Phase::Queued { .. }), "t{task}: {phase:?}");
    }
}
