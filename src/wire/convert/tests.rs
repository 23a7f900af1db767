//! What crosses the wire comes back as it was.

use std::collections::BTreeMap;

use model::{
    AgentId, AgentProfile, Assignment, Command, End, Entry, Incarnation, Interruption, Namespace,
    Op, Outcome, Placement, Principal, Role, Scored, Stamped, State, Submit, SystemCommand, TaskId,
    TaskSpec, Timestamp, Trace, Verdict,
};

use crate::v1;

fn namespace() -> Namespace {
    Namespace::new("default").expect("it is a name")
}

#[test]
fn a_spec_comes_back_as_it_was() {
    let mut spec = TaskSpec::process(namespace(), vec!["sh".into(), "-c".into(), "true".into()]);
    spec.env.insert("KEY".into(), "value".into());
    spec.labels.insert("team".into(), "blue".into());
    spec.require = vec![
        "gpu in (a100,h100)".parse().unwrap(),
        "zone!=b".parse().unwrap(),
    ];
    spec.prefer = ["ssd".parse().unwrap()].into();
    spec.timeout = Some(model::Millis(1_500));
    spec.retries = 3;
    spec.memory_mib = Some(64);
    spec.hardware = model::Hardware {
        cpu_milli: 1_500,
        gpus: 2,
        vram_mib: 24_576,
    };
    assert_eq!(TaskSpec::try_from(v1::TaskSpec::from(&spec)), Ok(spec));
}

#[test]
fn state_hashes_come_back_as_they_were_and_a_short_one_is_refused() {
    let hashes = model::StateHashes::from([(256, [1; 32]), (300, [2; 32])]);
    let mut told = super::state_hashes_out(&hashes);
    assert_eq!(super::state_hashes_in(&told), Ok(hashes));
    told[1].hash.truncate(31);
    assert!(super::state_hashes_in(&told).is_err());
}

#[test]
fn every_end_comes_back_as_it_was() {
    let reason = || "because".to_owned();
    for end in [
        End::Exited { code: 3 },
        End::Signalled { signal: 9 },
        End::TimedOut,
        End::Killed,
        End::NotStarted { reason: reason() },
        End::Declined { reason: reason() },
        End::Interrupted {
            cause: Interruption::AgentDied,
            reason: reason(),
        },
        End::Interrupted {
            cause: Interruption::EndedByAgent,
            reason: reason(),
        },
    ] {
        let mut outcome = Outcome::bare(end);
        outcome.stdout = vec![0, 255];
        outcome.stdout_bytes = 2;
        outcome.started_at = Timestamp(7);
        assert_eq!(Outcome::try_from(v1::Outcome::from(&outcome)), Ok(outcome));
    }
}

#[test]
fn an_inference_survives_the_wire_and_requires_its_model_said_or_not() {
    let inference = model::Inference {
        model: "a/b:8b".into(),
        endpoint: model::Endpoint::Embeddings,
        request: "{}".into(),
    };
    let namespace = Namespace::new("default").unwrap();
    let mut spec = TaskSpec::inference(namespace, inference);
    spec.require.insert(0, "zone=x".parse().unwrap());
    let wire = v1::TaskSpec::from(&spec);
    assert_eq!(wire.require, ["zone=x", "offers a/b:8b"]);
    assert_eq!(TaskSpec::try_from(wire.clone()), Ok(spec));
    let unsaid = v1::TaskSpec {
        require: vec!["zone=x".into()],
        retries: None,
        ..wire.clone()
    };
    let read = TaskSpec::try_from(unsaid).unwrap();
    assert_eq!(read.require[1], model::Expression::Offers("a/b:8b".into()));
    assert_eq!((read.retries, read.kind()), (2, model::Kind::Inference));
    let both = v1::TaskSpec {
        process: Some(v1::ProcessSpec::default()),
        ..wire
    };
    let error = TaskSpec::try_from(both).unwrap_err();
    assert!(error.to_string().contains("one of them"), "{error}");
}

#[test]
fn a_spec_without_a_command_or_with_a_bad_expression_says_so() {
    let error = TaskSpec::try_from(v1::TaskSpec::default()).unwrap_err();
    assert_eq!(error.to_string(), "no command to run, and no model to ask");
    let spec = v1::TaskSpec {
        process: Some(v1::ProcessSpec::default()),
        require: vec!["zone=".into()],
        ..v1::TaskSpec::default()
    };
    let error = TaskSpec::try_from(spec).unwrap_err();
    assert!(error.to_string().contains("at character 6"), "{error}");
}

