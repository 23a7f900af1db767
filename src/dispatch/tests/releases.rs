//! Agents of an older release beside newer ones: nobody is given what it would run only a part of.

use model::{AgentProtocol, Attachment, BlobRef, Held};

use super::*;

fn of_release(name: &str, protocol: AgentProtocol) -> AgentProfile {
    AgentProfile {
        protocol,
        ..profile(name, 4)
    }
}

impl Leader {
    fn agent_of_release(&mut self, name: &str, session: u64, protocol: AgentProtocol) -> SessionId {
        let session = SessionId(session);
        self.open_as(of_release(name, protocol), session);
        self.input(Input::Known {
            session,
            attempts: vec![],
        });
        session
    }

    fn submit_with_a_file(&mut self) {
        let namespace = Namespace::new("default").expect("it is a name");
        let mut spec = TaskSpec::process(namespace, vec!["cat".into()]);
        spec.blobs.attachments.push(Attachment {
            name: "data".into(),
            blob: BlobRef::of(b"data"),
            executable: false,
        });
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.input(Input::Request {
            ticket,
            principal: principal("ann", Role::Client),
            command: Command::SubmitTask(Submit {
                spec,
                request_id: None,
            }),
            held: Some(Held(0)),
        });
        assert!(matches!(self.answer(ticket), Some(Ok(_))));
    }

    fn known(&self, name: &str) -> AgentProtocol {
        let id = AgentId::new(name).expect("it is a name");
        self.state
            .agent(&id)
            .expect("it is registered")
            .profile
            .protocol
    }

    fn why(&self, task: u64) -> scheduler::Explanation {
        let fleet = self.dispatcher.fleet(&self.state, self.clock());
        let now = self.clock().state;
        scheduler::explain(&self.state, &fleet, now, TaskId(task)).expect("it is there")
    }
}

#[test]
fn a_task_with_files_waits_for_an_agent_that_fetches_them_and_holds_up_nobody() {
    let mut leader = Leader::new();
    let old = leader.agent_of_release("a1", 1, AgentProtocol::FIRST);
    leader.submit_with_a_file();
    leader.submit("true");
    leader.pass(100);
    let sent = leader.assigned();
    assert!(matches!(sent[..], [(session, fence)] if session == old && fence.task == TaskId(2)));
    let why = leader.why(1);
    let words = "1 is of an older release, which can't run all of it: upgrade it";
    assert!(why.summary.contains(words), "{}", why.summary);
    let reason = why.agents[0].standing.clone().unwrap_err().to_string();
    assert!(
        reason.contains("can't run all of it: upgrade it"),
        "{reason}"
    );
    let new = leader.agent_of_release("a2", 2, AgentProtocol::BLOBS);
    let sent = leader.assigned();
    assert!(matches!(sent[..], [(session, fence)] if session == new && fence.task == TaskId(1)));
}

#[test]
fn a_task_whose_file_the_leader_lacks_is_sent_to_nobody_until_it_has_come() {
    let mut leader = Leader::new();
    let session = leader.agent_of_release("a1", 1, AgentProtocol::BLOBS);
    let lacks = std::sync::Arc::new([BlobRef::of(b"data").digest].into());
    leader.input(Input::Lacks(lacks));
    leader.submit_with_a_file();
    leader.submit("true");
    leader.pass(100);
    let sent = leader.assigned();
    assert!(matches!(sent[..], [(to, fence)] if to == session && fence.task == TaskId(2)));
    let why = leader.why(1);
    let words = "until the leader has fetched what it needs from another controller";
    assert!(why.summary.contains(words), "{}", why.summary);
    leader.input(Input::Lacks(std::sync::Arc::default()));
    assert_eq!(leader.task(1), StateName::Assigned);
    // A decision that passed it over went by more than the log knows; others did not.
    let whole = leader.observed().into_iter().map(|it| it.is_whole);
    assert_eq!(whole.collect::<Vec<_>>(), [false, true]);
}

#[test]
fn an_upgraded_agent_is_known_by_its_next_hello_and_gets_what_waited_for_it() {
    let mut leader = Leader::new();
    leader.agent_of_release("a1", 1, AgentProtocol::FIRST);
    leader.submit_with_a_file();
    assert_eq!(leader.assigned(), []);
    let session = leader.agent_of_release("a1", 2, AgentProtocol::BLOBS);
    assert_eq!(leader.known("a1"), AgentProtocol::BLOBS);
    let sent = leader.assigned();
    assert!(matches!(sent[..], [(to, _)] if to == session));
}

#[test]
fn at_version_1_it_is_left_out_and_once_the_version_rose_it_is_told() {
    let mut leader = Leader::at_version_1();
    let session = leader.agent_of_release("a1", 1, AgentProtocol::BLOBS);
    assert_eq!(leader.known("a1"), AgentProtocol::FIRST);
    leader.submit("true");
    assert_eq!(leader.assigned().len(), 1, "it works as ever");
    let before = leader.index;
    leader.pass(100);
    assert_eq!(leader.index, before, "it is not registered again and again");
    leader.raise();
    leader.pass(100);
    assert_eq!(leader.known("a1"), AgentProtocol::BLOBS);
    assert_eq!(leader.task(1), StateName::Assigned, "what it holds stays");
    leader.submit_with_a_file();
    let sent = leader.assigned();
    assert!(matches!(sent[..], [(to, fence)] if to == session && fence.task == TaskId(2)));
}

#[test]
fn an_agent_that_comes_back_as_an_older_release_is_not_sent_what_it_was_assigned() {
    let mut leader = Leader::new();
    leader.agent_of_release("a1", 1, AgentProtocol::BLOBS);
    leader.submit_with_a_file();
    assert_eq!(leader.assigned().len(), 1);
    leader.agent_of_release("a1", 2, AgentProtocol::FIRST);
    assert_eq!(leader.assigned(), []);
    assert_eq!(leader.task(1), StateName::Queued, "it was given back");
}
