//! One value of every kind that is persisted, as release 0.1.0 could have written it: what the golden data in
//! `golden/formats` stands for. Never changed, only added to.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::world::{
    agent_id, client, fence, finish_op, incarnation, placement, profile, register_op, spec, submit,
    submit_op,
};
use crate::{
    AgentProfile, Assignment, Attempt, Backend, Cancellation, Class, Command, ControllerId,
    DrainAgent, End, Endpoint, Enrolment, Entry, Epoch, Event, Expression, Generation, Inference,
    Interruption, JoinTokenId, KeyHash, Kind, Millis, NewJoinToken, Op, Outcome, Phase, Placement,
    Principal, Reason, Retention, Role, Scored, Stamped, State, StateName, SystemCommand, Task,
    TaskId, TaskSpec, Timestamp, Trace, TraceRecord, Usage,
};

pub type Named<T> = Vec<(&'static str, T)>;

pub fn entry(ops: Vec<Op>) -> Entry {
    Entry {
        stamp: Timestamp(1_700_000_000_123),
        wall: Timestamp(1_700_000_000_456),
        ops,
    }
}

fn asked(principal: Principal, command: Command) -> Op {
    Op::Client {
        principal,
        command,
        placement: None,
        held: None,
    }
}

pub fn by_ann(command: Command) -> Op {
    asked(client("ann"), command)
}

fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into()));
    owned.collect()
}

fn full_spec() -> TaskSpec {
    TaskSpec {
        name: "nightly".into(),
        env: pairs(&[("LANG", "C"), ("N", "1")]),
        cwd: "/srv".into(),
        labels: pairs(&[("team", "blue")]),
        require: vec![
            Expression::Equals("zone".into(), "a".into()),
            Expression::Differs("zone".into(), "b".into()),
            Expression::In("disk".into(), ["nvme".into(), "ssd".into()].into()),
            Expression::Exists("gpu".into()),
        ],
        timeout: Some(Millis(60_000)),
        deadline: Some(Millis(3_600_000)),
        retries: 3,
        memory_mib: Some(512),
        ..spec("make -j 2")
    }
}

fn asks(endpoint: Endpoint) -> TaskSpec {
    let namespace = spec("true").namespace;
    let inference = Inference {
        model: "llama-3:8b".into(),
        endpoint,
        request: "{\"messages\":[]}".into(),
    };
    TaskSpec::inference(namespace, inference)
}

fn once() -> TaskSpec {
    TaskSpec {
        at_most_once: true,
        ..spec("true")
    }
}

fn reasons() -> Vec<Reason> {
    vec![
        Reason::Lost,
        Reason::NotConnected,
        Reason::Suspect,
        Reason::NoFreeSlot,
        Reason::LabelMismatch,
        Reason::NotOffered,
        Reason::LostBefore,
        Reason::Cordoned,
        Reason::Draining,
        Reason::Declining,
    ]
}

pub fn full_placement() -> Placement {
    let scored = |agent: &str, score| Scored {
        agent: agent_id(agent),
        score,
        terms: vec![score, -2, 300],
    };
    let trace = Trace {
        policy_version: 1,
        winner: scored("a1", 40),
        runners_up: vec![scored("a2", 30), scored("a3", -1)],
        refusals: reasons().into_iter().zip(1..).collect(),
    };
    Placement {
        agent: agent_id("a1"),
        incarnation: incarnation(1),
        trace: Arc::new(TraceRecord::Open(trace)),
        estimate: None,
    }
}

fn full_profile() -> AgentProfile {
    AgentProfile {
        labels: pairs(&[("zone", "a")]),
        version: "0.1.0".into(),
        backends: vec![Backend {
            name: "local".into(),
            url: "http://127.0.0.1:8000/v1".into(),
            models: vec!["llama-3:8b".into()],
            trouble: "429".into(),
        }],
        ..profile("a1", 4, 1)
    }
}

pub fn ends() -> Named<End> {
    let reason = || "no such program".to_owned();
    let interrupted = |cause| End::Interrupted {
        cause,
        reason: "restarted".into(),
    };
    vec![
        ("exited", End::Exited { code: -1 }),
        ("signalled", End::Signalled { signal: 9 }),
        ("timed_out", End::TimedOut),
        ("killed", End::Killed),
        ("not_started", End::NotStarted { reason: reason() }),
        ("failed", End::Failed { reason: reason() }),
        ("impossible", End::Impossible { reason: reason() }),
        ("declined", End::Declined { reason: reason() }),
        ("agent_died", interrupted(Interruption::AgentDied)),
        ("ended_by_agent", interrupted(Interruption::EndedByAgent)),
    ]
}

