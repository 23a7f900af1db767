//! A small world for tests: a client, three agents, and a log that counts by itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::kept::Kept;
use crate::{
    AgentId, AgentProfile, Applied, Assignment, Backend, Command, End, Endpoint, Entry, Epoch,
    Fence, Generation, Incarnation, Inference, Namespace, Op, Outcome, Placement, Principal,
    Rejected, Reply, RequestId, Role, Scored, Stamped, State, Submit, SystemCommand, TaskId,
    TaskSpec, Timestamp, Trace, TraceRecord, Verdict, invariant,
};
use crate::{Held, StateVersion};

/// Where the world's clock starts: not at zero, so that a mistaken zero shows.
pub const START: u64 = 1_000_000;

/// One replica and its log's position.
pub struct World {
    pub state: State,
    pub index: u64,
    pub term: u64,
    pub now: u64,
    pub kept: Kept,
}

impl World {
    /// A founded cluster; its first entry is at index 1.
    /// At the version of the first release.
    pub fn new() -> World {
        World::founded_with(Vec::new())
    }

    /// At the newest version, as a cluster of this release begins.
    pub fn today() -> World {
        let to = StateVersion::NEWEST;
        World::founded_with(vec![Op::System(SystemCommand::RaiseVersion { to })])
    }

    fn founded_with(more: Vec<Op>) -> World {
        let mut world = World {
            state: State::default(),
            index: 0,
            term: 1,
            now: START,
            kept: Kept::default(),
        };
        let found = SystemCommand::Found {
            cluster_id: "test".into(),
            generation: Generation(1),
        };
        let ops = [vec![Op::System(found)], more].concat();
        let founded = world.apply(ops).replies;
        assert!(
            founded.iter().all(Result::is_ok),
            "a new cluster can be founded"
        );
        world
    }

    /// Applies one entry and checks every invariant after it.
    pub fn apply(&mut self, ops: Vec<Op>) -> Applied {
        let applied = self.apply_unchecked(ops);
        assert_eq!(invariant::check(&self.state), Vec::<String>::new());
        assert_eq!(self.kept.check(&self.state), Vec::<String>::new());
        applied
    }

    fn apply_unchecked(&mut self, ops: Vec<Op>) -> Applied {
        self.index += 1;
        let stamp = Timestamp(self.now);
        let entry = Entry {
            stamp,
            wall: stamp,
            ops,
        };
        let decoded = Entry::decode(&entry.encode());
        assert_eq!(
            decoded.as_ref(),
            Ok(&entry),
            "an entry survives its encoding"
        );
        let operations = entry.ops.len();
        let applied = self.state.apply(Stamped {
            index: self.index,
            term: self.term,
            membership: 0,
            entry,
        });
        self.kept.take(&applied);
        assert_eq!(applied.replies.len(), operations);
        applied
    }

    pub fn one(&mut self, op: Op) -> Result<Reply, Rejected> {
        self.apply(vec![op]).replies.remove(0)
    }

    pub fn system(&mut self, command: SystemCommand) -> Result<Reply, Rejected> {
        self.one(Op::System(command))
    }

    pub fn submit(&mut self, submit: Submit) -> Result<Reply, Rejected> {
        self.one(submit_op(submit, None))
    }

    /// A submit to a state that a test has made unsound.
    pub fn unchecked(&mut self, submit: Submit) -> Result<Reply, Rejected> {
        self.apply_unchecked(vec![submit_op(submit, None)])
            .replies
            .remove(0)
    }

    pub fn register(&mut self, profile: AgentProfile) -> Result<Reply, Rejected> {
        self.one(register_op(profile))
    }

    pub fn assign(&mut self, task: u64, agent: &str) -> Result<Reply, Rejected> {
        let placement = placement(agent);
        self.system(SystemCommand::Assign(Assignment {
            task: TaskId(task),
            placement,
        }))
    }

