//! Agents that are closed to new work, or to be empty: what they are asked for, and by whom.

use model::{DrainAgent, StateName};

use super::*;

impl Leader {
    fn ask(&mut self, command: Command) {
        let ticket = self.request(command);
        assert_eq!(self.answer(ticket), Some(&Ok(Reply::Done)));
    }

    fn drain(&mut self, agent: &str, deadline: u64) {
        self.ask(Command::DrainAgent(DrainAgent {
            agent: AgentId::new(agent).expect("it is a name"),
            reason: String::new(),
            deadline: Millis(deadline),
        }));
    }

    pub(super) fn submit_once(&mut self) {
        let namespace = Namespace::new("default").expect("it is a name");
        let mut spec = TaskSpec::process(namespace, vec!["true".into()]);
        spec.at_most_once = true;
        self.submit_spec(spec);
    }

    /// Attempts that an agent was told to end since the last time, and why.
    pub(super) fn told(&mut self) -> Vec<(SessionId, TaskId, Cause)> {
        let mut found = vec![];
        self.seen.retain(|output| match output {
            Output::Send {
                session,
                message: Message::Cancel { fence, cause, .. },
            } => {
                found.push((*session, fence.task, *cause));
                false
            }
            _ => true,
        });
        found
    }

    fn give_back(&mut self, session: SessionId, fence: Fence) {
        let outcome = Outcome::bare(End::Declined {
            reason: "the agent is being drained".into(),
        });
        self.input(Input::Verdict {
            session,
            verdict: Verdict { fence, outcome },
            held: None,
        });
    }
}

fn agent(name: &str) -> AgentId {
    AgentId::new(name).expect("it is a name")
}

#[test]
fn a_cordoned_agent_gets_nothing_until_it_is_opened_again() {
    let mut leader = Leader::new();
    leader.agent("a1", 1, 4);
    leader.submit("before");
    assert_eq!(leader.assigned().len(), 1);
    leader.ask(Command::CordonAgent {
        agent: agent("a1"),
        reason: String::new(),
    });
    leader.submit("after");
    leader.pass(1_000);
    assert_eq!(leader.assigned(), []);
    assert_eq!(leader.told(), [], "what it holds goes on");
    // Nor does a new session, or a new leader, open it.
    leader.agent("a1", 2, 4);
    leader.assigned();
    leader.input(Input::Follow);
    leader.input(Input::Lead { term: 2 });
    leader.agent("a1", 3, 4);
    assert_eq!(leader.task(2), StateName::Queued);
    leader.ask(Command::UncordonAgent { agent: agent("a1") });
    assert_eq!(leader.task(2), StateName::Assigned, "without a tick");
}

#[test]
fn a_drained_agent_is_asked_for_what_it_has_not_begun_and_at_the_deadline_for_all() {
    let mut leader = Leader::new();
    let session = leader.agent("a1", 1, 4);
    leader.submit("one");
    leader.submit_once();
    let sent = leader.assigned();
    leader.drain("a1", 10_000);
    // To give back what may be assigned only once would be its end.
    assert_eq!(leader.told(), [(session, TaskId(1), Cause::Recalled)]);
    leader.agent("a2", 2, 4);
    leader.give_back(session, sent[0].1);
    assert_eq!(
        leader.assigned()[0].0,
        SessionId(2),
        "it goes elsewhere at once"
    );
    leader.pass(9_999);
    assert_eq!(leader.told(), []);
    leader.pass(1);
    assert_eq!(leader.told(), [(session, TaskId(2), Cause::Evicted)]);
    leader.pass(100);
    assert_eq!(leader.told(), [], "once");
    assert_eq!(
        leader.task(2),
        StateName::Assigned,
        "until its agent has ended it"
    );
}

#[test]
fn a_new_leader_goes_on_with_the_drain_and_its_deadline() {
    let mut leader = Leader::new();
    leader.agent("a1", 1, 4);
    leader.submit("one");
    let (_, fence) = leader.assigned()[0];
    leader.drain("a1", 10_000);
    leader.pass(6_000);
    leader.told();
    leader.input(Input::Follow);
    leader.pass(1_000);
    leader.input(Input::Lead { term: 2 });
    assert_eq!(
        leader.told(),
        [],
        "not before it is known what its agent holds"
    );
    let known = Input::Known {
        session: SessionId(1),
        attempts: vec![fence],
    };
    leader.input(known);
    assert_eq!(leader.told(), [(SessionId(1), TaskId(1), Cause::Recalled)]);
    leader.pass(2_999);
    assert_eq!(leader.told(), []);
    leader.pass(1);
    assert_eq!(leader.told(), [(SessionId(1), TaskId(1), Cause::Evicted)]);
    // The agent was away when it was told: it hears it on its next session.
    leader.open("a1", SessionId(2), 4);
    leader.input(Input::Known {
        session: SessionId(2),
        attempts: vec![fence],
    });
    assert_eq!(leader.told(), [(SessionId(2), TaskId(1), Cause::Evicted)]);
}

#[test]
fn what_a_drained_agent_never_got_is_sent_and_asked_back_in_this_order() {
    let mut leader = Leader::new();
    leader.agent("a1", 1, 4);
    leader.submit("one");
    leader.drain("a1", 10_000);
    leader.seen.clear();
    leader.open("a1", SessionId(2), 4);
    leader.input(Input::Known {
        session: SessionId(2),
        attempts: vec![],
    });
    let about = leader.seen.iter().filter_map(|output| match output {
        Output::Send { message, .. } => match message {
            Message::Assign { .. } => Some("assign"),
            Message::Cancel { .. } => Some("recall"),
            _ => None,
        },
        _ => None,
    });
    assert_eq!(about.collect::<Vec<_>>(), ["assign", "recall"]);
}

#[test]
fn a_cancelled_task_is_cancelled_whatever_is_drained() {
    let mut leader = Leader::new();
    leader.agent("a1", 1, 4);
    leader.submit("one");
    leader.request(Command::CancelTask {
        task: TaskId(1),
        reason: String::new(),
    });
    leader.told();
    leader.drain("a1", 0);
    leader.pass(100);
    assert_eq!(leader.told(), []);
}

#[test]
fn a_removed_agent_that_comes_again_is_a_new_one() {
    let mut leader = Leader::new();
    let session = leader.agent("a1", 1, 4);
    leader.ask(Command::CordonAgent {
        agent: agent("a1"),
        reason: String::new(),
    });
    leader.input(Input::SessionClosed { session });
    leader.ask(Command::RemoveAgent { agent: agent("a1") });
    assert!(leader.state.agent(&agent("a1")).is_none());
    leader.pass(LEASE.0 * 2);
    leader.agent("a1", 2, 4);
    leader.submit("one");
    assert_eq!(leader.task(1), StateName::Assigned);
    leader.pass(LEASE.0 - 1);
    assert_eq!(
        leader.task(1),
        StateName::Assigned,
        "its lease is a full one"
    );
}
