//! What is set for back ends: who is told, when, and that what is on its way to them counts.

use model::{Backend, BackendSettings, Endpoint, Inference, SetBackend};

use super::*;

impl Leader {
    fn set_limit(&mut self, limit: u32) {
        let ticket = self.request(Command::SetBackend(SetBackend {
            agent: AgentId::new("a1").expect("it is a name"),
            name: "x".into(),
            weight: None,
            limit: Some(limit),
            max_fails: None,
            fail_timeout: None,
        }));
        assert_eq!(self.answer(ticket), Some(&Ok(Reply::Done)));
    }

    fn ask_model(&mut self) {
        let namespace = Namespace::new("default").expect("it is a name");
        let inference = Inference {
            model: "m".into(),
            endpoint: Endpoint::ChatCompletions,
            request: "{}".into(),
        };
        self.submit_spec(TaskSpec::inference(namespace, inference));
    }

    /// Limits of `x` that were told since the last time; 0 where nothing was set.
    fn told_limits(&mut self) -> Vec<(SessionId, u32)> {
        let mut found = vec![];
        self.seen.retain(|output| match output {
            Output::Send {
                session,
                message: Message::Backends(all),
            } => {
                let limit = all.get("x").map_or(0, |set: &BackendSettings| set.limit);
                found.push((*session, limit));
                false
            }
            _ => true,
        });
        found
    }
}

fn with_a_back_end() -> AgentProfile {
    let mut profile = profile("a1", 8);
    profile.backends = vec![Backend {
        name: "x".into(),
        url: "http://x".into(),
        models: vec!["m".into()],
        trouble: String::new(),
    }];
    profile
}

fn connected(leader: &mut Leader, session: u64) -> SessionId {
    let session = SessionId(session);
    leader.open_as(with_a_back_end(), session);
    leader.input(Input::Known {
        session,
        attempts: vec![],
    });
    session
}

#[test]
fn an_agent_is_told_what_is_set_for_its_back_ends_first_and_at_each_change() {
    let mut leader = Leader::new();
    let first = connected(&mut leader, 1);
    leader.told_limits();
    leader.set_limit(2);
    assert_eq!(leader.told_limits(), [(first, 2)]);
    let second = connected(&mut leader, 2);
    assert_eq!(leader.told_limits(), [(second, 2)]);
    leader.set_limit(0);
    assert_eq!(leader.told_limits(), [(second, 0)]);
    leader.agent("a2", 3, 1);
    assert_eq!(leader.told_limits(), [], "it has no back end");
}

#[test]
fn questions_on_their_way_to_a_back_end_count_against_its_limit() {
    let mut leader = Leader::new();
    connected(&mut leader, 1);
    leader.set_limit(2);
    leader.hold = true;
    for _ in 0..5 {
        leader.ask_model();
        leader.pass(100);
    }
    assert_eq!(leader.placed(), 2, "what would be refused is not proposed");
    leader.release();
    leader.pass(100);
    assert_eq!(leader.state.count(StateName::Assigned), 2);
    let (session, fence) = leader.assigned()[0];
    leader.finish(session, fence);
    assert_eq!(leader.assigned().len(), 1, "its place is taken at once");
}