    pub fn finish(
        &mut self,
        task: u64,
        epoch: u64,
        agent: &str,
        end: End,
    ) -> Result<Reply, Rejected> {
        self.one(finish_op(fence(task, epoch), agent, Outcome::bare(end)))
    }
}

pub fn agent_id(name: &str) -> AgentId {
    AgentId::new(name).expect("tests use good names")
}

pub fn client(name: &str) -> Principal {
    Principal {
        name: name.into(),
        role: Role::Client,
        fingerprint: [1; 32],
    }
}

pub fn agent_principal(name: &str) -> Principal {
    Principal {
        name: name.into(),
        role: Role::Agent,
        fingerprint: [2; 32],
    }
}

pub fn incarnation(n: u8) -> Incarnation {
    Incarnation([n; 16])
}

pub fn profile(name: &str, slots: u32, inc: u8) -> AgentProfile {
    AgentProfile {
        id: agent_id(name),
        incarnation: incarnation(inc),
        slots,
        labels: BTreeMap::new(),
        version: "test".into(),
        limits: "rlimit".into(),
        backends: Vec::new(),
        protocol: crate::AgentProtocol::FIRST,
        supply: None,
    }
}

pub fn spec(command: &str) -> TaskSpec {
    let namespace = Namespace::new("default").expect("it is a name");
    TaskSpec::process(namespace, command.split(' ').map(str::to_owned).collect())
}

pub fn submit(spec: TaskSpec, request_id: Option<&str>) -> Submit {
    Submit {
        spec,
        request_id: request_id.map(|id| RequestId(id.into())),
    }
}

/// Held by the voters that these tests have.
pub fn submit_op(submit: Submit, placement: Option<Placement>) -> Op {
    let held = (!submit.spec.blobs.is_empty()).then_some(Held(0));
    Op::Client {
        principal: client("ann"),
        command: Command::SubmitTask(submit),
        placement,
        held,
    }
}

pub fn register_op(profile: AgentProfile) -> Op {
    let principal = agent_principal(profile.id.as_str());
    Op::Client {
        principal,
        command: Command::RegisterAgent(profile),
        placement: None,
        held: None,
    }
}

pub fn finish_op(fence: Fence, agent: &str, outcome: Outcome) -> Op {
    let held = (!outcome.blobs.is_empty()).then_some(Held(0));
    let command = Command::FinishAttempt(Verdict { fence, outcome });
    Op::Client {
        principal: agent_principal(agent),
        command,
        placement: None,
        held,
    }
}

pub fn fence(task: u64, epoch: u64) -> Fence {
    Fence {
        task: TaskId(task),
        generation: Generation(1),
        epoch: Epoch(epoch),
    }
}

/// Onto incarnation 1 of an agent.
pub fn placement(agent: &str) -> Placement {
    placement_on(agent, 1)
}

pub fn placement_on(agent: &str, inc: u8) -> Placement {
    let winner = Scored {
        agent: agent_id(agent),
        score: 0,
        terms: vec![0],
    };
    let trace = Trace {
        policy_version: 1,
        winner,
        runners_up: vec![],
        refusals: vec![],
    };
    Placement {
        agent: agent_id(agent),
        incarnation: incarnation(inc),
        trace: Arc::new(TraceRecord::Open(trace)),
        estimate: None,
    }
}

/// A question for a model.
pub fn inference(model: &str, request: &str) -> TaskSpec {
    let inference = Inference {
        model: model.into(),
        endpoint: Endpoint::ChatCompletions,
        request: request.into(),
    };
    TaskSpec::inference(Namespace::new("default").expect("it is a name"), inference)
}

/// `NAME:MODEL+MODEL`.
pub fn backend(text: &str) -> Backend {
    let (name, models) = text.split_once(':').unwrap_or((text, ""));
    Backend {
        name: name.into(),
        url: format!("http://{name}"),
        models: models.split_terminator('+').map(str::to_owned).collect(),
        trouble: String::new(),
    }
}
