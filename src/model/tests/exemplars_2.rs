//! The same as `exemplars`, of what came with state version 2.

use std::sync::Arc;

use super::exemplars::{Named, by_ann, entry, lived};
use super::world::{
    agent_id, fence, finish_op, placement, profile, register_op, spec, submit, submit_op,
};
use crate::{
    AddRule, AgentProfile, AgentProtocol, Agents, Assignment, Attachment, BlobRef, Bulk, Class,
    Command, End, Entry, Epoch, Event, Hardware, Kind, Load, Magnitude, Millis, Namespace,
    Observed, Op, Outcome, OutcomeBlobs, Placement, Preemption, Presence, Reason, RuleAction,
    RuleId, Sample, Scope, SetBackend, SetNamespace, SetPolicy, SpecBlobs, Stamped, State,
    StateVersion, Strategy, Supply, SystemCommand, TaskId, Timestamp, Twentieths, Victim, Work,
};

/// What came with version 2.
pub fn since_2() -> Named<Entry> {
    let raise = SystemCommand::RaiseVersion {
        to: StateVersion(2),
    };
    let mut all = vec![
        ("raise_version", entry(vec![Op::System(raise)])),
        ("submit_with_blobs", entry(vec![submit_with_blobs()])),
        ("finish_with_blobs", entry(vec![finish_with_blobs()])),
        ("submit_with_class", entry(vec![submit_with_class()])),
        ("set_backend", entry(vec![set_backend()])),
        ("set_namespace", entry(vec![set_namespace()])),
        (
            "assign_past_full_back_ends",
            entry(vec![assign_past(Reason::BackendsFull)]),
        ),
        ("register_newer_agent", entry(vec![register_newer()])),
        (
            "assign_past_too_old",
            entry(vec![assign_past(Reason::TooOld)]),
        ),
        ("set_policy", entry(vec![set_policy()])),
        ("submit_with_prefer", entry(vec![submit_with_prefer()])),
        ("add_rule", entry(vec![add_rule("a1", RuleAction::Cap(3))])),
        (
            "remove_and_expire_rules",
            entry(vec![
                by_ann(Command::RemoveRule {
                    rule: RuleId { entry: 7, nth: 0 },
                }),
                Op::System(SystemCommand::ExpireRule {
                    rule: RuleId { entry: 8, nth: 0 },
                }),
            ]),
        ),
        (
            "observe",
            entry(vec![Op::System(SystemCommand::Observe(observed()))]),
        ),
        (
            "submit_with_hardware",
            entry(vec![submit_with_hardware(None)]),
        ),
        (
            "register_agent_with_supply",
            entry(vec![register_with_supply()]),
        ),
    ];
    all.extend(traces());
    all.extend(preempting());
    all
}

fn traces() -> Named<Entry> {
    vec![
        (
            "assign_with_a_packed_trace",
            entry(vec![assign_with_a_packed_trace()]),
        ),
        (
            "assign_past_what_lacks_or_is_taken",
            entry(vec![assign_past_all(&[
                Reason::LacksCpu,
                Reason::LacksMemory,
                Reason::LacksGpus,
                Reason::LacksVram,
                Reason::CpuTaken,
                Reason::MemoryTaken,
                Reason::GpusTaken,
                Reason::VramTaken,
                Reason::Kept,
                Reason::Excluded,
                Reason::PinnedElsewhere,
                Reason::Capped,
                Reason::Busy,
                Reason::Others,
            ])]),
        ),
    ]
}

fn preempting() -> Named<Entry> {
    vec![
        (
            "submit_preemptible",
            entry(vec![submit_preemptible("r15", None)]),
        ),
        (
            "preempt",
            entry(vec![preempt(
                (TaskId(3), "a1"),
                Victim {
                    task: TaskId(2),
                    epoch: Epoch(9),
                },
            )]),
        ),
    ]
}

/// Events that came with version 2.
pub fn events_since_2() -> Vec<Event> {
    let agent = agent_id("a1");
    let namespace = namespace();
    vec![
        Event::BackendSet { agent },
        Event::NamespaceSet { namespace },
        Event::PolicySet { scope: scope() },
        Event::RuleSet {
            rule: RuleId { entry: 7, nth: 0 },
        },
        Event::RuleRemoved {
            rule: RuleId { entry: 7, nth: 0 },
        },
        Event::RuleExpired {
            rule: RuleId { entry: 8, nth: 0 },
        },
        Event::Preempted {
            fence: fence(2, 9),
            agent: agent_id("a1"),
            by: TaskId(3),
        },
    ]
}

