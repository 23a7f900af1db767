//! What crosses the wire comes back as it was.

use model::{End, Namespace, Outcome, TaskSpec, Timestamp};

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
    spec.timeout = Some(model::Millis(1_500));
    spec.retries = 3;
    spec.memory_mib = Some(64);
    assert_eq!(TaskSpec::try_from(v1::TaskSpec::from(&spec)), Ok(spec));
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
        End::Interrupted { reason: reason() },
    ] {
        let mut outcome = Outcome::bare(end);
        outcome.stdout = vec![0, 255];
        outcome.stdout_bytes = 2;
        outcome.started_at = Timestamp(7);
        assert_eq!(Outcome::try_from(v1::Outcome::from(&outcome)), Ok(outcome));
    }
}

#[test]
fn a_spec_without_a_command_or_with_a_bad_expression_says_so() {
    let error = TaskSpec::try_from(v1::TaskSpec::default()).unwrap_err();
    assert_eq!(error.to_string(), "no command to run");
    let spec = v1::TaskSpec {
        process: Some(v1::ProcessSpec::default()),
        require: vec!["zone=".into()],
        ..v1::TaskSpec::default()
    };
    let error = TaskSpec::try_from(spec).unwrap_err();
    assert!(error.to_string().contains("at character 6"), "{error}");
}