#[test]
fn a_class_is_read_as_it_was_written_and_one_that_there_is_not_is_named() {
    let namespace = Namespace::new("default").unwrap();
    let mut spec = TaskSpec::process(namespace, vec!["true".into()]);
    for class in [None, Some(model::Class::Scavenger)] {
        spec.class = class;
        assert_eq!(
            TaskSpec::try_from(v1::TaskSpec::from(&spec)),
            Ok(spec.clone())
        );
    }
    let wrong = v1::TaskSpec {
        class: "urgent".into(),
        ..v1::TaskSpec::from(&spec)
    };
    let error = TaskSpec::try_from(wrong).unwrap_err();
    assert!(error.to_string().contains("`urgent`"), "{error}");
}

/// A log in which each operation has an entry of its own.
fn apply(state: &mut State, ops: Vec<Op>) {
    for op in ops {
        let stamp = Timestamp(1_000_000 * (state.last_applied() + 1));
        let entry = Entry {
            stamp,
            wall: stamp,
            ops: vec![op],
        };
        let index = state.last_applied() + 1;
        let applied = state.apply(Stamped {
            index,
            term: 1,
            membership: 0,
            entry,
        });
        assert!(applied.replies[0].is_ok(), "{:?}", applied.replies);
    }
}

fn asked(name: &str, role: Role, command: Command) -> Op {
    let principal = Principal {
        name: name.into(),
        role,
        fingerprint: [0; 32],
    };
    Op::Client {
        principal,
        command,
        placement: None,
        held: None,
    }
}

fn assignment(agent: &AgentId) -> Op {
    let winner = Scored {
        agent: agent.clone(),
        score: 0,
        terms: vec![0],
    };
    let trace = Trace {
        policy_version: 1,
        winner,
        runners_up: vec![],
        refusals: vec![],
    };
    let placement = Placement {
        agent: agent.clone(),
        incarnation: Incarnation::default(),
        trace: std::sync::Arc::new(model::TraceRecord::Open(trace)),
        estimate: None,
    };
    let task = TaskId(1);
    Op::System(SystemCommand::Assign(Assignment { task, placement }))
}

#[test]
fn the_result_of_an_earlier_try_is_not_shown_under_a_later_epoch() {
    let agent = AgentId::new("a1").unwrap();
    let mut spec = TaskSpec::process(namespace(), vec!["false".into()]);
    spec.retries = 1;
    let submit = Command::SubmitTask(Submit {
        spec,
        request_id: None,
    });
    let profile = AgentProfile {
        id: agent.clone(),
        incarnation: Incarnation::default(),
        slots: 1,
        labels: BTreeMap::new(),
        version: "test".into(),
        limits: "rlimit".into(),
        backends: Vec::new(),
        protocol: model::AgentProtocol::FIRST,
        supply: None,
    };
    let register = Command::RegisterAgent(profile);
    let mut state = State::default();
    let begun = vec![
        asked("a1", Role::Agent, register),
        asked("ann", Role::Client, submit),
        assignment(&agent),
    ];
    apply(&mut state, begun);
    let failed = Command::FinishAttempt(Verdict {
        fence: state.live_fence(TaskId(1)).unwrap(),
        outcome: Outcome::bare(End::Exited { code: 7 }),
    });
    let cancel = Command::CancelTask {
        task: TaskId(1),
        reason: String::new(),
    };
    let lost = SystemCommand::ExpireLease {
        agent: agent.clone(),
        incarnation: Incarnation::default(),
    };
    let second = vec![
        asked("a1", Role::Agent, failed),
        assignment(&agent),
        asked("ann", Role::Client, cancel),
        Op::System(lost),
    ];
    apply(&mut state, second);
    let shown = super::task::task(&state, state.task(TaskId(1)).unwrap(), false);
    assert_eq!(shown.state(), v1::TaskState::Cancelled);
    assert_eq!((shown.attempt, shown.result), (2, None));
}

#[test]
fn what_an_agent_understands_survives_its_hello_and_an_old_one_that_does_not_say_speaks_the_first()
{
    let said = v1::Hello {
        agent: "a1".into(),
        incarnation: vec![7; 16].into(),
        slots: 1,
        ..v1::Hello::default()
    };
    let old = model::AgentProfile::try_from(&said).unwrap();
    assert_eq!(old.protocol, model::AgentProtocol::FIRST);
    for protocol in [1, 2, 3] {
        let profile = model::AgentProfile {
            protocol: model::AgentProtocol(protocol),
            supply: (protocol == 3).then(|| model::Supply {
                cpu_milli: 8_000,
                memory_mib: 65_536,
                gpus: vec![24_576, 16_384],
            }),
            ..old.clone()
        };
        let hello = super::hello(&profile, String::new(), model::Generation(0));
        assert_eq!(hello.protocol, protocol);
        assert_eq!(model::AgentProfile::try_from(&hello), Ok(profile));
    }
}