fn full_outcome() -> Outcome {
    Outcome {
        stdout: b"out\n".to_vec(),
        stderr: vec![0xff, 0],
        stdout_bytes: 4,
        stderr_bytes: 70_000,
        started_at: Timestamp(1_700_000_000_500),
        finished_at: Timestamp(1_700_000_001_500),
        usage: Some(Usage {
            prompt_tokens: 11,
            completion_tokens: 22,
        }),
        ..Outcome::bare(End::Exited { code: 0 })
    }
}

fn new_token(id: &str, role: Role, name: Option<&str>) -> NewJoinToken {
    NewJoinToken {
        id: JoinTokenId::new(id).expect("it is a name"),
        secret: [7; 32],
        role,
        name: name.map(str::to_owned),
        uses: 1,
        ttl: Millis(3_600_000),
        validity: Millis(86_400_000),
        labels: match role {
            Role::Agent => pairs(&[("zone", "a")]),
            Role::Controller | Role::Client => BTreeMap::new(),
        },
    }
}

fn enrolment(token: &str, role: Role, name: &str) -> Enrolment {
    Enrolment {
        token: JoinTokenId::new(token).expect("it is a name"),
        role,
        key: KeyHash([9; 32]),
        name: name.into(),
        last_controller: ControllerId(3),
    }
}

fn controller() -> Principal {
    Principal {
        name: "c1".into(),
        role: Role::Controller,
        fingerprint: [3; 32],
    }
}

fn joins() -> Named<Op> {
    let token = JoinTokenId::new("j1").expect("it is a name");
    vec![
        (
            "create_join_token",
            by_ann(Command::CreateJoinToken(new_token(
                "j1",
                Role::Agent,
                Some("a9"),
            ))),
        ),
        (
            "revoke_join_token",
            by_ann(Command::RevokeJoinToken { token }),
        ),
        (
            "enrol",
            asked(
                controller(),
                Command::Enrol(enrolment("j1", Role::Agent, "a9")),
            ),
        ),
    ]
}

/// Commands, each in an entry of its own.
pub fn commands() -> Named<Entry> {
    let a1 = || agent_id("a1");
    let mut named = vec![
        ("submit_bare", submit_op(submit(spec("true"), None), None)),
        (
            "submit_full",
            submit_op(submit(full_spec(), Some("r1")), Some(full_placement())),
        ),
        ("submit_once", submit_op(submit(once(), None), None)),
        (
            "submit_chat",
            submit_op(submit(asks(Endpoint::ChatCompletions), Some("r2")), None),
        ),
        (
            "submit_completions",
            submit_op(submit(asks(Endpoint::Completions), None), None),
        ),
        (
            "submit_embeddings",
            submit_op(submit(asks(Endpoint::Embeddings), None), None),
        ),
        (
            "cancel",
            by_ann(Command::CancelTask {
                task: TaskId(300),
                reason: "wrong".into(),
            }),
        ),
        ("register", register_op(full_profile())),
        ("finish", finish_op(fence(70_000, 5), "a1", full_outcome())),
        (
            "cordon",
            by_ann(Command::CordonAgent {
                agent: a1(),
                reason: "disk".into(),
            }),
        ),
        ("uncordon", by_ann(Command::UncordonAgent { agent: a1() })),
        (
            "drain",
            by_ann(Command::DrainAgent(DrainAgent {
                agent: a1(),
                reason: "disk".into(),
                deadline: Millis(600_000),
            })),
        ),
        ("remove", by_ann(Command::RemoveAgent { agent: a1() })),
    ];
    named.extend(joins());
    for (name, end) in ends() {
        named.push((name, finish_op(fence(3, 4), "a1", Outcome::bare(end))));
    }
    let entries = named.into_iter().map(|(name, op)| (name, entry(vec![op])));
    entries.collect()
}

