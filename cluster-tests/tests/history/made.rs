//! A log and a history that fit together, made by applying commands as a cluster would.
//!
//! What is broken about them is then broken by hand: an entry that says otherwise, an answer that was never true.

use std::collections::BTreeMap;

use cluster_tests::checkers::{Evidence, Kind, Violation};
use cluster_tests::history::{
    Action, Answer, History, Moment, Operation, Outcome, Position, SpecSeen, TaskSeen, Value,
};
use cluster_tests::log::{Content, Log, LogEntry};
use model::{
    AgentId, AgentProfile, AgentProtocol, Assignment, Command, End, Entry, Epoch, Fence,
    Generation, Incarnation, Millis, Namespace, Op, Placement, Principal, RequestId, Role, Stamped,
    State, StateVersion, Submit, SystemCommand, TaskId, TaskRecord, TaskSpec, Timestamp, Trace,
    Verdict,
};

pub fn at(micros: u64) -> Moment {
    Moment(micros)
}

pub fn kinds(violations: &[Violation]) -> Vec<Kind> {
    violations.iter().map(|violation| violation.kind).collect()
}

pub fn operation(
    id: u64,
    action: Action,
    (invoked, answered): (u64, u64),
    outcome: Outcome,
) -> Operation {
    let answered = match outcome {
        Outcome::Ok(_) | Outcome::Refused { .. } => Some(at(answered)),
        Outcome::Unknown { .. } => None,
    };
    Operation {
        id,
        client: format!("client-{}", id % 3),
        action,
        invoked: at(invoked),
        answered,
        outcome,
    }
}

pub fn client(command: Command) -> Op {
    by("alice", Role::Client, command)
}

pub fn by(name: &str, role: Role, command: Command) -> Op {
    Op::Client {
        principal: Principal {
            name: name.to_owned(),
            role,
            fingerprint: [7; 32],
        },
        command,
        placement: None,
        held: None,
    }
}

pub fn agent(id: &str) -> AgentId {
    AgentId::new(id).unwrap()
}

pub fn incarnation(id: &str) -> Incarnation {
    Incarnation([id.as_bytes()[1]; 16])
}

pub fn register(id: &str, slots: u32) -> Op {
    let profile = AgentProfile {
        id: agent(id),
        incarnation: incarnation(id),
        slots,
        labels: BTreeMap::from([("hall".to_owned(), id.to_owned())]),
        version: "0".into(),
        limits: "rlimit".into(),
        backends: Vec::new(),
        protocol: AgentProtocol::FIRST,
        supply: None,
    };
    by(id, Role::Agent, Command::RegisterAgent(profile))
}

pub fn spec() -> TaskSpec {
    TaskSpec::process(Namespace::new("default").unwrap(), vec!["true".into()])
}

pub fn submit(request_id: &str, spec: TaskSpec) -> Op {
    client(Command::SubmitTask(Submit {
        spec,
        request_id: Some(RequestId(request_id.to_owned())),
    }))
}

pub fn placement(to: &str) -> Placement {
    let winner = model::Scored {
        agent: agent(to),
        score: 0,
        terms: Vec::new(),
    };
    let trace = Trace {
        policy_version: 1,
        refusals: Vec::new(),
        winner,
        runners_up: Vec::new(),
    };
    Placement {
        agent: agent(to),
        incarnation: incarnation(to),
        trace: std::sync::Arc::new(model::TraceRecord::Open(trace)),
        estimate: None,
    }
}

pub fn assign(task: u64, to: &str) -> Op {
    Op::System(SystemCommand::Assign(Assignment {
        task: TaskId(task),
        placement: placement(to),
    }))
}

pub fn finish(task: u64, epoch: u64, who: &str) -> Op {
    let fence = Fence {
        task: TaskId(task),
        generation: Generation(1),
        epoch: Epoch(epoch),
    };
    let outcome = model::Outcome::bare(End::Exited { code: 0 });
    by(
        who,
        Role::Agent,
        Command::FinishAttempt(Verdict { fence, outcome }),
    )
}

/// A cluster's log, and clients that are answered from it.
pub struct World {
    pub state: State,
    pub log: Log,
    pub operations: Vec<Operation>,
    /// Tasks that left memory.
    gone: BTreeMap<u64, TaskSeen>,
    index: u64,
    now: u64,
    /// Between two entries the state's time passed by so much.
    late: Millis,
}

