//! The same as `exemplars`, of what came with state version 2.

use std::sync::Arc;

use super::exemplars::{Named, by_ann, entry, lived};
use super::world::{
    agent_id, fence, finish_op, placement, profile, register_op, spec, submit, submit_op,
};
use crate::{
    AgentProfile, AgentProtocol, Assignment, Attachment, BlobRef, Bulk, Class, Command, End, Entry,
    Event, Millis, Op, Outcome, OutcomeBlobs, Reason, SetBackend, SpecBlobs, Stamped, State,
    StateVersion, SystemCommand, TaskId,
};

/// What came with version 2.
pub fn since_2() -> Named<Entry> {
    let raise = SystemCommand::RaiseVersion {
        to: StateVersion(2),
    };
    vec![
        ("raise_version", entry(vec![Op::System(raise)])),
        ("submit_with_blobs", entry(vec![submit_with_blobs()])),
        ("finish_with_blobs", entry(vec![finish_with_blobs()])),
        ("submit_with_class", entry(vec![submit_with_class()])),
        ("set_backend", entry(vec![set_backend()])),
        (
            "assign_past_full_back_ends",
            entry(vec![assign_past(Reason::BackendsFull)]),
        ),
        ("register_newer_agent", entry(vec![register_newer()])),
        (
            "assign_past_too_old",
            entry(vec![assign_past(Reason::TooOld)]),
        ),
    ]
}

/// Events that came with version 2.
pub fn events_since_2() -> Vec<Event> {
    let agent = agent_id("a1");
    vec![Event::BackendSet { agent }]
}

fn register_newer() -> Op {
    register_op(AgentProfile {
        protocol: AgentProtocol(2),
        ..profile("a1", 4, 1)
    })
}

fn assign_past(reason: Reason) -> Op {
    let mut placement = placement("a1");
    Arc::make_mut(&mut placement.trace).refusals = vec![(reason, 1)];
    Op::System(SystemCommand::Assign(Assignment {
        task: TaskId(7),
        placement,
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
    let entry = entry(vec![
        raise,
        submit_with_blobs(),
        submit_with_class(),
        set_backend(),
        register_newer(),
    ]);
    let stamped = Stamped {
        index: state.last_applied() + 1,
        term: state.last_term(),
        membership: 0,
        entry,
    };
    for reply in state.apply(stamped).replies {
        reply.expect("nothing of it is refused");
    }
    state
}