/// What leaders say by themselves, and entries of more than one operation.
pub fn system_commands() -> Named<Entry> {
    let (agent, incarnation) = (agent_id("a1"), incarnation(1));
    let found = SystemCommand::Found {
        cluster_id: "7d3b".into(),
        generation: Generation(1),
    };
    let assign = SystemCommand::Assign(Assignment {
        task: TaskId(7),
        placement: full_placement(),
    });
    let mut named = vec![
        ("found", vec![found]),
        ("assign", vec![assign.clone()]),
        (
            "expire_lease",
            vec![SystemCommand::ExpireLease {
                agent: agent.clone(),
                incarnation,
            }],
        ),
        (
            "expire_deadline",
            vec![SystemCommand::ExpireDeadline { task: TaskId(7) }],
        ),
        ("expire_drain", vec![SystemCommand::ExpireDrain { agent }]),
        ("retain", vec![SystemCommand::Retain(Retention::default())]),
        ("nothing", vec![]),
        (
            "several",
            vec![SystemCommand::ExpireDeadline { task: TaskId(8) }, assign],
        ),
    ];
    let entries = named.drain(..).map(|(name, commands)| {
        let ops = commands.into_iter().map(Op::System).collect();
        (name, entry(ops))
    });
    entries.collect()
}

pub fn events() -> Vec<Event> {
    let (task, agent, incarnation) = (TaskId(7), || agent_id("a1"), incarnation(1));
    let fence = fence(7, 9);
    let ended = StateName::ALL.map(|state| Event::TaskEnded { task, state });
    let mut all = vec![
        Event::TaskQueued { task },
        Event::TaskAssigned {
            fence,
            agent: agent(),
            incarnation,
        },
        Event::TaskRequeued { task },
        Event::CancelRequested {
            fence,
            agent: agent(),
            reason: "wrong".into(),
        },
        Event::AttemptEnded {
            fence,
            agent: agent(),
        },
        Event::AgentRegistered { agent: agent() },
        Event::AgentLost {
            agent: agent(),
            incarnation,
        },
        Event::SegmentDropped { first: 32_768 },
        Event::AgentCordoned { agent: agent() },
        Event::AgentUncordoned { agent: agent() },
        Event::AgentDraining { agent: agent() },
        Event::DrainExpired { agent: agent() },
        Event::AgentRemoved {
            agent: agent(),
            incarnation,
        },
    ];
    all.extend(ended);
    all
}

/// Machines that join, and agents that are closed.
fn administration() -> Vec<Vec<Op>> {
    let drain = DrainAgent {
        agent: agent_id("a1"),
        reason: "disk".into(),
        deadline: Millis(600_000),
    };
    vec![
        vec![
            by_ann(Command::CreateJoinToken(new_token("j1", Role::Agent, None))),
            by_ann(Command::CreateJoinToken(new_token(
                "j2",
                Role::Controller,
                None,
            ))),
        ],
        vec![asked(
            controller(),
            Command::Enrol(enrolment("j1", Role::Agent, "a9")),
        )],
        vec![by_ann(Command::RevokeJoinToken {
            token: JoinTokenId::new("j2").expect("it is a name"),
        })],
        vec![by_ann(Command::DrainAgent(drain))],
        vec![by_ann(Command::CordonAgent {
            agent: agent_id("a2"),
            reason: "old".into(),
        })],
    ]
}

/// A log that, with what administrators do after it, leaves a record in every table, and segments in the archive.
fn life() -> Vec<Vec<Op>> {
    let system = |command| vec![Op::System(command)];
    let small = Retention {
        hot_tasks: 4,
        segment_entries: 8,
        ..Retention::default()
    };
    let found = SystemCommand::Found {
        cluster_id: "7d3b".into(),
        generation: Generation(1),
    };
    let expired = SystemCommand::ExpireLease {
        agent: agent_id("a2"),
        incarnation: incarnation(1),
    };
    let place = |agent| Some(placement(agent));
    let ends = |task, epoch, code| {
        let outcome = Outcome::bare(End::Exited { code });
        vec![finish_op(fence(task, epoch), "a1", outcome)]
    };
    let plain = |spec: TaskSpec| submit(spec, None);
    let job = |id: &str| submit(spec("true"), Some(id));
    vec![
        system(found),
        system(SystemCommand::Retain(small)),
        vec![register_op(full_profile())],
        vec![register_op(profile("a2", 2, 1))],
        // t1 to t4 end; t1 with all that a result may have.
        vec![submit_op(job("r1"), place("a1"))],
        vec![submit_op(job("r2"), place("a1"))],
        vec![submit_op(job("r3"), place("a1"))],
        vec![submit_op(job("r4"), place("a1"))],
        vec![finish_op(fence(1, 5), "a1", full_outcome())],
        ends(2, 6, 1),
        ends(3, 7, 0),
        ends(4, 8, 0),
        // t5 was to run once and is lost; t6 waits; t7 is cancelled, t8 once its agent says so.
        vec![submit_op(plain(once()), place("a2"))],
        vec![submit_op(plain(full_spec()), None)],
        vec![submit_op(plain(asks(Endpoint::ChatCompletions)), None)],
        vec![submit_op(job("r8"), place("a1"))],
        system(expired),
        vec![
            by_ann(Command::CancelTask {
                task: TaskId(7),
                reason: "wrong".into(),
            }),
            by_ann(Command::CancelTask {
                task: TaskId(8),
                reason: "late".into(),
            }),
        ],
    ]
}