fn observed() -> Observed {
    let paces = vec![
        (Work::Kind(Kind::Process), Magnitude::of(1_500)),
        (Work::Model("llama".into()), Magnitude::of(60_000)),
        (Work::Model("gone".into()), Magnitude::default()),
    ];
    let sample = Sample {
        presence: Presence::Open,
        prefetch: 1,
        load: Load {
            cpu: Twentieths::of(970),
            others: Twentieths::of(120),
            memory: Twentieths::of(500),
            latency: Magnitude::of(850),
        },
    };
    let mut samples = vec![(agent_id("a1"), sample)];
    for presence in [
        Presence::NotConnected,
        Presence::Declining,
        Presence::Suspect,
    ] {
        let sample = Sample {
            presence,
            ..Sample::default()
        };
        samples.push((agent_id("a1"), sample));
    }
    Observed {
        round: 7,
        since: 4,
        applied: 1_000,
        now: Timestamp(1_767_225_600_000),
        under_way: vec![5, 6],
        seed: 300,
        is_whole: true,
        samples,
        paces: vec![(agent_id("a1"), paces)],
    }
}

fn register_newer() -> Op {
    register_op(AgentProfile {
        protocol: AgentProtocol(2),
        ..profile("a1", 4, 1)
    })
}

fn submit_with_hardware(placement: Option<Placement>) -> Op {
    let mut submit = submit(spec("train"), None);
    submit.spec.hardware = Hardware {
        cpu_milli: 1_500,
        gpus: 2,
        vram_mib: 24_576,
    };
    submit_op(submit, placement)
}

fn register_with_supply() -> Op {
    register_op(AgentProfile {
        protocol: AgentProtocol(3),
        supply: Some(Supply {
            cpu_milli: 16_000,
            memory_mib: 65_536,
            gpus: vec![24_576, 24_576],
        }),
        ..profile("a8", 4, 1)
    })
}

fn assign_past(reason: Reason) -> Op {
    assign_past_all(&[reason])
}

fn assign_past_all(reasons: &[Reason]) -> Op {
    let mut placement = placement("a1");
    let refusals = reasons.iter().map(|reason| (reason.clone(), 1));
    let refusals = refusals.collect();
    let told = placement.trace.read().expect("it is not packed");
    let trace = crate::Trace { refusals, ..told };
    placement.trace = Arc::new(crate::TraceRecord::Open(trace));
    Op::System(SystemCommand::Assign(Assignment {
        task: TaskId(7),
        placement,
    }))
}

/// As a leader writes it at version 2.
fn packed(placement: Placement) -> Placement {
    let told = placement.trace.read().expect("it is not packed");
    let trace = told.recorded(StateVersion(2)).into();
    Placement { trace, ..placement }
}

fn assign_with_a_packed_trace() -> Op {
    Op::System(SystemCommand::Assign(Assignment {
        task: TaskId(7),
        placement: packed(super::exemplars::full_placement()),
    }))
}

fn set_backend() -> Op {
    by_ann(Command::SetBackend(SetBackend {
        agent: agent_id("a1"),
        name: "local".into(),
        weight: Some(3),
        limit: Some(8),
        max_fails: None,
        fail_timeout: Some(Millis(30_000)),
    }))
}

fn namespace() -> Namespace {
    Namespace::new("team-a").expect("it is a name")
}

fn set_namespace() -> Op {
    by_ann(Command::SetNamespace(SetNamespace {
        namespace: namespace(),
        weight: Some(3),
        users: [("bob".to_owned(), 2)].into(),
        max_running: Some(8),
        max_queued: None,
    }))
}

fn scope() -> Scope {
    Scope {
        namespace: Some(namespace()),
        kind: Some(Kind::Process),
    }
}

fn set_policy() -> Op {
    by_ann(Command::SetPolicy(SetPolicy {
        scope: scope(),
        strategy: Some(Strategy::RoundRobin),
    }))
}

fn add_rule(agent: &str, action: RuleAction) -> Op {
    by_ann(Command::AddRule(AddRule {
        action,
        scope: scope(),
        agents: Agents {
            names: [agent_id(agent)].into(),
            require: vec!["zone!=b".parse().expect("it is an expression")],
        },
        reason: "too warm".into(),
        ttl: Some(Millis(60_000)),
    }))
}

/// Assigned at once, and ended.
fn submit_and_place(request: &str) -> Op {
    let mut submit = submit(spec("sort"), Some(request));
    submit.spec.namespace = namespace();
    submit_op(submit, Some(packed(placement("a9"))))
}