impl World {
    /// Two agents of one slot each, at version 2.
    pub fn new() -> World {
        let membership = LogEntry {
            index: 0,
            term: 1,
            content: Content::Membership,
            words: Vec::new(),
        };
        let blank = LogEntry {
            index: 1,
            term: 1,
            content: Content::Blank,
            words: Vec::new(),
        };
        let mut world = World {
            state: State::default(),
            log: Log {
                entries: vec![membership, blank],
            },
            operations: Vec::new(),
            gone: BTreeMap::new(),
            index: 1,
            now: 1_000,
            late: Millis(0),
        };
        world.state.note_index(0, 1);
        world.state.note_index(1, 1);
        world.entry(vec![Op::System(SystemCommand::Found {
            cluster_id: "q".into(),
            generation: Generation(1),
        })]);
        let to = StateVersion(2);
        world.entry(vec![Op::System(SystemCommand::RaiseVersion { to })]);
        world.entry(vec![register("a1", 1), register("a2", 1)]);
        world
    }

    /// The state's time passes.
    pub fn later(&mut self, span: Millis) {
        self.late = Millis(self.late.0 + span.0);
    }

    /// Commits these as one entry, and gives its index.
    pub fn entry(&mut self, ops: Vec<Op>) -> u64 {
        self.index += 1;
        let index = self.index;
        let stamp = Timestamp(index * 1_000).plus(self.late);
        let entry = Entry {
            stamp,
            wall: stamp,
            ops,
        };
        self.log.entries.push(LogEntry {
            index,
            term: 1,
            content: Content::Operations(entry.encode()),
            words: Vec::new(),
        });
        let applied = self.state.apply(Stamped {
            index,
            term: 1,
            membership: 0,
            entry,
        });
        let records = applied.archive.records.iter();
        for record in records.filter(|record| !record.key.is_events()) {
            let record = TaskRecord::decode(&record.bytes).unwrap();
            let shown = TaskSeen::of(&wire::convert::archived_task(&record));
            self.gone.insert(shown.id, shown);
        }
        index
    }

    pub fn shown(&self, task: u64) -> TaskSeen {
        if let Some(gone) = self.gone.get(&task) {
            return gone.clone();
        }
        let task = self.state.task(TaskId(task)).unwrap();
        TaskSeen::of(&wire::convert::task(&self.state, task, false))
    }

    /// An answer from where the state stands.
    pub fn answer(&self, value: Value) -> Outcome {
        let (index, term, stale) = (self.index, 1, false);
        Outcome::Ok(Answer {
            position: Some(Position { index, term, stale }),
            value,
        })
    }

    /// Done by some client, after all that was done before.
    pub fn done(&mut self, action: Action, outcome: Outcome) -> &mut Operation {
        let id = self.operations.len() as u64 + 1;
        self.now += 100;
        let times = (self.now, self.now + 50);
        self.operations.push(operation(id, action, times, outcome));
        self.operations.last_mut().unwrap()
    }

    pub fn submitted(&mut self, request_id: &str, spec: TaskSpec) -> u64 {
        let identity = hex::encode(spec.identity());
        let index = self.entry(vec![submit(request_id, spec)]);
        let id = self.state.tasks_newest_first(None).next().unwrap().id.0;
        let action = Action::Submit {
            request_id: request_id.to_owned(),
            spec: SpecSeen {
                identity,
                ..SpecSeen::default()
            },
        };
        let task = self.shown(id);
        let outcome = self.answer(Value::Submitted {
            task,
            duplicate: false,
        });
        self.done(action, outcome);
        index
    }

    pub fn got(&mut self, task: u64) -> &mut Operation {
        let value = Value::Task {
            task: self.shown(task),
        };
        let outcome = self.answer(value);
        self.done(Action::Get { task }, outcome)
    }

    pub fn evidence(self) -> Evidence {
        let logs = BTreeMap::from([("c1".to_owned(), self.log)]);
        Evidence {
            history: History {
                operations: self.operations,
                ..History::default()
            },
            logs,
            voters: 1,
            ..Evidence::default()
        }
    }
}

/// Two tasks that ran, one after the other on one agent, looked at on the way.
pub fn story() -> World {
    let mut world = World::new();
    world.submitted("r1", spec());
    world.got(1);
    let first = world.entry(vec![assign(1, "a1")]);
    world.submitted("r2", spec());
    world.got(1);
    let second = world.entry(vec![assign(2, "a2")]);
    world.entry(vec![finish(1, first, "a1")]);
    world.got(1);
    world.entry(vec![finish(2, second, "a2")]);
    world.got(2);
    let tasks = vec![world.shown(2), world.shown(1)];
    let outcome = world.answer(Value::Tasks { tasks, next: 0 });
    let list = Action::List {
        states: Vec::new(),
        limit: 0,
        page: 0,
    };
    world.done(list, outcome);
    world
}