/// The state after it, and the archive's records.
pub fn lived() -> (State, Vec<crate::Record>) {
    let (mut state, mut records) = (State::default(), Vec::new());
    let log = [life(), administration()].concat();
    for (position, ops) in log.into_iter().enumerate() {
        let index = position as u64 + 1;
        let entry = Entry {
            stamp: Timestamp(1_700_000_000_000 + 10 * index),
            ..entry(ops)
        };
        let term = 1 + index / 10;
        let stamped = Stamped {
            index,
            term,
            membership: 0,
            entry,
        };
        let applied = state.apply(stamped);
        for reply in applied.replies {
            reply.expect("the exemplar's life has no refusal");
        }
        records.extend(applied.archive.records);
    }
    (state, records)
}

fn bare(phase: Phase, class: Class) -> Task {
    Task {
        id: TaskId(7),
        kind: Kind::Process,
        class,
        user: "ann".into(),
        phase,
        submit_index: 8,
        last_index: 300,
        submitted_at: Timestamp(1_700_000_000_456),
        started_at: None,
        finished_at: None,
        deadline: None,
        ended: None,
        attempts: 0,
        failures: 0,
        lost_agents: [].into(),
        settled: None,
        latest: None,
        trace: None,
        request_id: None,
        waits_since: Timestamp::default(),
        preemptions: 0,
    }
}

/// A task in each phase, with each class.
pub fn tasks() -> Named<Task> {
    let attempt = || Attempt {
        agent: agent_id("a1"),
        incarnation: incarnation(1),
        epoch: Epoch(9),
        since: Timestamp::default(),
        reserved: 0,
        gpus: crate::Gpus::new(),
        estimate: None,
        preempted_by: None,
    };
    let cancellation = || Cancellation {
        by: "ann".into(),
        reason: "wrong".into(),
    };
    let reason = || "exit code 1".to_owned();
    let queued = Phase::Queued {
        not_before: Some(Timestamp(1_700_000_001_000)),
        reason: reason(),
    };
    let assigned = |cancel| Phase::Assigned {
        attempt: Arc::new(attempt()),
        cancel,
    };
    let unknown = Phase::Unknown {
        attempt: Box::new(attempt()),
        reason: reason(),
    };
    let full = Task {
        kind: Kind::Inference,
        started_at: Some(Timestamp(1_700_000_000_500)),
        finished_at: Some(Timestamp(1_700_000_000_600)),
        deadline: Some(Timestamp(1_700_000_900_000)),
        ended: Some(Timestamp(1_700_000_000_610)),
        attempts: 3,
        failures: 2,
        lost_agents: [agent_id("a2")].into(),
        settled: Some(Epoch(9)),
        latest: Some(Arc::new(attempt())),
        trace: Some(full_placement().trace),
        request_id: Some("r1".into()),
        ..bare(Phase::Succeeded, Class::Interactive)
    };
    vec![
        ("queued", bare(queued, Class::Critical)),
        ("assigned", bare(assigned(None), Class::Standard)),
        (
            "assigned_and_cancelled",
            bare(assigned(Some(Box::new(cancellation()))), Class::Batch),
        ),
        ("succeeded", full),
        (
            "failed",
            bare(Phase::Failed { reason: reason() }, Class::Scavenger),
        ),
        (
            "cancelled",
            bare(Phase::Cancelled(Box::new(cancellation())), Class::Standard),
        ),
        ("unknown", bare(unknown, Class::Standard)),
        (
            "dead_letter",
            bare(Phase::DeadLetter { reason: reason() }, Class::Standard),
        ),
    ]
}