fn submit_with_blobs() -> Op {
    let mut submit = submit(spec("sort"), Some("r9"));
    submit.spec.blobs = SpecBlobs {
        bulk: Some(Box::new(Bulk {
            blob: BlobRef::of(b"arguments"),
            whole: [7; 16],
        })),
        attachments: [Attachment {
            name: "data.csv".into(),
            blob: BlobRef::of(b"1,2,3"),
            executable: true,
        }]
        .into(),
    };
    submit_op(submit, None)
}

fn submit_with_prefer() -> Op {
    let mut submit = submit(spec("sort"), Some("r14"));
    submit.spec.prefer = ["ssd", "zone=a"]
        .map(|it| it.parse().expect("it is one"))
        .into();
    submit_op(submit, None)
}

fn submit_preemptible(request: &str, placement: Option<Placement>) -> Op {
    let mut submit = submit(spec("sort"), Some(request));
    submit.spec.class = Some(Class::Batch);
    submit.spec.preemptible = true;
    submit_op(submit, placement)
}

fn preempt((task, agent): (TaskId, &str), victim: Victim) -> Op {
    let placement = placement(agent);
    Op::System(SystemCommand::Preempt(Preemption {
        victims: vec![victim],
        assignment: Assignment { task, placement },
    }))
}

fn submit_with_class() -> Op {
    let mut submit = submit(spec("sort"), Some("r10"));
    submit.spec.class = Some(Class::Batch);
    submit_op(submit, None)
}

fn finish_with_blobs() -> Op {
    let mut outcome = Outcome::bare(End::Exited { code: 0 });
    outcome.blobs = Box::new(OutcomeBlobs {
        stdout: Some(BlobRef::of(b"a long output")),
        stderr: None,
    });
    outcome.stdout_bytes = 13;
    finish_op(fence(1, 2), "a1", outcome)
}

/// The life of before, gone on with at version 2.
pub fn lived_on() -> State {
    let (mut state, _) = lived();
    let raise = Op::System(SystemCommand::RaiseVersion {
        to: StateVersion(2),
    });
    let begun = entry(vec![
        raise,
        submit_with_blobs(),
        submit_with_class(),
        submit_with_prefer(),
        set_backend(),
        register_newer(),
        register_op(profile("a9", 4, 1)),
        set_namespace(),
        set_policy(),
        submit_and_place("r11"),
        submit_and_place("r12"),
        register_with_supply(),
        submit_with_hardware(Some(placement("a8"))),
        add_rule("a8", RuleAction::Exclude),
        add_rule("a9", RuleAction::Cap(2)),
    ]);
    let epoch = state.last_applied() + 1;
    let placed = TaskId(apply(&mut state, begun).0 - 2);
    let mut outcome = Outcome::bare(End::Exited { code: 0 });
    (outcome.started_at, outcome.finished_at) = (Timestamp(1), Timestamp(3_001));
    let finished = Entry {
        stamp: Timestamp(1_700_000_005_123),
        ..entry(vec![finish_op(fence(placed.0, epoch), "a9", outcome)])
    };
    apply(&mut state, finished);
    apply(
        &mut state,
        entry(vec![Op::System(SystemCommand::Observe(observed()))]),
    );
    let mut newest = profile("a10", 1, 1);
    newest.protocol = AgentProtocol(4);
    let more = entry(vec![
        register_op(newest),
        submit_preemptible("r16", Some(placement("a10"))),
        submit_op(submit(spec("sort"), Some("r17")), None),
    ]);
    let epoch = Epoch(state.last_applied() + 1);
    let winner = apply(&mut state, more);
    let victim = Victim {
        task: TaskId(winner.0 - 1),
        epoch,
    };
    apply(&mut state, entry(vec![preempt((winner, "a10"), victim)]));
    let yields = state.task(victim.task).and_then(crate::Task::live);
    assert_eq!(yields.and_then(|it| it.preempted_by), Some(winner));
    let ended = state.task(placed).map(crate::Task::state);
    assert_eq!(ended, Some(crate::StateName::Succeeded));
    state
}

/// The latest task.
fn apply(state: &mut State, entry: Entry) -> TaskId {
    let stamped = Stamped {
        index: state.last_applied() + 1,
        term: state.last_term(),
        membership: 0,
        entry,
    };
    for reply in state.apply(stamped).replies {
        reply.expect("nothing of it is refused");
    }
    let newest = state.tasks_newest_first(None).next();
    newest.expect("there are some").id
}
